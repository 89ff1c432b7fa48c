"""Images of other bands than RGB: values without loss from the file to the network, and the same masks from ONNX."""

import json
import tracemalloc
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import tifffile
import timm
import torch
import yaml
from command_line import CommandLine
from PIL import Image, ImageOps
from safetensors.torch import save_file
from tiny_data import CLASSES, draw, tiny_recipe, write_recipe, write_tiny_data

import segkc_deploy
from segkc_deploy.data.images import read_image
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.manifest import read_manifest
from segkc_deploy.pixel_format import PixelFormat, as_picture
from segkc_deploy.preprocess import resize_image
from segkc_deploy.training.data.augment import strong_view, weak_view
from segkc_deploy.training.data.band_statistics import band_sums, measured_input
from segkc_deploy.training.evaluation.prediction import mask_predictor
from segkc_deploy.training.files.network_file import load_network, read_metadata
from segkc_deploy.training.files.starting_weights import build_network
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import InputSpec, NetworkSpec
from segkc_deploy.training.recipe import StrongAugmentation, ValidationConfig, WeakAugmentation
from segkc_deploy.training.train import estimate_run, train_run


def write_band_data(root: Path, bands: int, bits: int) -> Path:
    """The tiny data set with colors as 16-bit values, and bands that are noise or hold the classes' borders."""
    data = write_tiny_data(root)
    rng = np.random.default_rng(1)
    for path in sorted((root / "images").rglob("*.png")):
        rgb = cv2.imread(str(path))[..., ::-1].astype(np.uint16)
        extra = rng.integers(0, 2**bits, (*rgb.shape[:2], max(bands - 3, 0)))
        values = np.concatenate([rgb * (257 if bits == 16 else 1) // 3, extra], axis=2)[..., :bands]
        values = values.astype(np.uint16 if bits == 16 else np.uint8)
        tifffile.imwrite(
            path.with_suffix(".tif"), values.transpose(2, 0, 1), planarconfig="separate", photometric="minisblack"
        )
        path.unlink()
    content = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump(content | {"bands": bands, "bits": bits}))
    return data


def write_planar(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values.transpose(2, 0, 1), planarconfig="separate", photometric="minisblack")


# Reading


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_gray_png_is_turned_as_its_exif_data_say(tmp_path: Path, orientation: int) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", PixelFormat(1, 8))[..., 0], upright)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("planar", [True, False])
def test_stored_values_are_read_without_loss(
    tmp_path: Path, dtype: type[np.unsignedinteger], bands: int, planar: bool
) -> None:
    values = np.random.default_rng(bands).integers(0, np.iinfo(dtype).max + 1, (13, 9, bands)).astype(dtype)
    pixels = PixelFormat(bands, np.iinfo(dtype).bits)
    if planar and bands > 1:
        tifffile.imwrite(
            tmp_path / "a.tif", values.transpose(2, 0, 1), planarconfig="separate", photometric="minisblack"
        )
    else:
        planes = {} if bands == 1 else {"planarconfig": "contig"}
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **planes)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", pixels), values)


@pytest.mark.parametrize(("bands", "mode"), [(1, "L"), (4, "RGBA"), (1, "I;16")])
def test_png_bands_are_read_as_stored(tmp_path: Path, bands: int, mode: str) -> None:
    bits = 16 if mode == "I;16" else 8
    values = np.random.default_rng(3).integers(0, 2**bits, (6, 5, bands)).astype(np.uint16 if bits == 16 else np.uint8)
    Image.fromarray(values if bands > 1 else values[..., 0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", PixelFormat(bands, bits)), values)


def test_other_bands_and_bits_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"a\.tif: holds 5 bands of 8 bits, but the data spec says 4 bands of 16 bits"):
        read_image(tmp_path / "a.tif", PixelFormat(4, 16))
    with pytest.raises(DataError, match="`bands: 5` and `bits: 8`"):
        read_image(tmp_path / "a.tif")
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds 3 bands of uint8"):
        read_image(tmp_path / "a.png", PixelFormat(4, 8))


def test_each_band_is_resized_by_itself() -> None:
    image = np.random.default_rng(0).integers(0, 2**16, (30, 40, 6)).astype(np.uint16)
    for size in ((45, 61), (9, 11)):
        bands = [resize_image(np.ascontiguousarray(image[..., band : band + 1]), size) for band in range(6)]
        np.testing.assert_array_equal(resize_image(image, size), np.concatenate(bands, axis=2))
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        resize_image(rgb, (45, 61)), cv2.resize(rgb, (61, 45), interpolation=cv2.INTER_LINEAR_EXACT)
    )


