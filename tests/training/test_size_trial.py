"""Sizes that a network does not take are refused before anything is trained, and the setting that is named trains."""

from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from command_line import CommandLine
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.models import size_refusal
from segkc_deploy.training.recipe import Recipe, ValidationConfig
from segkc_deploy.training.size_trial import require_sizes
from segkc_deploy.training.train import train_run

#: Its attention takes windows of 8 by 8 cells at every stage down to 1/32, so sides have to be multiples of 256.
WINDOWED = {"backbone": "maxvit_rmlp_pico_rw_256", "decoder_channels": 8, "pretrained": False}


def windowed_recipe() -> Recipe:
    return tiny_recipe(
        junior=WINDOWED,
        senior=None,
        method={"name": "supervised"},
        crop_size=(256, 256),
        batch={"labeled": 1, "unlabeled": 1},
        schedule={"steps": 1},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 48 by 64."""
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def windowed() -> Method:
    return build_method(windowed_recipe(), num_classes=3, ignore_index=255)


def write_resized_data(root: Path, height: int, width: int) -> Path:
    """The tiny data set with validation images of this size."""
    spec = write_tiny_data(root)
    for path in root.glob("*/val/*.png"):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST))
    return spec


def resized_data(root: Path, height: int, width: int) -> ImageSets:
    """The tiny data set with one validation image, of this size."""
    sets = load_data_spec(write_resized_data(root, height, width)).resolve()
    return replace(sets, val=sets.val[2:])


def refusal(method: Method, sets: ImageSets, **validation: object) -> str:
    """The whole message, or nothing where every size is taken."""
    recipe = windowed_recipe().model_copy(update={"validation": ValidationConfig.model_validate(validation)})
    try:
        require_sizes(method, recipe, sets)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["crop_size=[288, 256]"], "crops of 288x256 (height x width): "),
        (["method.teacher_scale=1.5"], "the 384x384 (height x width) at which method.teacher_scale shows it unlabeled"),
        ([], "000.png at 64x64 (height x width): "),
    ],
)
def test_a_training_that_would_end_in_a_traceback_is_not_begun(
    data: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", tiny_recipe(senior=WINDOWED, crop_size=(256, 256)))
    with pytest.raises(ConfigError) as error:
        train_run(data, str(recipe), tmp_path / "run", overrides, device="cpu")
    text = str(error.value)
    assert text.startswith("recipe tiny: maxvit_rmlp_pico_rw_256 cannot take ") and message in text
    assert "must be divisible by window (8); " in text and "\n" not in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_lone_crop_of_a_single_cell_is_refused_and_what_is_named_trains(
    data: Path, tmp_path: Path, accumulation: int
) -> None:
    batch = {"labeled": accumulation, "unlabeled": 2, "accumulation": accumulation}
    tiny = tiny_recipe(
        senior=None, method={"name": "supervised"}, crop_size=(32, 32), batch=batch, schedule={"steps": 1}
    )
    recipe = str(write_recipe(tmp_path / "r.yaml", tiny))
    with pytest.raises(ConfigError) as error:
        train_run(data, recipe, tmp_path / "run", device="cpu")
    text = str(error.value)
    assert (
        "batch normalization of mobilenetv4_conv_small_035 cannot train on one crop of 32x32 (height x width)" in text
    )
    assert text.endswith(f"use batch.labeled={2 * accumulation} or larger crops (crop_size)")
    assert not (tmp_path / "run").exists()
    for number, override in enumerate((f"batch.labeled={2 * accumulation}", "crop_size=[32, 64]")):
        train_run(data, recipe, tmp_path / f"run-{number}", [override], device="cpu")


def test_sizes_of_validation_are_tried_and_a_setting_is_named(windowed: Method, data: Path) -> None:
    sets = load_data_spec(data).resolve()
    for setting, given, seen in (("size", (250, 300), "256x288"), ("window", (512, 288), "512x288")):
        text = refusal(windowed, sets, **{setting: given})
        assert f"cannot take validation.{setting} at {seen} (height x width): " in text
        assert text.endswith(f"; set validation.{setting}=[256, 256]")
        assert refusal(windowed, sets, **{setting: (256, 256)}) == ""
    assert "; set validation.window=[256, 256], which shows" in refusal(windowed, sets)


@pytest.mark.parametrize(
    ("size", "most_pixels", "seen"),
    [
        ((244, 260), None, None),  # resized to 256 by 256
        ((256, 320), None, "256x320"),
        ((256, 320), 81_920, "256x320"),
        ((256, 320), 81_919, None),  # in windows of 256 by 256
        ((256, 320), 60_000, "224x224"),
    ],
)
def test_images_that_are_seen_whole_are_refused_only_for_sizes_that_do_not_fit(
    windowed: Method, tmp_path: Path, size: tuple[int, int], most_pixels: int | None, seen: str | None
) -> None:
    text = refusal(windowed, resized_data(tmp_path, *size), most_pixels=most_pixels)
    assert f"002.png at {seen} " in text if seen else text == ""


def test_the_window_that_is_proposed_trains_and_scores(command: CommandLine, data: Path, tmp_path: Path) -> None:
    recipe, run = str(write_recipe(tmp_path / "r.yaml", windowed_recipe())), tmp_path / "run"
    result = train_run(data, recipe, run, ["validation.window=[256, 256]"], device="cpu")
    assert set(result.miou) == {"junior", "junior_ema"}
    finished = command("eval", run, "--data", data, "--device", "cpu")
    assert finished.code == 0, finished.err


def test_commands_that_read_a_run_name_the_image_whose_size_does_not_fit(
    command: CommandLine, data: Path, tmp_path: Path
) -> None:
    """Its validation images fit; the others, of 48 by 64, are seen at 64 by 64."""
    run, fitting = tmp_path / "run", write_resized_data(tmp_path / "fitting", 256, 256)
    train_run(fitting, str(write_recipe(tmp_path / "r.yaml", windowed_recipe())), run, device="cpu")
    assert command("eval", run, "--data", fitting, "--device", "cpu").code == 0
    out = tmp_path / "out"
    label = ("pseudo-label", run, "--out", out, "--device", "cpu", "--confidence", 0)
    refusals = {
        "val": [("eval", run, "--data", data, "--device", "cpu")],
        "extra": [label, ("label-next", run, "--out", out, "--count", 1, "--device", "cpu")],
    }
    for folder, commands in refusals.items():
        for refused in commands:
            text = command.refused(*refused)
            assert f"images/{folder}/000.png: maxvit_rmlp_pico_rw_256 cannot take it at 64x64 (height x width)" in text
            proposed = f"--out {run} --resume -o 'validation.window=[256, 256]'` lets"
            assert proposed in text
    text = command.refused("export", run, "--data", fitting, "--out", out, "--size", "256x288")
    assert "maxvit_rmlp_pico_rw_256 cannot take it: " in text and "export with a --size that it takes" in text
    bounds = ("--dynamic", "--min-size", "256", "--max-size", "512")  # that it takes, as few between them
    text = command.refused("export", run, "--data", fitting, "--out", out, *bounds)
    assert "--dynamic: maxvit_rmlp_pico_rw_256 does not take every multiple of 32" in text
    assert not out.exists()

    resumed = command("train", "--out", run, "--resume", "-o", "validation.window=[256, 256]", "--device", "cpu")
    assert resumed.code == 0, resumed.err
    for refused in (commands[0] for commands in refusals.values()):
        finished = command(*refused)
        assert finished.code == 0, finished.err


def test_usual_networks_are_never_run_with_values(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes alone are computed, so that a window of any size takes no memory; the weights stay where they are."""
    run_at: list[tuple[int, int]] = []
    monkeypatch.setattr(size_refusal, "_real_refusal", lambda network, size: run_at.append(size))
    recipe = tiny_recipe(validation={"window": (64_000, 64_000)})
    method = build_method(recipe, num_classes=3, ignore_index=255)
    require_sizes(method, recipe, load_data_spec(data).resolve())
    assert run_at == []
    assert {tensor.device.type for tensor in method.state_dict().values()} == {"cpu"}


def test_a_network_that_looks_at_values_is_run_with_some(data: Path) -> None:
    method = build_method(tiny_recipe(), num_classes=3, ignore_index=255)
    looked: list[float] = []
    for network in method.networks().values():
        network.backbone.register_forward_pre_hook(lambda _, inputs: looked.append(float(inputs[0].sum())))
    require_sizes(method, tiny_recipe(), load_data_spec(data).resolve())
    assert len(looked) == 4  # junior and senior, at the size of the crops and at the next larger one
