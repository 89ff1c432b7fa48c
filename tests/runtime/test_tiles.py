"""Large images in tiles: the evaluation protocol's masks, seams, memory, and GeoTIFF files with their georeference."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from command_line import CommandLine
from PIL import Image
from tiny_artifact import BIAS, LABELS, expected_mask, expected_scores, make_artifact

import segkc_deploy
from segkc_deploy import tiles
from segkc_deploy.blending import upsample
from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.predictor import Predictor
from segkc_deploy.training.evaluation.sliding_window import summed_probabilities

rasterio = pytest.importorskip("rasterio")
RNG = np.random.default_rng(0)
WINDOW = (24, 36)
SIZES = [(24, 36), (25, 36), (100, 130), (10, 20), (10, 90), (61, 36)]
STRIDES = [None, (24, 36), (7, 11)]

#: By a pixel's place in its window: added to the scores, it makes windows disagree, as those of a real network do.
BY_PLACE = np.random.default_rng(1).normal(scale=4, size=(*WINDOW, len(BIAS))).astype(np.float32)


def soft_image(height: int, width: int) -> np.ndarray:
    """An image whose scores are close to each other, so that sums of probabilities matter: dark ones are 200."""
    return cv2.GaussianBlur(RNG.integers(170, 230, (height, width, 3), dtype=np.uint8), (0, 0), 2)


def test_the_image_of_these_tests_has_every_class() -> None:
    image = soft_image(100, 130)
    assert np.bincount(expected_mask(image).ravel(), minlength=len(BIAS)).min() > 100
    best = np.sort(expected_scores(image), axis=2)
    assert np.median(best[..., -1] - best[..., -2]) < 8


def protocol_sums(image: np.ndarray, stride: tuple[int, int], by_place: np.ndarray | float = 0.0) -> np.ndarray:
    """The sums of probabilities, float32 (H, W, C), by the training's own sliding window.

    Of a network that computes as the tiny artifact does, with `by_place` added to its scores.
    """

    def network(window: torch.Tensor) -> torch.Tensor:
        pixels = (window[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
        scores = expected_scores(pixels).astype(np.float32) + by_place
        return torch.from_numpy(scores).permute(2, 0, 1)[None]

    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    rows = [part[0] for part in summed_probabilities(network, tensor, WINDOW, stride)]
    return torch.cat(rows, dim=1).permute(1, 2, 0).numpy()


def protocol_mask(image: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """The mask of `protocol_sums`."""
    return protocol_sums(image, stride).argmax(axis=2).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", STRIDES)
def test_blended_tiles_equal_the_evaluation_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], stride: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(tiles, "BLOCK", 16)
    monkeypatch.setattr(tiles, "_PANEL_BYTES", 1)  # several panels
    image = soft_image(*size)
    with segkc_deploy.load(make_artifact(tmp_path, size=WINDOW, outputs=("logits",)), "cpu") as predictor:
        mask = tiles.predict_tiled(predictor, image, stride, batch_size=3)
    assert np.array_equal(mask, protocol_mask(image, stride or (16, 24)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", STRIDES)
def test_windows_that_disagree_are_summed_as_the_evaluation_protocol_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], stride: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(tiles, "BLOCK", 16)
    monkeypatch.setattr(tiles, "_PANEL_BYTES", 1)  # several panels
    image = soft_image(*size)
    with segkc_deploy.load(make_artifact(tmp_path, size=WINDOW, outputs=("logits",)), "cpu") as predictor:
        infer = predictor.infer
        monkeypatch.setattr(predictor, "infer", lambda batch: {"logits": infer(batch)["logits"] + BY_PLACE})
        mask, confidence = tiles.predict_tiled_with_confidence(predictor, image, stride, batch_size=3)
    sums = protocol_sums(image, stride or (16, 24), BY_PLACE)
    best = np.sort(sums, axis=2)
    clear = best[..., -1] - best[..., -2] > 1e-4  # closer ones are decided by rounding
    assert clear.mean() > 0.95
    assert np.array_equal(mask[clear], sums.argmax(axis=2)[clear])
    np.testing.assert_allclose(confidence, sums.max(axis=2) / sums.sum(axis=2), atol=1e-5)


def test_a_small_image_stands_in_the_corner_of_a_black_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = RNG.integers(1, 256, (10, 20, 3), dtype=np.uint8)
    shown: list[np.ndarray] = []
    with segkc_deploy.load(make_artifact(tmp_path, size=WINDOW), "cpu") as predictor:
        infer = predictor.infer
        monkeypatch.setattr(predictor, "infer", lambda batch: shown.append(batch) or infer(batch))
        tiles.predict_tiled(predictor, image)
    ((window,),) = shown
    assert np.array_equal(window[:10, :20], image)
    assert window.sum() == image.sum()


@pytest.mark.parametrize("several_panels", [False, True])
@pytest.mark.parametrize("size", [(24, 36), (100, 130), (10, 20), (61, 36)])
def test_without_logits_every_pixel_comes_from_the_window_with_the_nearest_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], several_panels: bool
) -> None:
    if several_panels:
        monkeypatch.setattr(tiles, "BLOCK", 16)
        monkeypatch.setattr(tiles, "_PANEL_BYTES", 1)
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    with segkc_deploy.load(make_artifact(tmp_path, size=WINDOW), "cpu") as predictor:
        assert np.array_equal(tiles.predict_tiled(predictor, image), expected_mask(image))
        # The same class everywhere in a window tells the windows apart.
        windows = iter(range(1000))
        shown: list[tuple[int, int]] = []

        def read(top: int, left: int, height: int, width: int) -> np.ndarray:
            shown.append((top, left))
            return image[top : top + height, left : left + width]

        def infer(batch: np.ndarray) -> dict[str, np.ndarray]:
            number = next(windows)
            return {
                "masks": np.full((1, *WINDOW), number, np.uint8),
                "confidence": np.full((1, *WINDOW), number / 256, np.float32),
            }

        predictor.infer = infer  # type: ignore[method-assign]
        mask, confidence = np.full(size, 255, np.uint8), np.full(size, 255, np.float32)

        def into(whole: np.ndarray) -> tiles.Write:
            def write(top: int, left: int, part: np.ndarray) -> None:
                whole[top : top + len(part), left : left + part.shape[1]] = part

            return write

        tiling = tiles.Tiling(size, WINDOW, tiles.default_stride(WINDOW))
        done = list(tiles.predict_windows(predictor, tiling, read, into(mask), write_confidence=into(confidence)))
        assert done[-1] == 1
    assert np.array_equal(confidence, mask / np.float32(256))
    middles = np.array([(top + 11.5, left + 17.5) for top, left in shown])
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.abs(np.stack([rows, columns], -1)[:, :, None] - middles)
    nearest = distance == distance.min(axis=2, keepdims=True)
    assert np.take_along_axis(nearest.all(axis=3), mask[..., None].astype(int), axis=2).all()


@pytest.mark.parametrize("align", [True, False])
def test_upsampling_is_that_of_pytorch(align: bool) -> None:
    logits = RNG.normal(size=(5, 7, 3)).astype(np.float32)
    tensor = torch.from_numpy(logits).permute(2, 0, 1)[None]
    reference = torch.nn.functional.interpolate(tensor, (19, 23), mode="bilinear", align_corners=align)
    np.testing.assert_allclose(upsample(logits, (19, 23), align), reference[0].permute(1, 2, 0).numpy(), atol=1e-5)


@pytest.mark.parametrize("align", [True, False])
def test_logits_of_a_window_are_upsampled_as_the_contract_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, align: bool
) -> None:
    low = np.random.default_rng(2).normal(size=(6, 9, len(BIAS))).astype(np.float32)
    artifact = make_artifact(tmp_path, size=WINDOW, outputs=("logits",), align_corners=align)
    with segkc_deploy.load(artifact, "cpu") as predictor:
        monkeypatch.setattr(predictor, "infer", lambda batch: {"logits": low[None]})
        mask, confidence = tiles.predict_tiled_with_confidence(predictor, soft_image(*WINDOW))
    full = torch.nn.functional.interpolate(
        torch.from_numpy(low).permute(2, 0, 1)[None], WINDOW, mode="bilinear", align_corners=align
    )[0]
    np.testing.assert_allclose(confidence, full.softmax(dim=0).amax(dim=0).numpy(), atol=1e-5)
    assert (mask == full.argmax(dim=0).numpy()).mean() > 0.99


def test_a_stride_that_leaves_gaps_is_refused(tmp_path: Path) -> None:
    with (
        segkc_deploy.load(make_artifact(tmp_path, size=WINDOW), "cpu") as predictor,
        pytest.raises(ConfigError, match="a stride of 30x25 pixels is not possible with windows of 36x24"),
    ):
        tiles.predict_tiled(predictor, soft_image(50, 50), (25, 30))


def write_geotiff(path: Path, image: np.ndarray, **profile: object) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=image.shape[0],
        width=image.shape[1],
        count=image.shape[2],
        dtype=image.dtype,
        crs="EPSG:25832",
        transform=rasterio.Affine(0.2, 0, 500_000, 0, -0.2, 5_600_000),
        **profile,
    ) as target:
        target.write(np.moveaxis(image, 2, 0))


def test_the_command_writes_geotiff_with_the_georeference_of_the_source(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=WINDOW, outputs=("logits",))
    image = soft_image(530, 60)
    (tmp_path / "in").mkdir()
    write_geotiff(tmp_path / "in/eight.tif", image)
    write_geotiff(tmp_path / "in/sixteen.tif", image.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "in/photo.png"), image[..., ::-1])
    out = tmp_path / "out"
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", out, "--tile", "--no-overlay")
    assert finished.code == 0, finished.err
    expected = protocol_mask(image, (16, 24))
    assert np.array_equal(cv2.imread(str(out / "masks/photo.png"), cv2.IMREAD_UNCHANGED), expected)
    for name in ("eight", "sixteen"):
        with rasterio.open(tmp_path / f"in/{name}.tif") as source, rasterio.open(out / f"masks/{name}.tif") as mask:
            assert (mask.crs, mask.transform, mask.bounds) == (source.crs, source.transform, source.bounds)
            assert mask.colormap(1)[1] == (*LABELS.palette[1], 255)
            assert mask.tags(1)["CLASS_2"] == "green"
            assert np.array_equal(mask.read(1), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("options", "windows"), [((), 4), (("--tile-stride", 24), 3), (("--tile-stride", 12), 5)])
def test_the_command_steps_by_the_stride_asked_for(
    command: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    options: tuple[object, ...],
    windows: int,
) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=WINDOW)
    source = tmp_path / f"image{suffix}"
    image = soft_image(72, 36)
    if suffix == ".tif":
        write_geotiff(source, image)
    else:
        cv2.imwrite(str(source), image)
    shown: list[int] = []
    infer = Predictor.infer

    def watched(predictor: Predictor, batch: np.ndarray) -> dict[str, np.ndarray]:
        shown.append(len(batch))
        return infer(predictor, batch)

    monkeypatch.setattr(Predictor, "infer", watched)
    finished = command("predict", artifact, "--source", source, "--out", tmp_path / "out", "--tile", *options)
    assert finished.code == 0, finished.err
    assert sum(shown) == windows


def test_a_tiffs_overlay_is_shrunk_and_further_files_are_refused(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segkc_deploy.tiled_files._OVERLAY_SIDE", 265)
    artifact = make_artifact(tmp_path / "artifact", size=WINDOW, outputs=("logits",))
    write_geotiff(tmp_path / "image.tif", soft_image(530, 400))
    arguments = ("predict", artifact, "--source", tmp_path / "image.tif", "--out", tmp_path / "out", "--tile")
    assert "--also" in command.refused(*arguments, "--also", "polygons")
    assert command(*arguments, "--overwrite").code == 0
    height, width = cv2.imread(str(tmp_path / "out/overlays/image.jpg")).shape[:2]
    assert height > 265  # the legend is below
    assert 200 <= width < 400


@pytest.mark.parametrize(("longest_side", "size"), [(100, (100, 75)), (500, (400, 300))])
def test_a_shrunk_tiff_and_its_mask_show_the_same_pixels(
    tmp_path: Path, longest_side: int, size: tuple[int, int]
) -> None:
    from segkc_deploy.geotiff import reduced_pair

    rows, columns = np.mgrid[:400, :300]
    write_geotiff(tmp_path / "image.tif", np.dstack([rows // 4, columns // 3, columns % 7]).astype(np.uint8))
    write_geotiff(tmp_path / "mask.tif", ((rows // 4 + columns // 3) % 250).astype(np.uint8)[..., None])
    image, mask = reduced_pair(tmp_path / "image.tif", tmp_path / "mask.tif", longest_side)
    assert image.shape == (*size, 3)
    assert np.array_equal(mask, (image[..., 0].astype(int) + image[..., 1]) % 250)
    assert np.abs(image[..., 0] - np.linspace(0, 99, size[0])[:, None]).max() < 2


def test_a_geotiff_of_which_a_block_was_never_stored_is_not_whole(tmp_path: Path) -> None:
    """As on a full disk: it would be read as zeros, which are a class."""
    from segkc_deploy.geotiff import _require_whole

    profile = {"driver": "GTiff", "height": 500, "width": 1100, "count": 1, "dtype": "uint8", "sparse_ok": True}
    profile |= {"tiled": True, "blockxsize": tiles.BLOCK, "blockysize": tiles.BLOCK}
    profile |= {"transform": rasterio.Affine(1, 0, 9, 0, -1, 9)}
    for columns, whole in ((1100, True), (1024, False)):
        with rasterio.open(tmp_path / "mask.tif", "w", **profile) as raster:
            window = rasterio.windows.Window(0, 0, columns, 500)
            raster.write(np.ones((500, columns), np.uint8), 1, window=window)
        if whole:
            _require_whole(rasterio, tmp_path / "mask.tif")
            continue
        with pytest.raises(rasterio.errors.RasterioIOError, match="a block is missing"):
            _require_whole(rasterio, tmp_path / "mask.tif")


def mean_probability(image: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """The largest mean, over the windows that show a pixel, of the softmax of the scores."""
    height, width = image.shape[:2]
    sums, counts = np.zeros((height, width, len(BIAS))), np.zeros((height, width, 1))
    scores = expected_scores(image).astype(np.float64)
    scores -= scores.max(axis=2, keepdims=True)
    probability = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    for top in tiles.window_starts(height, WINDOW[0], stride[0]):
        for left in tiles.window_starts(width, WINDOW[1], stride[1]):
            place = np.s_[top : top + WINDOW[0], left : left + WINDOW[1]]
            sums[place] += probability[place]
            counts[place] += 1
    confidence: np.ndarray = (sums / counts).max(axis=2)
    return confidence


@pytest.mark.parametrize("outputs", [("logits",), ("masks", "confidence")])
def test_the_confidence_of_tiles_is_a_geotiff_too(
    command: CommandLine, tmp_path: Path, outputs: tuple[str, ...]
) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=WINDOW, outputs=outputs)
    image = soft_image(530, 60)
    image[:100, :20] = 0
    (tmp_path / "in").mkdir()
    write_geotiff(tmp_path / "in/a.tif", image, nodata=0)
    cv2.imwrite(str(tmp_path / "in/b.png"), image[..., ::-1])
    arguments = ("--source", tmp_path / "in", "--out", tmp_path / "out", "--tile", "--also", "confidence")
    finished = command("predict", artifact, *arguments)
    assert finished.code == 0, finished.err
    # A pixel's own scores are the same in every window.
    expected = 255 * mean_probability(image, (16, 24))
    photo = cv2.imread(str(tmp_path / "out/confidence/b.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(photo - expected).max() < 0.51
    with (
        rasterio.open(tmp_path / "in/a.tif") as source,
        rasterio.open(tmp_path / "out/confidence/a.tif") as confidence,
    ):
        assert (confidence.crs, confidence.transform, confidence.nodata) == (source.crs, source.transform, 0)
        assert confidence.scales == (1 / 255,)
        values = confidence.read(1)
    empty = np.all(image == 0, axis=2)
    assert np.all(values[empty] == 0)
    assert np.array_equal(values[~empty], photo[~empty])
    assert (tmp_path / "out/masks/a.tif").is_file()
    names = [json.loads(line) for line in (tmp_path / "out/predicted.jsonl").read_text().splitlines()]
    assert {"confidence/a.tif", "confidence/b.png"} <= set(names)


def test_a_confidence_that_an_artifact_lacks_is_refused(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=WINDOW)
    cv2.imwrite(str(tmp_path / "a.png"), soft_image(40, 40))
    arguments = ("predict", artifact, "--source", tmp_path / "a.png", "--out", tmp_path / "out", "--also", "confidence")
    assert "export it with --outputs masks,confidence" in command.refused(*arguments)
    assert "--outputs logits, or masks,confidence" in command.refused(*arguments, "--tile", "--overwrite")


@pytest.mark.parametrize("told_by", ["value", "alpha", "mask"])
def test_where_there_is_no_data_the_mask_is_ignored(tmp_path: Path, told_by: str) -> None:
    from segkc_deploy.geotiff import predict_geotiff

    image = soft_image(40, 50)
    image[:, :20] = 0
    there = np.where(np.arange(50) < 20, 0, 255) * np.ones((40, 1))
    if told_by == "alpha":
        with_alpha = np.dstack([image, there.astype(np.uint8)])
        write_geotiff(tmp_path / "image.tif", with_alpha, photometric="rgb", alpha="yes")
    else:
        write_geotiff(tmp_path / "image.tif", image, **({"nodata": 0} if told_by == "value" else {}))
    if told_by == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "image.tif", "r+") as raster:
            raster.write_mask(there.astype(np.uint8))
    labels = LABELS.model_copy(update={"ignore_index": 250})
    with segkc_deploy.load(make_artifact(tmp_path, size=WINDOW, labels=labels), "cpu") as predictor:
        list(predict_geotiff(predictor, tmp_path / "image.tif", tmp_path / "mask.tif"))
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.nodata == 250
        ids = mask.read(1)
    assert np.all(ids[:, :20] == 250)
    assert np.array_equal(ids[:, 20:], expected_mask(image)[:, 20:])


def test_ground_control_points_are_those_of_the_source(tmp_path: Path) -> None:
    from segkc_deploy.geotiff import predict_geotiff

    points = [
        rasterio.control.GroundControlPoint(row, column, x=9 + column / 1e4, y=48 - row / 1e4)
        for row, column in ((0, 0), (0, 50), (40, 0), (40, 50))
    ]
    profile = {"driver": "GTiff", "height": 40, "width": 50, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "image.tif", "w", **profile, gcps=points, crs="EPSG:4326") as raster:
        raster.write(np.moveaxis(soft_image(40, 50), 2, 0))
    with segkc_deploy.load(make_artifact(tmp_path, size=WINDOW), "cpu") as predictor:
        list(predict_geotiff(predictor, tmp_path / "image.tif", tmp_path / "mask.tif"))
    with rasterio.open(tmp_path / "mask.tif") as mask:
        found, crs = mask.gcps
    assert crs == rasterio.CRS.from_epsg(4326)
    assert [(one.row, one.col, one.x, one.y) for one in found] == [(one.row, one.col, one.x, one.y) for one in points]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("photometric", "bands", "bits", "orientation", "told"),
    [
        ("rgb", 3, 8, 6, "its orientation tag is 6, which --tile does not follow; save it upright"),
        ("rgb", 3, 8, 1, None),
        ("rgb", 5, 8, 1, None),
        ("separated", 4, 16, 1, "in a color space that --tile does not turn into RGB; save it as RGB"),
        ("ycbcr", 3, 16, 1, "in a color space that --tile does not turn into RGB"),
        ("cielab", 3, 8, 1, "in a color space that --tile does not turn into RGB"),
        ("icclab", 3, 8, 1, "in a color space that --tile does not turn into RGB"),
        ("minisblack", 5, 8, 1, "5 bands, not marked as red, green and blue"),
    ],
)
def test_tiffs_whose_pixels_would_be_misread_are_refused(
    tmp_path: Path, photometric: str, bands: int, bits: int, orientation: int, told: str | None, big: bool
) -> None:
    from segkc_deploy.geotiff import _Bands

    values = RNG.integers(0, 256, (40, 50, bands)).astype(f"uint{bits}")
    path = tmp_path / "image.tif"
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, values, photometric=photometric, planarconfig="contig", bigtiff=big, extratags=tags)
    with rasterio.open(path) as image:
        if told is None:
            assert np.array_equal(_Bands(image, path).read(0, 0, 40, 50), values[..., :3])
        else:
            with pytest.raises(DataError, match=rf"image\.tif: {re.escape(told)}"):
                _Bands(image, path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("colors", ["blue green red", "blue green red undefined", "undefined red green blue"])
def test_bands_that_are_marked_as_colors_are_read_as_these(tmp_path: Path, colors: str, interleave: str) -> None:
    """Satellites often store blue first."""
    from rasterio.enums import ColorInterp

    from segkc_deploy.geotiff import _Bands

    path, names = tmp_path / "image.tif", colors.split()
    values = RNG.integers(0, 256, (40, 50, len(names)), dtype=np.uint8)
    options = {"count": len(names), "height": 40, "width": 50, "dtype": "uint8", "interleave": interleave}
    with rasterio.open(path, "w", driver="GTiff", photometric="minisblack", **options) as image:
        image.write(np.moveaxis(values, 2, 0))
        image.colorinterp = [ColorInterp[name] for name in names]
    expected = values[..., [names.index(color) for color in ("red", "green", "blue")]]
    with rasterio.open(path) as image:
        assert np.array_equal(_Bands(image, path).read(0, 0, 40, 50), expected)
        assert np.array_equal(_Bands(image, path).read_reduced(40, 50), expected)
    assert np.array_equal(read_image(path), expected)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("space", ["CMYK", "YCbCr"])
def test_tiffs_of_other_color_spaces_are_read_as_without_tiles(tmp_path: Path, space: str) -> None:
    from segkc_deploy.geotiff import _Bands

    path = tmp_path / "image.tif"
    Image.fromarray(soft_image(40, 50)).convert(space).save(path, compression="tiff_lzw")
    with rasterio.open(path) as image:
        assert np.array_equal(_Bands(image, path).read(0, 0, 40, 50), read_image(path))


@pytest.mark.parametrize("fault", ["cut", "float", "text"])
def test_a_tiff_that_cannot_be_read_leaves_no_mask(tmp_path: Path, fault: str) -> None:
    from segkc_deploy.geotiff import predict_geotiff

    path = tmp_path / "image.tif"
    image = RNG.integers(0, 256, (600, 600, 3), dtype=np.uint8)
    write_geotiff(path, image.astype(np.float32) if fault == "float" else image)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif fault == "text":
        path.write_text("no image")
    with (
        segkc_deploy.load(make_artifact(tmp_path, size=WINDOW), "cpu") as predictor,
        pytest.raises(DataError, match=r"image\.tif"),
    ):
        list(predict_geotiff(predictor, path, tmp_path / "masks/image.tif"))
    assert not [*tmp_path.glob("masks/*")]


def tiff_of(kind: str, path: Path) -> None:
    """Write a TIFF file of few bits, or in which white is 0, or with a palette."""
    deep = RNG.integers(0, 65536, (3, 40, 50), dtype=np.uint16)
    white_is_zero = {"photometric": "miniswhite"} if kind.startswith("white") else {}
    bits = int(kind.partition("-")[2])
    values = deep[: 3 if kind.startswith("rgb") else 1] >> (16 - bits)
    if bits <= 8:
        values = values.astype(np.uint8)
    options = {"nbits": bits, **white_is_zero, **({"photometric": "rgb"} if len(values) == 3 else {})}
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=40, width=50, dtype=values.dtype, **options
    ) as target:
        target.write(values)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "kind",
    [
        *(f"gray-{bits}" for bits in (1, 2, 4, 8, 10, 12, 15, 16)),
        *(f"white-{bits}" for bits in (1, 2, 4, 8, 12, 16)),
        *(f"rgb-{bits}" for bits in (8, 12, 16)),
    ],
)
def test_parts_of_a_tiff_have_the_values_of_the_image_read_as_a_whole(tmp_path: Path, kind: str) -> None:
    from segkc_deploy.geotiff import _Bands

    path = tmp_path / "image.tif"
    tiff_of(kind, path)
    with rasterio.open(path) as image:
        bands = _Bands(image, path)
        part, whole = bands.read(5, 7, 30, 40), bands.read_reduced(40, 50)
    expected = read_image(path)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(whole, expected)
    assert np.array_equal(part, expected[5:35, 7:47])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_white_is_zero_without_gdals_palette_and_a_palette_of_16_bits(tmp_path: Path) -> None:
    from segkc_deploy.geotiff import _Bands

    deep = RNG.integers(0, 65536, (40, 50), dtype=np.uint16)
    for name, values in (("w8", (deep >> 8).astype(np.uint8)), ("w16", deep)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, values, photometric="miniswhite")
        with rasterio.open(path) as image:
            assert np.array_equal(_Bands(image, path).read(0, 0, 40, 50), read_image(path))
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, deep, photometric="palette", colormap=np.zeros((3, 65536), np.uint16))
    with rasterio.open(path) as image, pytest.raises(DataError, match=r"palette\.tif: .* 16 bits; save it as RGB"):
        _Bands(image, path)


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("insufficient memory")])
def test_an_image_for_which_the_memory_is_too_small_is_left_out(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=WINDOW)
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), soft_image(40, 50))

    def read(path: Path) -> np.ndarray:
        if path.stem == "b":
            raise error
        return read_image(path)

    monkeypatch.setattr("segkc_deploy.tiled_files.read_image", read)
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--tile")
    assert finished.code == 2
    assert f"left out: {tmp_path / 'in/b.png'}: too little memory to predict it; save it as a TIFF" in finished.err
    assert "Traceback" not in finished.err
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["a.png", "c.png"]


MEASURE = """
import sys, resource
import segkc_deploy
from pathlib import Path
from segkc_deploy.geotiff import predict_geotiff

