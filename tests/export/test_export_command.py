"""`segkc-deploy export`: what it prints and writes, and how mistakes end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from command_line import CommandLine

from segkc_deploy.cli.ranges import parse_range
from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.manifest import read_manifest

pytestmark = pytest.mark.usefixtures("graphs_traced_once")


def test_it_says_what_was_built_and_how_it_was_proven(
    command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    options = ["--precision", "fp16", "--batch", "1:4", "--outputs", "masks,logits", "--out", tmp_path]
    finished = command("export", run, *options, "--triton", tmp_path / "models", "--min-agreement", "0.9")
    assert finished.code == 0, finished
    lines = finished.out.splitlines()
    path = tmp_path / "junior-fp16.onnx"
    assert lines[0].startswith(f"{path}  (")
    assert "of pixels, 3 images, by the graph" in lines[1]
    assert any(line.startswith("  mIoU: junior ") for line in lines)
    assert any(line.startswith("  fp16: ") and " Conv" in line for line in lines)
    assert f"  Triton model: {tmp_path / 'models' / 'junior-fp16'}" in lines
    manifest = read_manifest(path)
    assert manifest.contract.max_batch == 4
    assert [output.name for output in manifest.contract.outputs] == ["masks", "logits"]
    assert manifest.layer_precision is not None
    assert {node.precision for node in manifest.layer_precision.fallbacks} == {"fp32"}
    assert (tmp_path / "models" / "junior-fp16" / "1" / "model.onnx").read_bytes() == path.read_bytes()

    again = command.refused("export", run, *options, "--triton", tmp_path / "models")
    assert "already exists" in again


def test_free_sizes_and_images_without_masks(command: CommandLine, run: Path, data: Path, tmp_path: Path) -> None:
    photos = data.parent / "images" / "val"
    finished = command("export", run, "--dynamic", "--max-size", "96x160", "--verify", photos, "--out", tmp_path)
    assert finished.code == 0, finished
    assert "mIoU" not in finished.out
    contract = read_manifest(tmp_path / "junior-fp32.onnx").contract
    assert (contract.size_multiple, contract.min_size, contract.max_size) == (32, (64, 64), (96, 160))


def test_below_the_limit_it_ends_with_1_and_the_layers(command: CommandLine, run: Path, tmp_path: Path) -> None:
    # Rounding to FP16 moves some pixels of a network that has hardly learned, if there are many; none may move here.
    options = ("--precision", "fp16", "--size", "256", "--min-agreement", "1")
    finished = command("export", run, *options, "--out", tmp_path)
    assert finished.code == 1, finished
    (line,) = [line for line in finished.err.splitlines() if line.startswith("error: ")]
    assert "(100.0000% are required); every layer of its graph is within 10%" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "junior-fp16.onnx.rejected",
        "junior-fp16.onnx.rejected.json",
        "junior-fp16.onnx.rejected.layers.json",
    ]
    layers = json.loads((tmp_path / "junior-fp16.onnx.rejected.layers.json").read_text())
    assert not any(layer["diverged"] for layer in layers)
    assert max(layer["relative_error"] for layer in layers) > 1e-4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "tensorr"], "did you mean tensorrt?"),
        (["--precision", "fp4"], "use fp32, fp16, bf16, int8, fp8"),
        (["--precision", "fp8"], "this engine takes fp32, fp16, int8"),
        (["--strip-weights", "--triton", "models"], "leave one of them out"),
        (["--batch", "8:1"], "the smallest, the usual and the largest batch"),
        (["--size", "60x64"], "the closest is 64x64"),
        (["--size", "0"], "both sides have to be multiples of"),
        (["--outputs", "masks,depth"], "name each once, out of masks,confidence,logits"),
        (["--max-size", "96"], "add --dynamic"),
        (["--dynamic", "--min-size", "96"], "is not between"),
        (["--level", "3"], "takes no build options"),
        (["--opset", "17"], "--precision fp32 takes 18 to 23"),
        (["--opset", "18", "--precision", "int8"], "--precision int8 takes 19 to 23"),
        (["--engine", "openvino", "--opset", "20"], "writes no ONNX file; leave --opset out"),
        (["--engine", "auto", "--opset", "20"], "takes no --triton, no --opset"),
        (["--engine", "openvino", "--triton", "models"], "no Triton model repository"),
        (["--verify", "nowhere"], "no such image or folder"),
        (["--precision", "int8", "--verify", "VAL"], "needs masks"),
    ],
)
def test_mistakes_end_with_one_line(
    options: list[str], told: str, command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    photos = str(data.parent / "images" / "val")
    line = command.refused(
        "export", run, "--out", tmp_path, *(photos if value == "VAL" else value for value in options)
    )
    assert told in line
    assert not list(tmp_path.iterdir())


def test_images_without_masks_verify_where_the_runs_own_are_gone(
    command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    """The spec came along, as in a repository, and its images did not."""
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    config = yaml.safe_load((copied / "config.yaml").read_text())
    spec = tmp_path / "data.yaml"
    shutil.copyfile(data, spec)
    (copied / "config.yaml").write_text(yaml.safe_dump(config | {"data": str(spec)}))
    photos = data.parent / "images" / "val"
    finished = command("export", copied, "--verify", photos, "--out", tmp_path / "out")
    assert finished.code == 0, finished
    assert "the run's own data is left out" in finished.err


def test_a_folder_whose_name_is_not_utf_8_is_refused_at_once(
    command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "\udcff"
    assert "is not UTF-8, as a path has to be here; rename it" in command.refused("export", run, "--out", out)
    assert not out.exists()
    copied = tmp_path / "\udcfe"
    shutil.copytree(run, copied)
    assert "is not UTF-8" in command.refused("export", copied, "--out", tmp_path / "out")
    assert "is not UTF-8" in command.refused("eval", copied / "junior-fp32.onnx", "--data", data)


def test_the_shapes_are_tried_with_what_is_loaded_later(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segkc_deploy.export import export_run as module

    opened: list[tuple[str, ...] | None] = []
    create_runner = module.create_runner

    def watched(*arguments: Any, outputs: tuple[str, ...] | None = None, **named: Any) -> Any:
        opened.append(outputs)
        return create_runner(*arguments, outputs=outputs, **named)

    monkeypatch.setattr(module, "create_runner", watched)
    module.export_run(run, data, out=tmp_path / "out")
    assert opened == [None, ("logits",)]


@pytest.mark.parametrize(("text", "wanted"), [("4", (4, 4, 4)), ("1:8", (1, 1, 8)), ("1:4:8", (1, 4, 8))])
def test_ranges_are_written_with_colons(text: str, wanted: tuple[int, int, int]) -> None:
    assert parse_range(text, "--batch") == wanted


@pytest.mark.parametrize("text", ["", "a", "²", "1:2:3:4", "1:", "-1", "1.5"])
def test_what_is_no_range_is_told(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 4, 1:8 or 1:4:8"):
        parse_range(text, "--batch")


@pytest.mark.skipif(not cuda_obstacle(), reason="there is a GPU, which TensorRT could use")
def test_without_a_gpu_tensorrt_is_refused_in_one_line(command: CommandLine, run: Path) -> None:
    assert "a GPU is needed" in command.refused("export", run, "--engine", "trt", "--precision", "fp16")
