"""Masks: ids out of every lossless single-channel file, and one line with the fix for everything else."""

import re
from pathlib import Path

import numpy as np
import pytest
from data_helpers import blocks, write_image, write_mask
from PIL import Image

from segkc_deploy.data.masks import apply_label_mapping, read_mask, read_sample
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.labels import Labels, default_palette

LABELS = Labels(names=("a", "b", "c"), palette=default_palette(3))
STRIPES = np.resize(np.array([0, 1, 2, 255], np.uint8), (32, 48))


def _read(path: Path, mapping: dict[int, int] | None = None, labels: Labels = LABELS) -> np.ndarray:
    return read_mask(Sample("a", path, path), MaskCoding(labels, mapping or {}))


def _message(path: Path, mapping: dict[int, int] | None = None, labels: Labels = LABELS) -> str:
    with pytest.raises(DataError) as caught:
        _read(path, mapping, labels)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.bmp"])
def test_single_channel_files_hold_ids(tmp_path: Path, name: str) -> None:
    path = write_mask(tmp_path / name, STRIPES)
    mask = _read(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, STRIPES)


def test_a_palette_file_is_read_as_indices(tmp_path: Path) -> None:
    image = Image.fromarray(STRIPES).convert("P")
    image.putdata(STRIPES.ravel())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(_read(tmp_path / "a.png"), STRIPES)


def test_one_bit_files_hold_0_and_1(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "a.png", STRIPES == 1)
    np.testing.assert_array_equal(_read(path), (STRIPES == 1).astype(np.uint8))


def test_16_bit_files_hold_ids_too(tmp_path: Path) -> None:
    values = STRIPES.astype(np.uint16)
    values[values == 2] = 1000
    path = write_mask(tmp_path / "a.png", values)
    mask = _read(path, {1000: 2})
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, STRIPES)
    assert _message(path).startswith("holds 1000, neither a class (0-2) nor ignore_index 255;")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_mapping_replaces_all_at_once_and_keeps_the_rest(dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, 256, (13, 17)).astype(dtype)
    mapping = {0: 1, 1: 0, 7: 255, 60000: 3}
    mapped = apply_label_mapping(values, mapping)
    assert mapped.dtype == dtype
    assert mapped.tolist() == [[mapping.get(value, value) for value in row] for row in values.tolist()]
    np.testing.assert_array_equal(apply_label_mapping(values, {}), values)


def test_values_outside_the_classes_are_named_with_the_fix(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "a.png", [0, 3, 200])
    assert _message(path) == (
        "holds 3, 200, neither a class (0-2) nor ignore_index 255; name the missing classes,"
        " or map the values in the data spec: `label_mapping: {3: 255}`"
    )
    assert _message(path, {3: 0}).startswith("holds 200, neither")
    np.testing.assert_array_equal(np.unique(_read(path, {3: 0, 200: 255})), [0, 255])


def test_many_unknown_ids_are_counted(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "a.png", list(range(30)))
    assert "holds 3, 4, 5, 6, 7, 8, 9, 10 and 19 more, neither" in _message(path)


def test_a_0_and_255_mask_gets_its_own_hint(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "a.png", [0, 255])
    labels = Labels(names=("a", "b"), palette=default_palette(2), ignore_index=254)
    assert "add `label_mapping: {255: 1}`" in _message(path, labels=labels)
    np.testing.assert_array_equal(np.unique(_read(path, {255: 1}, labels)), [0, 1])


def test_colors_instead_of_ids_are_refused_with_the_fix(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    assert "a RGB image, where one class id a pixel is expected; give each class its color" in _message(path)
    Image.fromarray(np.repeat(STRIPES[..., None], 3, axis=2)).save(path)
    assert "whose color channels are equal" in _message(path)


def test_files_that_are_no_mask_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert _message(path) == "no such mask"
    path.write_bytes(b"text")
    assert _message(path).startswith("not a readable mask: not an image")
    write_mask(path, blocks(0, 256, 256)[..., 0] % 3)
    path.write_bytes(path.read_bytes()[:150])
    assert _message(path).startswith("not a readable mask: ")


def test_read_sample_wants_equal_sizes(tmp_path: Path) -> None:
    sets = ImageSets(MaskCoding(LABELS, {200: 255}))
    image = write_image(tmp_path / "a.jpg")
    sample = Sample("a", image, write_mask(tmp_path / "a.png", [0, 200]))
    pixels, mask = read_sample(sample, sets)
    assert mask is not None
    assert pixels.shape == (32, 48, 3)
    assert np.unique(mask).tolist() == [0, 255]
    assert read_sample(Sample("a", image), sets)[1] is None

    write_mask(tmp_path / "a.png", [0], height=16)
    expected = f"{sample.mask}: the mask is 48x16 pixels, but its image {image} is 48x32; make the mask again"
    with pytest.raises(DataError, match=re.escape(expected)):
        read_sample(sample, sets)
    write_mask(tmp_path / "a.png", [0], height=48, width=32)
    with pytest.raises(DataError, match="lies on its side"):
        read_sample(sample, sets)