artifact, source, target = map(Path, sys.argv[1:])
with segkc_deploy.load(artifact, "cpu", threads=1) as predictor:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in predict_geotiff(predictor, source, target):
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    size = 9000  # 232 MiB as RGB
    with rasterio.open(
        tmp_path / "image.tif", "w", driver="GTiff", height=size, width=size, count=3, dtype="uint8", tiled=True,
        compress="deflate", sparse_ok=True, crs="EPSG:25832",
        transform=rasterio.Affine(1, 0, 9, 0, -1, 9),
    ):  # fmt: skip
        pass  # no block is stored: all are black
    artifact = make_artifact(tmp_path, size=(1500, 1500))
    arguments = [artifact, tmp_path / "image.tif", tmp_path / "mask.tif"]
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    # GDAL's cache takes some of it, the network's tensors the rest.
    assert int(measured.stdout) < 700
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.shape == (size, size)


def test_an_image_that_is_shrunk_a_lot_is_named_once(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")  # 8 x 12
    (tmp_path / "in").mkdir()
    for name, width in (("a", 40), ("b", 12), ("c", 80)):
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), np.zeros((8, width, 3), np.uint8))
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--no-overlay", "--out")
    said = command(*arguments, tmp_path / "out").err
    assert said.count("--tile") == 1
    assert "a.png: its 40x8 pixels are shrunk to the network's 12x8" in said
    assert "c.png" in command(*arguments, tmp_path / "out-5", "--shrink-notice", 5).err
    assert command(*arguments, tmp_path / "out-9", "--shrink-notice", 9).err == ""
