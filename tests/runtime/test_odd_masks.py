"""Masks as annotation and GIS tools write them: ids, or one line that names the file and the way forward."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from data_helpers import blocks, write_image, write_mask, write_spec
from PIL import Image, PngImagePlugin

from segkc_deploy.data.check import CheckReport, check
from segkc_deploy.data.check_pictures import write_turned_pictures
from segkc_deploy.data.exif import orientation, upright
from segkc_deploy.data.headers import upright_size
from segkc_deploy.data.images import read_image
from segkc_deploy.data.mask_files import raw_mask
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.data.screening import screen
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.labels import Labels, default_palette

IDS = np.resize(np.array([0, 1, 2], np.uint8), (32, 48))
LABELS = Labels(names=("background", "road", "tree"), palette=default_palette(3))
COLORS = {"background": (0, 0, 0), "road": (128, 64, 128), "tree": (107, 142, 35)}
NAMES = "classes: [background, road, tree]\n"
WITH_COLORS = "classes: {background: [0, 0, 0], road: [128, 64, 128], tree: [107, 142, 35]}\n"
SETS = "labeled: {images: images/train, masks: masks/train}\nval: {images: images/val, masks: masks/val}\n"
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ntree:107,142,35::\n"


def _rgb(ids: np.ndarray = IDS) -> np.ndarray:
    return np.array(list(COLORS.values()), np.uint8)[ids]


def _palette_mask(path: Path, ids: np.ndarray, colors: list[tuple[int, ...]]) -> None:
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel())
    image.putpalette([channel for color in colors for channel in color])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _data(root: Path, spec: str = NAMES) -> Path:
    for index, name in enumerate(("train/a", "train/b", "val/c")):
        write_image(root / "images" / f"{name}.png", seed=index)
        write_mask(root / "masks" / f"{name}.png", IDS)
    return write_spec(root, spec + SETS)


def _check(root: Path) -> CheckReport:
    return check(load_data_spec(root / "data.yaml").resolve(allow_missing_masks=True), workers=2)


def _kinds(root: Path) -> list[tuple[str, str]]:
    return [(finding.level, finding.kind) for finding in _check(root).findings]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "float32", "float64"])
def test_whole_numbers_of_any_type_are_ids(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IDS.astype(dtype))
    values = raw_mask(tmp_path / "a.tif")
    assert values.dtype in (np.uint8, np.uint16)
    np.testing.assert_array_equal(values, IDS)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_the_rotation_of_a_tiff_mask_is_applied_whichever_library_reads_it(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IDS.astype(dtype), extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(raw_mask(tmp_path / "a.tif"), np.rot90(IDS, -1))


def test_negative_values_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IDS.astype(np.int16) - 1)
    with pytest.raises(DataError, match=r"holds -1, neither a class .* `label_mapping: \{-1: 255\}`"):
        read_mask(Sample("a", path, path), MaskCoding(LABELS))
    mask = read_mask(Sample("a", path, path), MaskCoding(LABELS, {-1: 255, 0: 1, 1: 2}))
    np.testing.assert_array_equal(mask, np.array([255, 1, 2], np.uint8)[IDS])
    (tmp_path / "masks/train").mkdir(parents=True)
    _data(tmp_path, NAMES + "label_mapping: {-1: 255}\n")
    tifffile.imwrite(tmp_path / "masks/train/a.tif", IDS.astype(np.int16) - 1)
    (tmp_path / "masks/train/a.png").unlink()
    assert _kinds(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 4), 0.5), "holds fractions such as 0.5; class ids are whole numbers"),
        (np.full((4, 4), np.nan), "holds NaN or infinite values"),
        (np.full((4, 4), 1e30), "which is no class id; save 8 or 16 bits"),
        (np.zeros((7, 4, 4), np.uint8), "7 bands, where one class id a pixel is expected"),
    ],
)
def test_values_that_are_no_ids(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    options: dict[str, Any] = {"photometric": "minisblack"} | ({"planarconfig": "separate"} if values.ndim == 3 else {})
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.raises(DataError) as caught:
        raw_mask(tmp_path / "a.tif")
    assert reason in str(caught.value)


def test_a_tiff_without_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IDS.astype(np.float64))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["ImageLength"].overwrite(0)
    for read in (raw_mask, read_image):
        with pytest.raises(DataError, match="its header names no pixels"):
            read(path)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_lossy_data_under_a_lossless_name_is_refused(tmp_path: Path, file_format: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(IDS).convert("RGB").save(buffer, file_format)
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=f"{file_format} data, whatever the file's name says"):
        raw_mask(tmp_path / "a.png")


def test_a_tiff_with_jpeg_inside_is_refused(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(DataError, match="a TIFF with lossy compression"):
        raw_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("spec", [WITH_COLORS, NAMES])
def test_rgb_masks_are_read_by_the_classes_or_the_labelmap(tmp_path: Path, spec: str) -> None:
    path = _data(tmp_path, spec)
    for mask in (tmp_path / "masks").rglob("*.png"):
        Image.fromarray(_rgb()).save(mask)
    if spec == NAMES:
        with pytest.raises(DataError, match="give each class its color in the data spec"):
            read_mask((sets := load_data_spec(path).resolve()).labeled[0], sets.coding)
        (tmp_path / "labelmap.txt").write_text(LABELMAP)
    assert _kinds(tmp_path) == []
    sets = load_data_spec(path).resolve()
    np.testing.assert_array_equal(read_mask(sets.labeled[0], sets.coding), IDS)
    assert sets.labels.palette == tuple(COLORS.values())


def test_colors_of_no_class_are_named_and_can_be_ignored(tmp_path: Path) -> None:
    path = _data(tmp_path, WITH_COLORS)
    rgb = _rgb()
    rgb[0, :5] = (224, 224, 192)
    Image.fromarray(rgb).save(tmp_path / "masks/train/a.png")
    sets = load_data_spec(path).resolve()
    with pytest.raises(DataError, match=r"holds colors of no class: \[224, 224, 192\] \(5 pixels\)"):
        read_mask(sets.labeled[0], sets.coding)
    write_spec(tmp_path, WITH_COLORS + "ignore_colors: [[224, 224, 192]]\n" + SETS)
    sets = load_data_spec(path).resolve()
    mask = read_mask(sets.labeled[0], sets.coding)
    assert (mask[0, :5] == 255).all()
    assert (mask == 255).sum() == 5


def test_palettes_that_differ_between_files(tmp_path: Path) -> None:
    """An editor that numbers colors by appearance: the same index, another class."""
    path = _data(tmp_path)
    colors = list(COLORS.values())
    _palette_mask(tmp_path / "masks/train/a.png", IDS, colors)
    _palette_mask(tmp_path / "masks/train/b.png", IDS, [colors[0], colors[2], colors[1]])
    (finding,) = _check(tmp_path).findings
    assert (finding.level, finding.kind) == ("error", "palettes-differ")
    assert finding.files == (
        f"{tmp_path}/masks/train/b.png: index 1 is [107, 142, 35], but [128, 64, 128] in other masks",
    )
    with pytest.raises(DataError, match=r"b\.png: index 1 is .*mask_values: colors"):
        screen(load_data_spec(path).resolve())

    _palette_mask(tmp_path / "masks/val/c.png", IDS, colors)
    write_spec(tmp_path, WITH_COLORS + "mask_values: colors\n" + SETS)
    assert _kinds(tmp_path) == []
    sets = load_data_spec(path).resolve()
    screen(sets)
    np.testing.assert_array_equal(read_mask(sets.labeled[1], sets.coding), np.array([0, 2, 1], np.uint8)[IDS])


def test_palettes_may_differ_in_colors_that_no_pixel_has(tmp_path: Path) -> None:
    path = _data(tmp_path)
    colors = list(COLORS.values())
    _palette_mask(tmp_path / "masks/train/a.png", IDS, [*colors, (9, 9, 9)])
    _palette_mask(tmp_path / "masks/train/b.png", IDS, [*colors, (8, 8, 8)])
    assert _kinds(tmp_path) == []
    screen(load_data_spec(path).resolve())


def test_indices_and_colors_that_name_different_classes(tmp_path: Path) -> None:
    _data(tmp_path, WITH_COLORS)
    colors = list(COLORS.values())
    for mask in (tmp_path / "masks").rglob("*.png"):
        _palette_mask(mask, IDS, [colors[0], colors[2], colors[1]])
    (finding,) = _check(tmp_path).findings
    assert (finding.level, finding.kind) == ("error", "palette-order")
    assert "index 1 means 'road' but has the color of 'tree'" in finding.files[0]


def test_gray_and_1_bit_masks_are_read_by_their_colors_too(tmp_path: Path) -> None:
    """Programs that make files smaller save an RGB picture without any color as gray, or with one bit."""
    path = _data(tmp_path, "classes: {road: [128, 64, 128], sky: [255, 255, 255], tree: [0, 0, 0]}\n")
    path.write_text(path.read_text() + "mask_values: colors\n")
    mask = tmp_path / "masks/train/a.png"
    expected = np.full(IDS.shape, 2, np.uint8)
    expected[:4] = 1
    for picture in (Image.fromarray((expected == 1).astype(np.uint8) * 255), Image.fromarray(expected == 1)):
        picture.save(mask)
        sets = load_data_spec(path).resolve()
        (sample,) = [sample for sample in sets.labeled if sample.id == "a"]
        np.testing.assert_array_equal(read_mask(sample, sets.coding), expected)
    Image.fromarray(IDS).save(mask)
    with pytest.raises(DataError, match="holds colors of no class"):
        read_mask(sample, sets.coding)
    Image.fromarray(IDS.astype(np.uint16)).save(mask)
    with pytest.raises(DataError, match="expects colors of 8 bits"):
        read_mask(sample, sets.coding)
    tif = mask.with_suffix(".tif")
    Image.fromarray(IDS.astype(np.uint16)).save(tif)
    with pytest.raises(DataError, match="expects colors of 8 bits"):
        read_mask(Sample("a", sample.image, tif), sets.coding)
    tifffile.imwrite(tif, _rgb().transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    with pytest.raises(DataError, match="a TIFF whose colors are not read"):
        read_mask(Sample("a", sample.image, tif), sets.coding)


def test_values_among_masks_of_colors_are_a_warning(tmp_path: Path) -> None:
    _data(tmp_path, WITH_COLORS)
    assert _kinds(tmp_path) == []
    for path in (tmp_path / "masks").rglob("*.png"):
        Image.fromarray(_rgb()).save(path)
    assert _kinds(tmp_path) == []
    mask = write_mask(tmp_path / "masks/train/b.png", [0])
    (finding,) = _check(tmp_path).findings
    assert (finding.kind, finding.files) == ("values-among-colors", (str(mask),))


def test_mask_values_colors_needs_colors(tmp_path: Path) -> None:
    path = _data(tmp_path, NAMES + "mask_values: colors\n")
    with pytest.raises(ConfigError, match="needs the classes' colors"):
        load_data_spec(path).resolve()
    write_spec(tmp_path, "classes: {a: [0, 0, 0], b: [0, 0, 0]}\nmask_values: colors\n" + SETS)
    with pytest.raises(ConfigError, match="'b' has the color of 'a'"):
        load_data_spec(path).resolve()


@pytest.mark.parametrize("line", ["road", "road:1,2::", "road:1,2,300::", "road:1,2,x::", ":1,2,3::"])
def test_a_damaged_labelmap_is_named(tmp_path: Path, line: str) -> None:
    path = _data(tmp_path)
    (tmp_path / "labelmap.txt").write_text(LABELMAP + line)
    with pytest.raises(DataError, match=r"labelmap\.txt: line 5: should be"):
        load_data_spec(path).resolve()


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_exif_rotation_without_one_in_the_mask_is_a_warning(
    tmp_path: Path, orientation: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _data(tmp_path)
    exif = Image.Exif()
    exif[274] = orientation
    image = tmp_path / "images/train/a.png"
    Image.fromarray(blocks(0)).save(image, exif=exif)
    report = _check(tmp_path)
    (finding,) = [finding for finding in report.findings if finding.level == "warning"]
    assert finding.kind == "turned"
    assert str(image) in finding.files[0]
    assert [one.kind for one in report.findings if one.level == "error"] == ["size-mismatch"] * (orientation == 6)

    sets = load_data_spec(path).resolve()
    screen(sets)
    assert str(image) in capsys.readouterr().err
    (picture,) = write_turned_pictures(report.turned, sets, tmp_path / "pictures")
    left, right = np.array_split(read_image(picture), 2, axis=1)
    assert left.shape == right.shape
    assert np.abs(left.astype(int) - right).mean() > 1
    # Beside the photographs the pictures replace none, and images of two sets may have one id.
    photographs = {file: file.read_bytes() for file in image.parent.iterdir()}
    written = write_turned_pictures([*report.turned, *report.turned], sets, image.parent)
    assert [picture.name for picture in written] == ["a.turned.jpg", "a-2.turned.jpg"]
    assert all(file.read_bytes() == content for file, content in photographs.items())
    for picture in written:
        picture.unlink()

    Image.fromarray(IDS).save(tmp_path / "masks/train/a.png", exif=exif)
    assert _kinds(tmp_path) == []


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_rotation_in_xmp_alone_turns_nothing(tmp_path: Path, name: str) -> None:
    """OpenCV, which decodes most images, does not know it; Pillow would turn by it what OpenCV leaves alone."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = tmp_path / name
    picture = Image.fromarray(blocks(0))
    if name == "a.png":
        info = PngImagePlugin.PngInfo()
        chunk = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
        info.add(b"iTXt", chunk, after_idat=True)  # where exiftool writes it
        picture.save(path, pnginfo=info)
        np.testing.assert_array_equal(upright(Image.open(path)), blocks(0))
    elif name == "a.tif":
        picture.save(path, tiffinfo={700: xmp})
    else:
        picture.save(path, xmp=xmp, **({"lossless": True} if name == "a.webp" else {}))
    with Image.open(path) as image:
        assert image.getexif().get(274) == 6  # what Pillow says
    assert orientation(path) == 1
    assert upright_size(path) == (32, 48)
    assert read_image(path).shape == (32, 48, 3)


