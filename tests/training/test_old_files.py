"""Files of earlier versions, with other names for the online and the EMA networks, and with image lists as JSON."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.files.checkpoint import (
    read_checkpoint,
    restore_checkpoint,
    take_checkpoint,
    write_checkpoint,
)
from segkc_deploy.training.files.network_metadata import read_metadata
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.methods.registry import build_method, with_method_defaults
from segkc_deploy.training.train import train_run

HEADER_OF_0_1 = {
    "format": "segkc-deploy-network/1",
    "role": "junior",
    "network": {"backbone": "resnet10t", "decoder_channels": 16},
    "labels": {"names": ["background", "box"], "palette": [[0, 0, 0], [255, 0, 0]], "ignore_index": 255},
    "input_size": [64, 64],
    "recipe": "tiny",
    "method": "segkc",
    "step": 4,
    "averaged": True,
    "scores": {"junior": 10.0, "junior_ema": 20.0},
}


def method() -> tuple[Method, torch.optim.Optimizer]:
    built = build_method(tiny_recipe(), 3, 255)
    return built, torch.optim.AdamW(built.online.parameters(), lr=1e-3)


def test_the_header_of_a_network_file(tmp_path: Path) -> None:
    path = tmp_path / "junior.safetensors"
    save_file({"weight": torch.zeros(1)}, path, {"segkc_deploy": json.dumps(HEADER_OF_0_1)})
    metadata = read_metadata(path)
    assert metadata.ema
    assert metadata.scores == HEADER_OF_0_1["scores"]


def test_the_tensors_of_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved, optimizer = method()
    write_checkpoint(tmp_path / "new.safetensors", take_checkpoint(3, saved, optimizer, {"scores": {}}))
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        names = {
            name.replace("module.online.", "module.learners.").replace("module.ema.", "module.averaged."): name
            for name in file.keys()  # noqa: SIM118
        }
        tensors, header = {old: file.get_tensor(new) for old, new in names.items()}, file.metadata()
    del header["sha256"]
    assert any(name.startswith("module.averaged.") for name in tensors)
    save_file(tensors, tmp_path / "old.safetensors", header)

    torch.manual_seed(2)
    loaded, optimizer = method()
    checkpoint = read_checkpoint(tmp_path / "old.safetensors")
    assert (checkpoint.step, checkpoint.extra) == (3, {"scores": {}})
    restore_checkpoint(checkpoint, loaded, optimizer)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def with_lists_in_the_header(path: Path, data: Path) -> None:
    """Write a checkpoint anew as earlier versions did."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["segkc_deploy_checkpoint"])
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("data.")}
    sets = load_data_spec(data).resolve()
    for key in ("labeled", "unlabeled"):
        header["extra"]["data"][key] = [sample.id for sample in getattr(sets, key)]
    save_file(tensors, path, {"segkc_deploy_checkpoint": json.dumps(header)})


def test_a_checkpoint_with_its_image_lists_in_the_header_is_resumed_bit_by_bit(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe())
    run = RunDirectory(train_run(data, str(recipe), tmp_path / "run", device="cpu").path)
    expected = load_file(run.checkpoint)
    with_lists_in_the_header(run.previous_checkpoint, data)  # that of step 2 of 4
    run.checkpoint.unlink()

    extra = tmp_path / "data" / "images" / "extra" / "000.png"
    moved = extra.rename(extra.with_suffix(".hidden"))
    with pytest.raises(
        ConfigError, match=r"1 unlabeled image was removed \(such as 000\) since the checkpoint; restore"
    ):
        train_run(None, None, run.path, resume=True, device="cpu")
    moved.rename(extra)

    train_run(None, None, run.path, resume=True, device="cpu")
    resumed = load_file(run.checkpoint)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_the_values_of_a_recipe() -> None:
    for old, new in (("learners", "online"), ("averaged", "ema")):
        recipe = with_method_defaults(tiny_recipe(method={"name": "segkc", "prediction_target": old}))
        assert recipe.method["prediction_target"] == new
