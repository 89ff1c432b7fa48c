import numpy as np
import pytest

from segkc_deploy.preprocess import resize_image, resize_mask


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bilinear_matrix(source, target):
    """Return the (target, source) weights of linear interpolation between pixel centers, edges repeated."""
    matrix = np.zeros((target, source))
    for index in range(target):
        position = min(max((index + 0.5) * source / target - 0.5, 0), source - 1)
        below = int(position)
        above = min(below + 1, source - 1)
        matrix[index, below] += 1 - (position - below)
        matrix[index, above] += position - below
    return matrix


def area_matrix(source, target):
    """Return the (target, source) weights of averaging: how much of each source pixel a target pixel covers."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * target / source


def resized(image, rows, columns):
    return np.einsum("yh,hwc,xw->yxc", rows, image.astype(np.float64), columns)


@pytest.mark.parametrize("size", [(61, 83), (40, 50), (23, 31), (100, 41), (31, 30)])  # 30 is half of the width
def test_image_is_interpolated_between_pixel_centers(size):
    image = random_image(45, 60)
    expected = resized(image, bilinear_matrix(45, size[0]), bilinear_matrix(60, size[1]))
    result = resize_image(image, size)
    assert result.shape == (*size, 3)
    assert result.dtype == np.uint8
    # Both weights of a pixel are rounded to 1/256 (at most half a level each, twice), and the result to a level.
    assert np.abs(result - expected).max() < 1.5
    assert abs((result - expected).mean()) < 0.02


@pytest.mark.parametrize("size", [(20, 30), (15, 20), (19, 59)])
def test_strong_shrinking_averages_areas(size):
    image = random_image(45, 60)
    expected = resized(image, area_matrix(45, size[0]), area_matrix(60, size[1]))
    assert np.abs(resize_image(image, size) - expected).max() < 0.51


def test_one_side_may_shrink_strongly_while_the_other_grows():
    image = random_image(20, 90)
    shrunk = resized(image, np.eye(20), area_matrix(90, 30))
    expected = resized(shrunk, bilinear_matrix(20, 50), np.eye(30))
    assert np.abs(resize_image(image, (50, 30)) - expected).max() < 2.01


def test_shrinking_by_two_is_still_bilinear_and_by_more_is_not():
    stripes = np.zeros((4, 40, 3), dtype=np.uint8)
    stripes[:, ::5] = 255
    assert np.ptp(resize_image(stripes, (4, 20))) > 0
    averaged = resize_image(stripes, (4, 8))
    assert np.ptp(averaged) == 0
    assert averaged[0, 0, 0] == 51


def test_mask_takes_the_pixel_under_each_center():
    mask = np.random.default_rng(1).integers(0, 21, (37, 53), dtype=np.uint8)
    for height, width in ((74, 106), (61, 89), (19, 29), (36, 54)):
        rows = ((2 * np.arange(height) + 1) * 37) // (2 * height)
        columns = ((2 * np.arange(width) + 1) * 53) // (2 * width)
        np.testing.assert_array_equal(resize_mask(mask, (height, width)), mask[np.ix_(rows, columns)])


def test_mask_of_an_enlarged_mask_is_the_mask():
    mask = np.random.default_rng(2).integers(0, 256, (11, 7), dtype=np.uint8)
    np.testing.assert_array_equal(resize_mask(resize_mask(mask, (33, 35)), (11, 7)), mask)


def test_the_right_size_is_left_alone():
    image = random_image(9, 14)
    mask = image[..., 0]
    assert resize_image(image, (9, 14)) is image
    assert resize_mask(mask, (9, 14)) is mask


def test_image_and_mask_stay_aligned():
    """The edge between two halves falls on the same column in the resized image and in the resized mask."""
    image = np.zeros((10, 10, 3), dtype=np.uint8)
    image[:, 5:] = 255
    mask = (image[..., 0] > 0).astype(np.uint8)
    for size in ((30, 30), (14, 14), (26, 18)):
        np.testing.assert_array_equal(resize_image(image, size)[..., 0] > 127, resize_mask(mask, size) == 1)
