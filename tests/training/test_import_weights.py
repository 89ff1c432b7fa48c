"""Weights from elsewhere: published checkpoints become runs, files of weights become beginnings, code is never run."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from command_line import CommandLine
from ended_run import ended_run
from original_dinov2_dpt import BASE, LARGE, SMALL, DINOv2, Original, Size, random_original, randomize
from safetensors.torch import save_file
from tiny_data import CLASSES, tiny_recipe, write_recipe, write_tiny_data
from torch import Tensor

from segkc_deploy.errors import ConfigError, DataError, RunDirectoryError, UserError
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.training.files.foreign_weights import read_weights
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.files.run_directory import RunDirectory, read_config
from segkc_deploy.training.files.starting_weights import build_network
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.models.backbone import Backbone
from segkc_deploy.training.models.fixed_size import at_fixed_size
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.training.train import train_run

#: What DINOv2 normalizes by.
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

EMBEDDING = "backbone.pos_embed"
CLASSIFIER = "head.scratch.output_conv.2.weight"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def original() -> Original:
    return random_original(SMALL, len(CLASSES))


@pytest.fixture(scope="module")
def checkpoint(original: Original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint as UniMatch V2 writes it, wrapped and with NumPy's numbers, `original` being the EMA."""
    path = tmp_path_factory.mktemp("published") / "best.pth"
    ema = {f"module.{name}": tensor for name, tensor in original.state_dict().items()}
    raw = ema | {f"module.{CLASSIFIER}": torch.zeros(len(CLASSES), SMALL.features, 1, 1)}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 5e-6, "betas": (0.9, 0.999)}]}
    scores = {"epoch": 3, "previous_best": np.float64(79.02), "previous_best_ema": np.mean([79.03])}
    torch.save({"model": raw, "model_ema": ema, "optimizer": optimizer, **scores}, path)
    return path


@pytest.fixture(scope="module")
def imported(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "imported"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("sys.argv", ["segkc-deploy", *map(str, import_line(checkpoint, run, "--data", data))])
        from segkc_deploy import cli

        with pytest.raises(SystemExit) as finished:
            cli.main()
    assert finished.value.code == 0
    return run


def import_line(file: Path, out: Path, *more: object) -> list[object]:
    return ["import-weights", file, "--format", "unimatch-v2", "--out", out, *more]


@pytest.mark.parametrize("size", [(518, 518), (364, 476), (532, 546)])
def test_logits_equal_the_original_networks(imported: Path, original: Original, size: tuple[int, int]) -> None:
    network, _ = load_network(imported / "junior.safetensors")
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(size[0]))
    with torch.inference_mode():
        expected = original((images - MEAN) / STD)
        assert expected.std() > 0.5
        torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("small", SMALL), ("base", BASE), ("large", LARGE)])
def test_every_weight_of_the_published_sizes_has_its_place(name: str, size: Size) -> None:
    with torch.device("meta"):
        wanted = Original(size, 19).state_dict()
        found = Segmenter(NetworkSpec(backbone=f"vit_{name}_patch14_dinov2"), 19).state_dict()
    shapes = {
        key.replace("backbone.network", "backbone").replace("decoder", "head"): tensor.shape
        for key, tensor in found.items()
    }
    assert shapes == {key: tensor.shape for key, tensor in wanted.items() if key != "backbone.mask_token"}


def test_the_run_pretends_no_training(imported: Path, checkpoint: Path, data: Path) -> None:
    assert {path.name for path in imported.iterdir()} == {"config.yaml", "junior.safetensors"}
    _, metadata = load_network(imported / "junior.safetensors")
    assert (metadata.method, metadata.step, metadata.scores, metadata.ema) == ("imported", 0, {}, True)
    assert metadata.labels.names == tuple(CLASSES)
    assert (metadata.network.backbone, metadata.network.positions) == ("vit_small_patch14_dinov2", "dinov2")
    assert metadata.input_size == (518, 518)
    recipe, stored_data = read_config(RunDirectory(imported))
    assert (recipe.junior, recipe.senior, stored_data) == (metadata.network, None, data)
    origin = yaml.safe_load((imported / "config.yaml").read_text())["imported"]
    assert (origin["file"], origin["format"], origin["copy"]) == (str(checkpoint), "unimatch-v2", "ema")


