import numpy as np
import pytest

from segkc_deploy.labels import Labels
from segkc_deploy.overlay import _entries, _font, _word, blend, colorize, overlay

LABELS = Labels(
    names=("sky", "road", "a very long class name that needs room", "unused"),
    palette=((10, 120, 240), (200, 30, 90), (90, 200, 20), (255, 0, 255)),
)
WHITE = np.array([255, 255, 255])


def scene(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 2 :] = 1
    mask[-1, -1] = 2
    return image, mask


def has_color(picture, color):
    return (picture == np.array(color)).all(axis=-1)


def test_colorize_is_the_palette_and_black_where_nothing_is_labeled():
    mask = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(colorize(mask, LABELS)[0], [*LABELS.palette[:3], (0, 0, 0)])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_blend_mixes_image_and_color(alpha):
    image, mask = scene(20, 30)
    colors = np.array(LABELS.palette)[mask]
    expected = (1 - alpha) * image.astype(np.float64) + alpha * colors
    assert np.abs(blend(image, mask, LABELS, alpha) - expected).max() <= 0.501


def test_blend_leaves_unlabeled_pixels_alone():
    image, mask = scene(20, 30)
    mask[:5] = LABELS.ignore_index
    blended = blend(image, mask, LABELS)
    np.testing.assert_array_equal(blended[:5], image[:5])
    assert (blended[5:] != image[5:]).any()


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (40, 900), (900, 40), (360, 480), (1500, 2000)])
def test_a_legend_stands_below_the_image_and_fits(size):
    image, mask = scene(*size)
    picture = overlay(image, mask, LABELS)
    height, width = size
    left = (picture.shape[1] - width) // 2
    np.testing.assert_array_equal(picture[:height, left : left + width], blend(image, mask, LABELS))
    legend = picture[height:]
    assert len(legend) >= 14
    border = np.concatenate([legend[0], legend[-1], legend[:, 0], legend[:, -1]])
    assert (border == WHITE).all(), "something was cut off at the edge"


def test_the_legend_holds_the_classes_that_occur_the_largest_first():
    image, mask = scene(90, 200)
    mask[80:] = 0
    legend = overlay(image, mask, LABELS)[90:]
    tops = [np.argmax(has_color(legend, color).any(axis=1)) for color in LABELS.palette[:3]]
    lefts = [np.argmax(has_color(legend, color).any(axis=0)) for color in LABELS.palette[:3]]
    assert all(has_color(legend, color).any() for color in LABELS.palette[:2])
    assert not has_color(legend, LABELS.palette[2]).any()
    assert not has_color(legend, LABELS.palette[3]).any()
    assert (tops[0], lefts[0]) < (tops[1], lefts[1])


def test_text_grows_with_the_image():
    def swatch_height(size):
        image, mask = scene(*size)
        return has_color(overlay(image, mask, LABELS)[size[0] :], LABELS.palette[0]).any(axis=1).sum()

    assert 10 <= swatch_height((20, 20)) <= 20
    assert swatch_height((2000, 2000)) >= 2000 / 40


def test_the_legend_says_names_and_shares():
    _, mask = scene(100, 100)
    texts = [(entry.name, entry.share) for entry in _entries(mask, LABELS)]
    assert texts == [("sky", "50.0%"), ("road", "50.0%"), ("a very long class name that needs room", "<0.1%")]


def test_a_mask_without_classes_still_gives_a_picture():
    image, mask = scene(20, 30)
    picture = overlay(image, np.full_like(mask, 255), LABELS)
    np.testing.assert_array_equal(picture[:20, (picture.shape[1] - 30) // 2 :][:, :30], image)


def test_names_with_other_letters_than_ascii_are_drawn():
    assert _word("Straße", 20).shape[1] > _word("Str", 20).shape[1]
    assert _font(20, ascii_only=True).getname()[0] == "Aileron"