# Training


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 4, 9])
def test_views_keep_bands_and_range(dtype: type[np.unsignedinteger], bands: int) -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(0, np.iinfo(dtype).max + 1, (40, 50, bands)).astype(dtype)
    mask = rng.integers(0, 3, (40, 50)).astype(np.uint8)
    weak, _ = weak_view(image, mask, (64, 64), 255, WeakAugmentation(scale=(1, 1), flip=0), np.random.default_rng(0))
    np.testing.assert_array_equal(weak[:40, :50], image)
    assert not weak[40:].any() and weak.dtype == dtype
    everything = StrongAugmentation(jitter_probability=1, grayscale_probability=1, blur_probability=1)
    strong = strong_view(weak, everything, np.random.default_rng(0))
    assert (strong.shape, strong.dtype) == (weak.shape, weak.dtype)
    assert (strong != weak).any()
    nothing = StrongAugmentation(jitter_probability=0, grayscale_probability=0, blur_probability=0)
    np.testing.assert_array_equal(strong_view(weak, nothing, np.random.default_rng(0)), weak)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_are_stretched_about_their_own_means_and_brightened_together(dtype: type[np.unsignedinteger]) -> None:
    largest = np.iinfo(dtype).max
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (40, 50, 4))
    image = ((np.array([0.2, 0.4, 0.6, 0.8]) + noise) * largest).astype(dtype)
    still = {"jitter_probability": 1, "brightness": 0, "contrast": 0, "hue": 0}
    still |= {"grayscale_probability": 0, "blur_probability": 0}
    spreads = []
    for seed in range(8):
        contrast = StrongAugmentation.model_validate(still | {"contrast": 0.9})
        view = strong_view(image, contrast, np.random.default_rng(seed)).astype(np.float64)
        np.testing.assert_allclose(view.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=0.5)
        spreads.append(view.std(axis=(0, 1)) / image.std(axis=(0, 1)))
        np.testing.assert_allclose(spreads[-1], spreads[-1][0], rtol=0.1)
        brightness = StrongAugmentation.model_validate(still | {"brightness": 0.9})
        view = strong_view(image, brightness, np.random.default_rng(seed))
        assert (view >= image).all() or (view <= image).all(), "what is too bright is as bright as can be"
    assert min(spread[0] for spread in spreads) < 0.7 and max(spread[0] for spread in spreads) > 1.3


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    sets = load_data_spec(write_band_data(tmp_path, 5, 16)).resolve()
    values = np.concatenate(
        [read_image(sample.image, sets.pixels).reshape(-1, 5) for sample in sets.labeled + sets.unlabeled]
    ).astype(np.float64)
    measured = measured_input(sets)
    assert measured is not None and (measured.bands, measured.bits) == (5, 16)
    np.testing.assert_allclose(measured.mean, values.mean(axis=0) / 65535, rtol=1e-9)
    np.testing.assert_allclose(measured.std, values.std(axis=0) / 65535, rtol=1e-6)
    assert measured_input(load_data_spec(write_tiny_data(tmp_path / "rgb")).resolve()) is None