def test_a_run_that_was_imported_without_a_data_spec_asks_for_one(
    checkpoint: Path, data: Path, tmp_path: Path, command: CommandLine
) -> None:
    run = tmp_path / "run"
    assert command(*import_line(checkpoint, run, "--classes", ",".join(CLASSES))).code == 0
    assert read_config(RunDirectory(run))[1] is None
    for line in (
        ["export", run],
        ["label-next", run, "--out", tmp_path / "next", "--by", "entropy"],
        ["pseudo-label", run, "--out", tmp_path / "pseudo"],
        ["pseudo-label", run, "--out", tmp_path / "pseudo", "--source", data.parent / "images/val"],
    ):
        refused = command.refused(*line)
        assert f"{run}: imported without a data spec" in refused and "--data" in refused, line
    assert "--verify" in command.refused("export", run)
    assert command("card", run, "--license", "mit", "--out", tmp_path / "card.md").code == 0


def test_the_evaluation_is_the_data_sets(checkpoint: Path, tmp_path: Path, command: CommandLine) -> None:
    tensors = read_weights(checkpoint).tensors
    tensors |= {CLASSIFIER: torch.zeros(19, 64, 1, 1), CLASSIFIER.replace("weight", "bias"): torch.zeros(19)}
    save_file(tensors, tmp_path / "street.safetensors")
    run = tmp_path / "the run"
    finished = command(*import_line(tmp_path / "street.safetensors", run, "--layout", "cityscapes"))
    assert finished.code == 0
    assert f"next: segkc-deploy eval '{run}' --data data.yaml" in finished.out
    assert "24.8M parameters, 19 classes, raw weights" in finished.out
    recipe, _ = read_config(RunDirectory(run))
    assert (recipe.validation.window, recipe.validation.stride) == ((798, 798), (532, 532))
    assert load_network(run / "junior.safetensors")[1].input_size == (798, 798)


def test_an_imported_run_is_evaluated_and_exported(
    imported: Path, original: Original, data: Path, tmp_path: Path, command: CommandLine
) -> None:
    evaluated = command("eval", imported, "--data", data)
    assert evaluated.code == 0, evaluated
    assert "mIoU" in evaluated.out
    exported = command("export", imported, "--data", data, "--size", "56x70", "--out", tmp_path)
    assert exported.code == 0, exported
    import onnxruntime

    images = np.random.default_rng(0).integers(0, 256, (1, 56, 70, 3)).astype(np.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "junior-fp32.onnx"), providers=["CPUExecutionProvider"])
    (masks,) = session.run(["masks"], {"images": images})
    with torch.inference_mode():
        logits = original((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN) / STD)
    assert (masks == logits.argmax(1).numpy()).mean() > 0.999


def test_the_raw_copy_can_be_asked_for(checkpoint: Path, data: Path, tmp_path: Path, command: CommandLine) -> None:
    assert command(*import_line(checkpoint, tmp_path / "run", "--data", data, "--copy", "raw")).code == 0
    network, metadata = load_network(tmp_path / "run" / "junior.safetensors")
    assert not metadata.ema
    assert network.decoder.classifier.weight.abs().max() == 0


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_weights_that_do_not_fit_are_named(checkpoint: Path, data: Path, tmp_path: Path, command: CommandLine) -> None:
    tensors = read_weights(checkpoint).tensors
    norm, shift = "backbone.blocks.3.norm1.bias", "backbone.norm.bias"
    cases = {
        f"1 missing ({norm})": without(tensors, norm),
        "168 missing (backbone.blocks.0.attn.proj.bias, ": {
            name: tensor for name, tensor in tensors.items() if "backbone.blocks." not in name
        },
        "1 surplus (head.extra)": tensors | {"head.extra": torch.zeros(2)},
        f"1 of another shape ({EMBEDDING} is 1x257x384 instead of 1x1370x384)": tensors
        | {EMBEDDING: torch.zeros(1, 257, 384)},
        f"1 missing ({norm}); 1 surplus (head.extra)": without(tensors, norm) | {"head.extra": torch.zeros(2)},
        f"1 not finite ({shift})": tensors | {shift: torch.full((384,), torch.nan)},
        "has no backbone.cls_token": without(tensors, "backbone.cls_token"),
        "tokens of width 192": tensors | {"backbone.cls_token": torch.zeros(1, 1, 192)},
        "a backbone alone goes under `pretrained`": {"cls_token": torch.zeros(1, 1, 384)},
    }
    file = tmp_path / "weights.safetensors"
    for message, weights in cases.items():
        save_file({name: tensor.clone() for name, tensor in weights.items()}, file)
        line = command.refused(*import_line(file, tmp_path / "run", "--data", data))
        assert line.startswith(f"error: {file}: ")
        assert message in line
    assert not (tmp_path / "run").exists()


