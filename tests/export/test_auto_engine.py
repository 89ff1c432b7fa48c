"""`export --engine auto`: what it tries, what it keeps, and when it measures again."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from segkc_deploy import engine_choice
from segkc_deploy.engine_choice import EngineChoice, TriedEngine, find_choice, store_choice, stored_choices
from segkc_deploy.errors import ArtifactError, DataError, SegKCError, VerificationError
from segkc_deploy.export import auto_engine
from segkc_deploy.export.auto_engine import export_fastest
from segkc_deploy.export.export_run import export_run
from segkc_deploy.export.real_images import real_images
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.export.verify import Limits
from segkc_deploy.machine import available_cores
from segkc_deploy.manifest import read_manifest
from segkc_deploy.predictor import Predictor, load
from segkc_deploy.training.files.network_file import read_metadata
from segkc_deploy.user_cache import cache_folder

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
    ("on_gpu", "precisions", "tried"),
    [
        (False, ["int8"], [("onnx", "int8"), ("openvino", "int8")]),
        (True, ["int8"], [("onnx", "int8"), ("trt", "int8")]),
        (True, ["bf16"], [("trt", "bf16")]),
        (False, ["fp8"], []),
    ],
)
def test_a_precision_is_tried_with_every_engine_that_offers_it(
    on_gpu: bool, precisions: list[str], tried: list[tuple[str, str]]
) -> None:
    assert auto_engine._to_try(precisions, on_gpu) == tried
    assert set(auto_engine._to_try(None, on_gpu)) == set(auto_engine._ON_GPU if on_gpu else auto_engine._ON_CPU)


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


def test_a_rejected_candidate_is_not_said_to_be_kept(run: Path, data: Path, tmp_path: Path) -> None:
    impossible = replace(SETTINGS, limits=Limits(agreement=1.1))
    with pytest.raises(VerificationError, match=r"onnx fp32: .*agree") as refused:
        export_fastest(run, data, impossible, ["fp32"], tmp_path / "out")
    assert "kept under this name" not in str(refused.value) and ".rejected" not in str(refused.value)


def test_a_choice_that_no_longer_passes_is_measured_again(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_engine, "_ON_CPU", (("onnx", "fp32"),))
    _, kept = export_fastest(run, data, SETTINGS, None, tmp_path / "out")
    store_choice(kept.model_copy(update={"tried": (TriedEngine(engine="trt", precision="fp16", latency_ms=1.0),)}))
    exported, found = export_fastest(run, data, SETTINGS, None, tmp_path / "out")
    assert (exported.manifest.engine, found.chosen.engine) == ("onnx", "onnx")
    assert [one.chosen.engine for one in stored_choices()] == ["onnx"]


def test_images_without_masks_have_a_choice_of_their_own(run: Path, data: Path) -> None:
    """Without masks no 8-bit artifact can pass, so a choice that was made with them says nothing."""
    metadata, settings = read_metadata(run / "junior.safetensors"), ExportSettings()
    with_masks = real_images(metadata, data, None, 1, 1)
    source = str(with_masks.verification[0].image)
    without = real_images(metadata, data, source, 1, 1)
    keys = [auto_engine._key(settings, None, images) for images in (with_masks, without)]
    assert keys[0] != keys[1]


def test_a_size_that_cannot_be_is_refused_once(command: CommandLine, run: Path, data: Path, tmp_path: Path) -> None:
    finished = command("export", run, "--data", data, "--engine", "auto", "--size", 50, "--out", tmp_path / "out")
    assert finished.code == 2, finished
    errors = [line for line in finished.err.splitlines() if not line.startswith("trying ")]
    assert len(errors) == 1 and errors[0].count("multiple") == 1, finished


def test_where_no_library_uses_the_gpu_the_cpus_engines_are_tried(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver is there, and ONNX Runtime finds no CUDA library: it takes the CPU."""
    monkeypatch.setattr(auto_engine, "cuda_obstacle", lambda: "")
    monkeypatch.setattr(auto_engine, "_ON_GPU", (("onnx", "fp32"), ("trt", "fp16")))
    monkeypatch.setattr(auto_engine, "_ON_CPU", (("onnx", "fp32"), ("openvino", "fp32")))
    _, found = export_fastest(run, data, SETTINGS, None, tmp_path / "out")
    assert {(one.engine, one.precision) for one in found.tried} == {
        ("onnx", "fp32"),
        ("trt", "fp16"),
        ("openvino", "fp32"),
    }
    assert found.chosen.threads is not None


def test_an_artifact_that_runs_on_the_gpu_counts_though_the_cpu_verified_it(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_gpu(path: Path, *arguments: Any, **named: Any) -> Predictor:
        predictor = load(path, *arguments, **named)
        predictor._runner.description = "onnxruntime CUDAExecutionProvider"
        assert named.get("streams", 1) == 1, "streams are for the CPU"
        return predictor

    monkeypatch.setattr(auto_engine, "cuda_obstacle", lambda: "")
    monkeypatch.setattr(auto_engine, "load", on_gpu)
    monkeypatch.setattr(auto_engine, "_ON_GPU", (("onnx", "fp32"),))
    exported, found = export_fastest(run, data, SETTINGS, None, tmp_path / "out")
    assert exported.manifest.verification is not None
    assert "CPU" in exported.manifest.verification.ran_on
    assert [(one.engine, one.precision) for one in found.tried] == [("onnx", "fp32")]
    assert (found.chosen.threads, found.streams) == (None, 1)


@pytest.mark.parametrize("error", [ArtifactError("cannot load it"), SegKCError("CUDA failed while allocating")])
def test_an_engine_that_fails_in_any_way_does_not_cost_the_others(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: SegKCError
) -> None:
    def failing(*arguments: Any, **named: Any) -> object:
        if arguments[2].engine == "openvino":
            raise error
        return export_run(*arguments, **named)

    monkeypatch.setattr(auto_engine, "_ON_CPU", (("onnx", "fp32"), ("openvino", "fp32")))
    monkeypatch.setattr(auto_engine, "export_run", failing)
    exported, found = export_fastest(run, data, SETTINGS, None, tmp_path / "out")
    assert exported.path.is_file()
    assert [one.rejected for one in found.tried] == ["", str(error)]
    with pytest.raises(DataError, match="no such image"):  # no other engine mends that
        export_fastest(run, data, SETTINGS, ["fp32"], tmp_path / "out", "nowhere")


def test_a_user_without_a_home_has_a_cache_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"segkc-deploy-{os.getuid()}"
    assert cache_folder("a") == folder / "segkc-deploy" / "a"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert stored_choices() == []


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