def test_a_small_spread_beside_a_large_mean_is_measured(tmp_path: Path) -> None:
    """Where the mean square less the squared mean would lose half its digits in floating point."""
    data = write_band_data(tmp_path, 2, 16)
    values = np.full((400, 300, 2), 65000, np.uint16)
    values[::2] += 20
    for path in (tmp_path / "images").rglob("*.tif"):
        write_planar(path, values)
    measured = measured_input(load_data_spec(data).resolve())
    assert measured is not None
    np.testing.assert_allclose(measured.mean, 65010 / 65535, rtol=1e-15)
    np.testing.assert_allclose(measured.std, 10 / 65535, rtol=1e-15)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((701, 503, 5), np.uint16), ((1, 200_000, 2), np.uint16), ((200_000, 1, 1), np.uint8), ((70, 50, 16), np.uint8)],
)
def test_sums_of_bands_are_exact(shape: tuple[int, int, int], dtype: type[np.unsignedinteger]) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    for given in (image, image[::-1], np.asfortranarray(image)):
        totals, squares = band_sums(given)
        values = image.astype(np.int64)
        assert totals.tolist() == values.sum(axis=(0, 1)).tolist()
        assert squares.tolist() == (values**2).sum(axis=(0, 1)).tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_bands_of_a_large_image_are_summed_in_little_memory(order: Literal["C", "F"]) -> None:
    image = np.zeros((3000, 2000, 4), np.uint16, order=order)
    tracemalloc.start()
    band_sums(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes / 4


def test_the_first_convolution_is_timms_and_rgb_is_as_it_was() -> None:
    spec = NetworkSpec(backbone="resnet10t", decoder_channels=16)
    bands = InputSpec(bands=6, bits=8, mean=(0.5,) * 6, std=(0.25,) * 6)
    network = Segmenter(spec.model_copy(update={"input": bands}), 3)
    assert next(iter(network.backbone.parameters())).shape[1] == 6
    images = torch.rand(1, 6, 64, 64)
    seen: list[torch.Tensor] = []
    network.backbone.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    assert network.eval()(images).shape == (1, 3, 64, 64)
    torch.testing.assert_close(seen[0], (images - 0.5) / 0.25)
    assert "input" not in spec.model_dump(exclude_none=True)


# From the file to the mask


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((4, 16), id="4 bands of 16 bits"),
        pytest.param((7, 8), id="7 bands of 8 bits", marks=pytest.mark.slow),
    ],
)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data spec and a short run."""
    folder = tmp_path_factory.mktemp("bands")
    data = write_band_data(folder / "data", *request.param)
    recipe = write_recipe(folder / "tiny.yaml", tiny_recipe(schedule={"steps": 2}))
    train_run(data, str(recipe), folder / "run", device="cpu")
    return data, folder / "run"


def test_masks_from_onnx_are_those_of_pytorch(command: CommandLine, trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    sets = load_data_spec(data).resolve()
    finished = command("export", run, "--data", data, "--engine", "onnx", "--out", tmp_path)
    assert finished.code == 0, finished.err
    artifact = tmp_path / "junior-fp32.onnx"
    manifest = read_manifest(artifact)
    assert manifest.contract.pixels == sets.pixels
    assert (manifest.contract.color, manifest.contract.bands) == ("bands", sets.pixels.bands)
    assert manifest.contract.input.dtype == f"uint{sets.pixels.bits}"
    assert len(manifest.normalization.mean) == sets.pixels.bands
    assert manifest.verification is not None and manifest.verification.agreement >= 0.999

    network, metadata = load_network(run / "junior.safetensors")
    assert manifest.normalization.mean != manifest.normalization.std
    assert manifest.normalization.mean == tuple(network.backbone.mean)
    assert manifest.normalization.std == tuple(network.backbone.std)
    predict = mask_predictor(network, torch.device("cpu"), ValidationConfig(every=1, size=metadata.input_size))
    source = data.parent / "images" / "val"
    finished = command("predict", artifact, "--source", source, "--out", tmp_path / "out", "--device", "cpu")
    assert finished.code == 0, finished.err
    with segkc_deploy.load(artifact, "cpu") as predictor:
        for sample in sets.val:
            image = read_image(sample.image, sets.pixels)
            expected = predict(image)
            written = cv2.imread(str(tmp_path / "out" / "masks" / f"{sample.image.stem}.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(predictor.predict(image), written)
            np.testing.assert_array_equal(predictor.predict(sample.image), written)
            assert (written == expected).mean() > 0.999
            overlay = cv2.imread(str(tmp_path / "out" / "overlays" / f"{sample.image.stem}.jpg"))
            assert overlay.shape[1] >= image.shape[1]
        with pytest.raises(DataError, match=rf"pass {image.dtype} \(height, width, {image.shape[2]}\)"):
            predictor.predict(np.zeros((4, 5, 3), np.uint8))


def test_the_baselines_see_the_same_pixels(trained: tuple[Path, Path]) -> None:
    from segkc_deploy.export.baselines import BASELINES

    data, run = trained
    sets = load_data_spec(data).resolve()
    network, metadata = load_network(run / "junior.safetensors")
    predict = mask_predictor(network, torch.device("cpu"), ValidationConfig(every=1, size=metadata.input_size))
    image = read_image(sets.val[0].image, sets.pixels)
    for name in ("eager", "plain export"):
        assert (BASELINES[name](run, "cpu", 1).predict(image) == predict(image)).mean() > 0.9, name


def test_the_run_is_scored_resumed_and_ranked(command: CommandLine, trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    scores = tmp_path / "eval.json"
    assert command("eval", run, "--data", data, "--json", scores, "--device", "cpu").code == 0
    stored = read_metadata(run / "junior.safetensors").scores["junior_ema"]
    assert json.loads(scores.read_text())["miou"] == pytest.approx(stored)
    recipe = yaml.safe_load((run / "config.yaml").read_text())["recipe"]
    assert len(recipe["junior"]["input"]["mean"]) == load_data_spec(data).bands
    resumed = command("train", "--resume", "--out", run, "--recipe", run.parent / "tiny.yaml", "--device", "cpu")
    assert resumed.code == 0, resumed.err
    for arguments in (("label-next", "--count", 2), ("pseudo-label", "--confidence", 0.5)):
        finished = command(arguments[0], run, *arguments[1:], "--out", tmp_path / str(arguments[0]), "--device", "cpu")
        assert finished.code == 0, finished.err
    assert (
        load_data_spec(tmp_path / "pseudo-label" / "data.yaml").resolve().pixels
        == load_data_spec(data).resolve().pixels
    )
    assert command("convert", data, "--out", tmp_path / "converted").code == 0
    converted = load_data_spec(tmp_path / "converted" / "data.yaml").resolve()
    assert converted.pixels == load_data_spec(data).resolve().pixels


def test_other_data_is_refused(command: CommandLine, trained: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    _, run = trained
    assert "the data spec are RGB of 8 bits" in command.refused("eval", run, "--data", data, "--device", "cpu")
    assert "are RGB of 8 bits" in command.refused("export", run, "--data", data, "--out", tmp_path)


def test_half_precisions_of_16_bits_are_refused(command: CommandLine, trained: tuple[Path, Path]) -> None:
    data, run = trained
    if load_data_spec(data).bits == 16:
        assert "fp32 alone" in command.refused("export", run, "--data", data, "--precision", "fp16")


def test_check_reads_all_bands(command: CommandLine, trained: tuple[Path, Path]) -> None:
    finished = command("check", "--data", trained[0])
    assert finished.code == 0, finished.out


def test_pictures_of_bands_are_stretched() -> None:
    assert CLASSES and draw(np.random.default_rng(0))[0].dtype == np.uint8
    ramp = np.linspace(1000, 3000, 200).astype(np.uint16).reshape(10, 20, 1)
    picture = as_picture(ramp)
    assert (picture.shape, picture.dtype, picture.min(), picture.max()) == ((10, 20, 3), np.uint8, 0, 255)
    rgb = draw(np.random.default_rng(0))[0]
    assert as_picture(rgb) is rgb
    # Each band by itself: a dark one and a bright one are both seen.
    ranges = [(10, 30), (40_000, 60_000), (500, 900), (0, 65_535)]
    bands = np.stack([np.linspace(*ends, 200).reshape(10, 20) for ends in ranges], axis=2).astype(np.uint16)
    for count in (3, 4):
        shown = as_picture(bands[..., :count])
        assert shown.shape == (10, 20, 3)
        assert np.abs(shown.astype(int) - picture).max() <= 13  # 20 values take steps of 13
    assert np.array_equal(as_picture(bands[..., 1:3]), as_picture(bands[..., 1:2]))


def test_a_dry_run_takes_the_bands(tmp_path: Path) -> None:
    data = write_band_data(tmp_path, 6, 8)
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe(schedule={"steps": 2}))
    assert estimate_run(data, str(recipe), device="cpu")


def test_pretrained_weights_are_adapted_as_timm_does(tmp_path: Path) -> None:
    rgb = timm.create_model("resnet10t", pretrained=False)
    save_file(rgb.state_dict(), tmp_path / "weights.safetensors")
    bands = InputSpec(bands=5, bits=8, mean=(0.5,) * 5, std=(0.25,) * 5)
    spec = NetworkSpec(
        backbone="resnet10t", decoder_channels=16, pretrained=tmp_path / "weights.safetensors", input=bands
    )
    adapted = build_network(spec, 3).backbone.network.state_dict()
    first, weight = next(iter(rgb.state_dict().items()))
    expected = weight[:, [0, 1, 2, 0, 1]] * 3 / 5
    torch.testing.assert_close(adapted[first], expected)
    torch.testing.assert_close(adapted["layer1.0.conv1.weight"], rgb.state_dict()["layer1.0.conv1.weight"])
