"""`export --engine auto`: what it tries, what it keeps, and when it measures again."""

from pathlib import Path

import pytest
from command_line import CommandLine

from segkc_deploy import engine_choice
from segkc_deploy.engine_choice import EngineChoice, TriedEngine, find_choice, store_choice, stored_choices
from segkc_deploy.errors import VerificationError
from segkc_deploy.export import auto_engine
from segkc_deploy.export.auto_engine import export_fastest
from segkc_deploy.export.export_run import export_run
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.export.verify import Limits
from segkc_deploy.machine import available_cores
from segkc_deploy.manifest import read_manifest
from segkc_deploy.predictor import load

pytestmark = pytest.mark.usefixtures("graphs_traced_once")

SETTINGS = ExportSettings(verify_images=1, calibration_images=1, limits=Limits(miou_loss=100.0))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(auto_engine, "cuda_obstacle", lambda: "no GPU")
    monkeypatch.setattr(auto_engine, "_ROUNDS", 1)
    monkeypatch.setattr(auto_engine, "_STREAM_SECONDS", 0.01)


def unreadable() -> list[EngineChoice]:
    raise PermissionError("the cache folder of another user")


@pytest.mark.parametrize(
    ("obstacle", "precisions", "tried"),
    [
        ("no GPU", ["int8"], [("onnx", "int8"), ("openvino", "int8")]),
        ("", ["int8"], [("onnx", "int8"), ("trt", "int8")]),
        ("", ["bf16"], [("trt", "bf16")]),
        ("no GPU", ["fp8"], []),
    ],
)
def test_a_precision_is_tried_with_every_engine_that_offers_it(
    obstacle: str, precisions: list[str], tried: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_engine, "cuda_obstacle", lambda: obstacle)
    assert auto_engine._to_try(precisions) == tried
    assert set(auto_engine._to_try(None)) == set(auto_engine._ON_CPU if obstacle else auto_engine._ON_GPU)


def choice(**changes: object) -> EngineChoice:
    fields: dict[str, object] = {
        "network": "0" * 64,
        "run": "runs/a",
        "settings": {"size": [64, 64]},
        "machine": engine_choice.this_machine(),
        "versions": engine_choice.engine_versions(),
        "tried": (TriedEngine(engine="onnx", precision="fp32", threads=2, latency_ms=3.0),),
    }
    return EngineChoice.model_validate(fields | changes)


def test_the_fastest_is_kept_and_the_next_export_measures_nothing(
    command: CommandLine, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_engine, "_ON_CPU", (("onnx", "fp32"), ("trt", "fp16")))
    options = ["--engine", "auto", "--verify-images", 1, "--calibration-images", 1, "--min-agreement", 0.5]
    finished = command("export", run, "--data", data, *options, "--out", tmp_path / "a")
    assert finished.code == 0, finished
    lines = finished.out.splitlines()
    assert ", chosen" in lines[0] and " ms with " in lines[0] and "of the pixels like the junior's" in lines[0]
    assert any(line.split()[:4] == ["trt", "fp16", "not", "usable:"] for line in lines)
    (artifact,) = (tmp_path / "a").glob("*.onnx")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [artifact.name, f"{artifact.name}.json"]
    assert read_manifest(artifact).precision in lines[0]

    (kept,) = stored_choices()
    with load(artifact, streams=None) as predictor:
        assert predictor.streams == kept.streams
    store_choice(kept.model_copy(update={"streams": 3}))
    with load(artifact, streams=None) as measured, load(artifact, threads=1, streams=None) as limited:
        assert (measured.streams, limited.streams) == (3, available_cores())
    other = predictor.contract.model_copy(update={"size": (64, 96)}).model_dump(mode="json")
    store_choice(kept.model_copy(update={"streams": 3, "contract": other}))  # another artifact of the same network
    with load(artifact, streams=None) as predictor:
        assert predictor.streams == available_cores()
    monkeypatch.setattr(engine_choice, "stored_choices", unreadable)
    with load(artifact, streams=None) as predictor:
        assert predictor.streams == available_cores()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store_choice(kept)

    text = command("doctor").out
    assert f"{run}: onnx {read_manifest(artifact).precision}, " in text

    def fail(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(auto_engine, "_time_all", fail)
    again = command("export", run, "--data", data, *options, "--out", tmp_path / "b")
    assert again.code == 0, again
    assert [path.name for path in (tmp_path / "b").glob("*.onnx")] == [artifact.name]
    assert again.out.splitlines()[0] == lines[0]


def test_a_faster_artifact_that_does_not_agree_is_not_chosen(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **named: object) -> object:
        settings = arguments[2]
        assert isinstance(settings, ExportSettings)
        if settings.precision == "fp16":
            raise VerificationError("mIoU fell by 7.00")
        return export_run(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(auto_engine, "_ON_CPU", (("onnx", "fp16"), ("onnx", "fp32")))
    monkeypatch.setattr(auto_engine, "export_run", refuse)
    exported, found = export_fastest(run, data, SETTINGS, None, tmp_path / "out")
    assert exported.manifest.precision == found.chosen.precision == "fp32"
    assert [(one.precision, one.rejected) for one in found.tried[1:]] == [("fp16", "mIoU fell by 7.00")]
    with pytest.raises(VerificationError, match="onnx fp16: mIoU fell"):
        export_fastest(run, data, SETTINGS, ["fp16"], tmp_path / "out")


def test_a_choice_counts_for_its_network_settings_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = choice()
    store_choice(stored)
    assert find_choice(stored.network, stored.settings) == stored
    assert find_choice("1" * 64, stored.settings) is None
    assert find_choice(stored.network, {"size": [32, 32]}) is None
    monkeypatch.setattr(engine_choice, "engine_versions", lambda: stored.versions | {"onnxruntime": "99"})
    assert find_choice(stored.network, stored.settings) is None
    assert [kept.current for kept in stored_choices()] == [False]


def test_a_damaged_choice_and_another_machines_are_passed_over(tmp_path: Path) -> None:
    store_choice(choice(machine={"cpu": "another", "cores": 1, "gpus": []}))
    assert stored_choices() == []
    stored = choice()
    store_choice(stored)
    (path,) = (path for path in (tmp_path / "cache").rglob("*.json") if b"another" not in path.read_bytes())
    path.write_text("{")
    assert find_choice(stored.network, stored.settings) is None
    assert stored_choices() == []


def test_options_of_one_engine_are_refused(command: CommandLine, run: Path, tmp_path: Path) -> None:
    assert "name the engine" in command.refused("export", run, "--engine", "auto", "--triton", tmp_path / "models")
    assert "--engine auto --precision fp8" in command.refused("export", run, "--engine", "auto", "--precision", "fp8")