def test_names_in_composed_and_decomposed_form_are_paired(tmp_path: Path) -> None:
    _data(tmp_path)
    (tmp_path / "images/train/a.png").rename(tmp_path / "images/train/gr\u00fcn.png")
    (tmp_path / "masks/train/a.png").rename(tmp_path / "masks/train/gru\u0308n.png")
    (tmp_path / "few.txt").write_text("gru\u0308n\n", encoding="utf-8")
    path = write_spec(tmp_path, NAMES + SETS.replace("masks: masks/train", "masks: masks/train, ids: few.txt"))
    (sample,) = load_data_spec(path).resolve().labeled
    assert sample.id == "gr\u00fcn"
    assert sample.mask is not None


def test_thumbnails_of_file_servers_are_left_out(tmp_path: Path) -> None:
    path = _data(tmp_path)
    write_image(tmp_path / "images/train/@eaDir/a.png/thumb.jpg", seed=50)
    write_image(tmp_path / "images/train/__MACOSX/a.png", seed=51)
    assert [sample.id for sample in load_data_spec(path).resolve().labeled] == ["a", "b"]


def test_masks_of_nothing_but_255(tmp_path: Path) -> None:
    _data(tmp_path)
    write_mask(tmp_path / "masks/train/a.png", [255])
    (finding,) = _check(tmp_path).findings
    assert (finding.level, finding.kind) == ("warning", "ignored-mask")
    assert finding.files == (f"{tmp_path}/masks/train/a.png",)
    write_mask(tmp_path / "masks/train/b.png", [0])
    assert ("error", "zero-and-255") in _kinds(tmp_path)
    write_mask(tmp_path / "masks/train/b.png", [255])
    assert ("error", "all-ignored") in _kinds(tmp_path)


def test_nearly_black_images_are_a_warning(tmp_path: Path) -> None:
    """12-bit values in a file of 16 bits."""
    _data(tmp_path)
    values = np.random.default_rng(0).integers(0, 4096, (32, 48), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "images/train/a.png")
    assert _kinds(tmp_path) == [("warning", "dark")]


def test_the_coding_of_the_sets_is_the_one_that_reads_them() -> None:
    sets = ImageSets(MaskCoding(LABELS, {7: 1}, {(1, 2, 3): 0}, True))
    assert sets.coding == MaskCoding(LABELS, {7: 1}, {(1, 2, 3): 0}, True)