def test_other_classes_are_refused_with_both_counts(checkpoint: Path, tmp_path: Path, command: CommandLine) -> None:
    def refused(*options: object) -> str:
        return command.refused(*import_line(checkpoint, tmp_path / "run", *options))

    assert "has 3 classes, and --layout voc names 21" in refused("--layout", "voc")
    assert "has 3 classes, and --classes names 2" in refused("--classes", "road, sky")
    assert "give one of --data, --layout and --classes" in refused()
    assert "should be 'folders', 'voc'" in refused("--layout", "pascal")


class _Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_files_that_are_no_weights_are_refused_and_never_run(
    checkpoint: Path, data: Path, tmp_path: Path, command: CommandLine
) -> None:
    harm = tmp_path / "harm"
    code, old_code, cut = (tmp_path / f"{name}.pth" for name in ("code", "old", "cut"))
    torch.save({"model": {"backbone.cls_token": torch.zeros(1, 1, 384)}, "args": _Harm(harm)}, code)
    torch.save({"args": _Harm(harm)}, old_code, _use_new_zipfile_serialization=False)
    cut.write_bytes(checkpoint.read_bytes()[:100_000])
    cases = {code: f"{os.mkdir.__module__}.mkdir", old_code: f"{os.mkdir.__module__}.mkdir", cut: "copy it again"}
    for name, content, message in (
        ("page.pth", b"\n<!DOCTYPE html><title>Hub</title>", "a web page, not weights"),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        ("empty.pth", b"", "the file is empty"),
        ("noise.pth", np.random.default_rng(0).bytes(5000), "copy it again"),
        ("page.safetensors", b"<html></html>", "a web page, not weights"),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{", "not a safetensors file"),
    ):
        (tmp_path / name).write_bytes(content)
        cases[tmp_path / name] = message
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    cases |= {tmp_path / "list.pth": "holds a list", tmp_path / "numbers.pth": "it holds epoch"}
    for file, message in (cases | {tmp_path / "none.pth": "no such weights file"}).items():
        line = command.refused(*import_line(file, tmp_path / "run", "--data", data))
        assert line.startswith(f"error: {file}: ")
        assert message in line
        with pytest.raises(UserError, match=file.name):
            build_network(NetworkSpec(backbone="vit_tiny_patch16_224", pretrained=file), 3)
    assert not harm.exists()


def test_both_formats_of_torch_and_safetensors_give_the_same(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.randn(3, 2), "b": torch.arange(4)}
    torch.save({"state_dict": tensors}, tmp_path / "new.pth")
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in tensors.items()}
    torch.save(wrapped, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "weights.bin")
    for name, copy in (("new.pth", "raw"), ("old.pth", None), ("weights.bin", None)):
        found = read_weights(tmp_path / name)
        assert found.copy == copy
        assert found.tensors.keys() == tensors.keys()
        assert all(torch.equal(found.tensors[key], tensors[key]) for key in tensors)
    with pytest.raises(DataError, match="no ema copy of the weights in it; it holds its raw copy alone"):
        read_weights(tmp_path / "new.pth", "ema")


