"""Suite files: which targets they name, which options they give, and what is refused."""

import re
from pathlib import Path

import pytest
import typer
import yaml
from command_line import CommandLine
from tiny_artifact import make_artifact

from segkc_deploy.benchmarks.interleaved.timing import ROUNDS
from segkc_deploy.benchmarks.options import MeasureOptions, read_suite
from segkc_deploy.cli.app import app
from segkc_deploy.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two artifacts, one that was rejected, and a run directory."""
    for name in ("a.onnx", "b.onnx", "c.onnx.rejected"):
        make_artifact(tmp_path / "artifacts", name)
    (tmp_path / "artifacts" / "notes.txt").write_text("mine")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "junior.safetensors").write_bytes(b"")
    (tmp_path / "runs" / "unfinished").mkdir()
    return tmp_path


def write(folder: Path, **content: object) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_everything_that_a_suite_can_say(folder: Path) -> None:
    targets = ["runs/*", {"path": "artifacts/b.onnx", "name": "the second"}, "artifacts/*"]
    options = {"batches": [4, 1], "seconds": 2, "samples": 9, "device": "cpu", "threads": 1, "images": 3, "block": 5}
    options["sustained"] = 0.5
    ending = {"rounds": 0, "pictures": False, "baseline": "old.json", "fail_if": ["miou < -0.5"]}
    suite = read_suite(write(folder, targets=targets, data="data.yaml", out="report", **options, **ending))
    second = folder / "artifacts/b.onnx"
    assert suite.targets == [folder / "runs/one", second, folder / "artifacts/a.onnx"]
    assert suite.names == {second: "the second"}
    assert (suite.data, suite.out, suite.baseline) == (folder / "data.yaml", folder / "report", folder / "old.json")
    assert suite.options == options | {"batches": (1, 4)}
    assert (suite.rounds, suite.pictures, suite.fail_if) == (0, False, ["miou < -0.5"])


def test_a_suite_may_leave_everything_to_the_command_line(folder: Path) -> None:
    suite = read_suite(write(folder))
    assert (suite.targets, suite.options, suite.data) == ([], {}, None)


def test_a_pattern_with_one_find_can_be_named(folder: Path) -> None:
    suite = read_suite(write(folder, targets=[{"path": "runs/*", "name": "ours"}]))
    assert suite.names == {folder / "runs/one": "ours"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"target": ["a"]}, "unknown key 'target'; did you mean 'targets'?"),
        ({"targets": [{"path": "artifacts/a.onnx", "nam": "x"}]}, "did you mean 'name'?"),
        ({"targets": ["artifacts/*.engine"]}, "targets: artifacts/*.engine finds no artifact"),
        ({"targets": [{"path": "artifacts/*", "name": "x"}]}, "finds 2 targets"),
        (
            {"targets": [{"path": f"artifacts/{name}.onnx", "name": "x"} for name in "ab"]},
            "the name 'x' is given twice",
        ),
        ({"batches": [0]}, "batches[0]"),
        ({"seconds": 0}, "seconds"),
        ({"rounds": -1}, "rounds"),
        ({"sustained": -1}, "sustained"),
        ({"threads": "many"}, "threads"),
    ],
)
def test_mistakes(folder: Path, content: dict[str, object], told: str) -> None:
    path = write(folder, **content)
    with pytest.raises(ConfigError) as refused:
        read_suite(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_neither_suite_nor_command_line_gives_is_told(folder: Path, command: CommandLine) -> None:
    suite, artifact = write(folder), folder / "artifacts/a.onnx"
    assert "has no targets" in command.refused("benchmark", "--suite", suite)
    assert "has no data; add" in command.refused("benchmark", artifact, "--suite", suite)
    assert "--out missing" in command.refused("benchmark", artifact, "--data", "data.yaml")
    assert "targets missing" in command.refused("benchmark", "--data", "data.yaml")
    assert "--baseline" in command.refused("benchmark", artifact, "--data", "d.yaml", "--fail-if", "miou < -0.5")


def test_the_figures_are_listed(command: CommandLine) -> None:
    finished = command("benchmark", "--list-metrics")
    assert finished.code == 0
    assert {"miou  (%)", "iou.<class>  (%)", "latency.p50  (ms)", "throughput.<batch>.images_per_s  (images/s)"} <= set(
        finished.out.splitlines()
    )


def test_the_example_is_a_valid_suite(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "docs/examples/benchmark-suite.yaml"
    for name in ("junior-fp32.onnx", "junior-int8.onnx"):
        make_artifact(tmp_path / "artifacts", name)
    (tmp_path / "suite.yaml").write_text(example.read_text())
    suite = read_suite(tmp_path / "suite.yaml")
    assert [target.name for target in suite.targets] == ["a", "junior-int8.onnx", "junior-fp32.onnx"]
    assert suite.data == tmp_path / "data.yaml"
    assert len(suite.fail_if) >= 2


def test_the_help_names_the_real_defaults() -> None:
    """The options' own defaults are None, since a suite file may give them, so the help has to name the others'."""
    command = typer.main.get_command(app).commands["benchmark"]  # type: ignore[attr-defined]
    named = {
        option.name: found[1]
        for option in command.params
        if (found := re.search(r"\[default: (.*)\]", getattr(option, "help", None) or ""))
    }
    options = MeasureOptions()
    defaults = {name: getattr(options, name) for name in named.keys() & set(MeasureOptions.model_fields)}
    defaults |= {"batches": ",".join(map(str, options.batches)), "rounds": ROUNDS, "pictures": "pictures"}
    assert named == {
        name: f"{default:g}" if isinstance(default, float) else str(default) for name, default in defaults.items()
    }