@pytest.mark.parametrize(
    ("registers", "backbone"), [(0, "vit_small_patch14_dinov2"), (4, "vit_small_patch14_reg4_dinov2")]
)
def test_dinov2s_own_files_are_backbones(registers: int, backbone: str, tmp_path: Path) -> None:
    own = DINOv2(SMALL, registers).eval()
    randomize(own, seed=1)
    torch.save(own.state_dict(), tmp_path / "dinov2_pretrain.pth")
    positions = "timm" if registers else "dinov2"
    spec = NetworkSpec.model_validate(
        {"backbone": backbone, "pretrained": tmp_path / "dinov2_pretrain.pth", "positions": positions}
    )
    images = torch.randn(1, 3, 70, 98)
    with torch.inference_mode():
        for found, expected in zip(build_network(spec, 3).backbone.eval()(images), own(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_timms_safetensors_load_where_its_own_file_is_another_kind(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network = build_network(
        NetworkSpec(backbone="vit_tiny_patch16_224", pretrained=tmp_path / "model.safetensors"), 3
    ).backbone.network
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in network.state_dict().items())
    assert "state_dict" not in network.pretrained_cfg

    tensors = without(source.state_dict(), "blocks.3.attn.qkv.weight")
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(DataError, match=r"part\.safetensors: pretrained weights of vit_tiny_patch16_224 could not"):
        build_network(NetworkSpec(backbone="vit_tiny_patch16_224", pretrained=tmp_path / "part.safetensors"), 3)


def dinov2_like() -> Segmenter:
    """A small ViT with random positions, resampled as DINOv2 does."""
    torch.manual_seed(0)
    spec = NetworkSpec(backbone="test_vit", decoder_channels=16, positions="dinov2")
    network = Segmenter(spec, num_classes=4).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("grid", [(10, 10), (3, 5), (16, 10)])
def test_a_fixed_size_keeps_dinov2s_positions(grid: tuple[int, int]) -> None:
    network = dinov2_like()
    size = (16 * grid[0], 16 * grid[1])
    images = torch.rand(1, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(at_fixed_size(network, size)(images), network(images), rtol=1e-5, atol=1e-5)


def test_a_free_size_keeps_dinov2s_positions() -> None:
    network = dinov2_like()
    infer = emulate(base_graph(DeployGraph(network, None), (32, 48), free_size=True))
    for height, width in ((10, 10), (10, 3), (5, 2), (3, 17)):
        images = np.random.default_rng(height).integers(0, 256, (1, 16 * height, 16 * width, 3)).astype(np.uint8)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            expected = network.decoder(network.features(pixels)).numpy()
        np.testing.assert_allclose(infer(images)[0], expected, atol=2e-5 * np.abs(expected).max())


def test_dinov2s_positions_are_for_its_kind_of_vit() -> None:
    for backbone in ("vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"):
        with torch.device("meta"), pytest.raises(ConfigError, match="positions: dinov2 is for ViTs with"):
            Backbone(NetworkSpec(backbone=backbone, positions="dinov2"))


def test_training_starts_from_a_runs_weights(data: Path, tmp_path: Path) -> None:
    small = ended_run(tmp_path / "small", "mobilenetv4_conv_small_035", classes=3, names=CLASSES)
    large = ended_run(tmp_path / "large", "resnet10t", classes=5)
    recipe = tiny_recipe(
        junior={"backbone": "mobilenetv4_conv_small_035", "decoder_channels": 16, "pretrained": str(small)},
        senior={
            "backbone": "resnet10t",
            "decoder_channels": 16,
            "pretrained": str(large / "junior.safetensors"),
        },
        optimizer={"lr": 1e-12, "decoder_lr_multiplier": 1},
        schedule={"steps": 1},
        ship="raw",
    )
    starts = {role: load_network(run / "junior.safetensors")[0] for role, run in (("junior", small), ("senior", large))}
    networks = build_method(recipe, 3, 255).networks()
    for name, network in networks.items():
        start = starts[name.removesuffix("_ema")].state_dict()
        fresh = {"decoder.classifier.weight", "decoder.classifier.bias"} if name.startswith("senior") else set()
        assert all(torch.equal(tensor, start[key]) for key, tensor in network.state_dict().items() if key not in fresh)
        assert all(network.state_dict()[key].shape[0] == 3 for key in fresh)

    file = write_recipe(tmp_path / "tiny.yaml", recipe)
    run = train_run(data, str(file), tmp_path / "run", device="cpu").path
    for role, start_network in starts.items():
        trained = dict(load_network(run / f"{role}.safetensors")[0].named_parameters())
        for key, parameter in start_network.named_parameters():
            if parameter.shape == trained[key].shape:
                torch.testing.assert_close(trained[key], parameter, rtol=0, atol=1e-8)
    log = (run / "train.log").read_text()
    assert f"junior: starts from backbone and decoder of {small / 'junior.safetensors'}\n" in log
    assert "the classifier is fresh (5 classes there, 3 here)" in log


def test_an_imported_network_starts_a_training(imported: Path, original: Original) -> None:
    spec = NetworkSpec(backbone="vit_small_patch14_dinov2.lvd142m", positions="dinov2", pretrained=imported)
    network = build_network(spec, num_classes=8).eval()
    assert torch.equal(network.backbone.network.pos_embed, original.backbone.pos_embed)
    assert torch.equal(network.decoder.projects[0].weight, original.head.projects[0].weight)
    assert network.decoder.classifier.weight.shape[0] == 8
    with pytest.raises(ConfigError, match="add `positions: dinov2` beside `pretrained`"):
        build_network(NetworkSpec(backbone="vit_small_patch14_dinov2", pretrained=imported), num_classes=8)


def test_starting_from_another_network_is_refused(tmp_path: Path) -> None:
    run = ended_run(tmp_path / "run", "resnet10t", classes=3)
    for change, message in (
        ({"backbone": "resnet14t"}, "holds a resnet10t network, not the resnet14t"),
        ({"decoder_channels": 24}, r"weights do not fit, such as decoder\.classifier\.weight; give the same decoder"),
    ):
        spec = {"backbone": "resnet10t", "decoder_channels": 16, "pretrained": run} | change
        with pytest.raises(ConfigError, match=message):
            build_network(NetworkSpec.model_validate(spec), 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="no such file; is its folder a run"):
        build_network(NetworkSpec(backbone="resnet10t", pretrained=tmp_path / "empty"), 3)
