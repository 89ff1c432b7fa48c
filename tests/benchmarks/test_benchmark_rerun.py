"""A rerun keeps what is done: rows are killed one by one, and the report ends as if nothing had happened."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import yaml
from command_line import CommandLine
from tiny_artifact import make_artifact, write_val_images

import segkc_deploy
from segkc_deploy.benchmarks import suite
from segkc_deploy.benchmarks.measure import worker
from segkc_deploy.benchmarks.measure.worker import RowJob, measure
from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.roofline.peaks import MeasuredPeaks
from segkc_deploy.benchmarks.schema import BenchmarkResult, Peak
from segkc_deploy.benchmarks.store import identity as row_identity_module
from segkc_deploy.benchmarks.store.identity import row_identity, shared_conditions
from segkc_deploy.benchmarks.suite import Benchmark
from segkc_deploy.benchmarks.targets import plan
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, RunDirectoryError

SIZE = (16, 24)
QUICK = MeasureOptions(batches=(1,), samples=1, seconds=0.01, device="cpu", threads=1, images=1, sustained=0)
NAMES = ["run junior", "first.onnx", "second.onnx"]

#: What no two measurements have in common, as (part of a result or row, what is put there).
TIMES: dict[str, Any] = {
    "created": "", "command": "", "measured": "", "latency": None, "throughput": [], "memory": {}, "cold_start_s": 0.0,
    "state": {}, "roofline": None, "peaks": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_val_images(tmp_path_factory.mktemp("data"), size=SIZE)


class Here:
    """Stands in for the process that measures a row: does the same here, or is killed. Counts what it measures.

    A run's junior is an artifact of another size, so that the artifacts agree with it but in part.
    """

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.artifacts = [make_artifact(self.run, name, size=SIZE) for name in ("first.onnx", "second.onnx")]
        self._junior = make_artifact(folder / "small", size=(8, 12))
        (self.run / "junior.safetensors").write_bytes(b"weights")
        self.targets = [self.run, *self.artifacts]
        self.measured: list[str] = []
        self.killed_at = self.failing = ""
        self.peaks_measured = 0

    def measure_peaks(self, wanted: Any, threads: int | None, seconds: float) -> MeasuredPeaks:
        self.peaks_measured += 1
        peak = Peak(device="cpu", precision="fp32", threads=threads, gflops=100, copy_gb_per_s=10, how="made up")
        return MeasuredPeaks(peaks=[peak], notes=["made-up peaks"])

    def run_worker(
        self, module: str, job: RowJob, folder: Path, environment: dict[str, str]
    ) -> tuple[Path, str | None]:
        if job.name == self.killed_at:
            raise KeyboardInterrupt
        self.measured.append(job.name)
        row_file = folder / "measured.json"
        if job.name == self.failing:
            return row_file, "out of memory"
        target = self._junior if job.role == "junior" else job.target
        measured = measure(job.model_copy(update={"role": "artifact", "target": target}), row_file)
        measured = measured.model_copy(update={"role": job.role, "target": str(job.target)})
        row_file.write_text(measured.model_dump_json())
        return row_file, None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here(tmp_path)
    monkeypatch.setattr(suite, "run_worker", made.run_worker)
    monkeypatch.setattr(suite, "measure_peaks", made.measure_peaks)
    # Without the page, which takes a second to draw.
    monkeypatch.setattr(suite, "write_report", lambda result, out, **how: result.write(out / "benchmark.json"))
    monkeypatch.setattr(row_identity_module, "_code", lambda: "of this test")  # somebody may be editing it
    return made


Stored = dict[str, Any]


def without_times(out: Path) -> Stored:
    """Return `benchmark.json` without what differs from run to run."""

    def stripped(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: TIMES.get(key, stripped(value)) for key, value in part.items()}
        return [stripped(item) for item in part] if isinstance(part, list) else part

    found: Stored = stripped(json.loads((out / "benchmark.json").read_text()))
    return found


def pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "pictures").iterdir()}


@pytest.mark.parametrize("killed", range(len(NAMES)))
def test_killed_at_any_row_that_row_alone_is_lost(here: Here, data: Path, tmp_path: Path, killed: int) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    Benchmark(here.targets, data, whole, QUICK).run()
    assert here.measured == NAMES

    here.killed_at, here.measured = NAMES[killed], []
    with pytest.raises(KeyboardInterrupt):
        Benchmark(here.targets, data, resumed, QUICK).run()
    if killed:
        stored = BenchmarkResult.model_validate_json((resumed / "benchmark.json").read_bytes())
        assert [row.name for row in stored.rows] == NAMES[:killed]

    here.killed_at, here.measured = "", []
    Benchmark(here.targets, data, resumed, QUICK).run()
    assert here.measured == NAMES[killed:]
    result = without_times(resumed)
    assert result == without_times(whole)
    assert 0 < result["rows"][1]["accuracy"]["agreement"] < 100
    assert result["rows"][1]["accuracy"]["agreement_with"] == "run junior"
    assert pictures(resumed) == pictures(whole)
    assert len(pictures(resumed)) == 3 * (2 + len(NAMES))


def test_a_second_benchmark_of_the_same_folder_is_refused(here: Here, data: Path, tmp_path: Path) -> None:
    first = Benchmark(here.targets, data, tmp_path / "out", QUICK)
    with first._store.lock(), pytest.raises(RunDirectoryError, match=r"out/rows: in use by .*choose another --out"):
        Benchmark(here.targets, data, tmp_path / "out", QUICK).run()
    assert here.measured == []
    Benchmark(here.targets, data, tmp_path / "out", QUICK).run()
    assert here.measured == NAMES


def test_the_page_of_trainings_is_not_replaced(here: Here, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/trainings.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a report of trainings, whose page would be lost"):
        Benchmark(here.targets, data, tmp_path / "out", QUICK)


def rerun(here: Here, data: Path, out: Path, options: MeasureOptions = QUICK, **more: Any) -> list[str]:
    """Return the names of the rows that a benchmark measures."""
    here.measured = []
    Benchmark(here.targets, data, out, options, **more).run()
    return here.measured


def test_a_finished_benchmark_measures_nothing(
    here: Here, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert rerun(here, data, tmp_path / "out") == NAMES
    capfd.readouterr()
    assert rerun(here, data, tmp_path / "out") == []
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(", measured ")[0] for line in lines] == [f"Keeping {name}" for name in NAMES]
    assert here.peaks_measured == 1
    stored = json.loads((tmp_path / "out/benchmark.json").read_text())
    assert ([peak["gflops"] for peak in stored["peaks"]], stored["notes"]) == ([100], ["made-up peaks"])
    assert all(row["roofline"]["efficiency"] > 0 for row in stored["rows"])
    assert rerun(here, data, tmp_path / "out", fresh=True) == NAMES
    assert here.peaks_measured == 2


def test_what_changed_is_measured_again(
    here: Here, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    rerun(here, data, out)

    make_artifact(here.run, "second.onnx", size=SIZE, precision="fp16")
    assert rerun(here, data, out) == ["second.onnx"]
    (here.run / "junior.safetensors").write_bytes(b"other weights")
    assert rerun(here, data, out) == ["run junior"]

    next((out / "rows").glob("*/masks/000002.png")).unlink()
    assert len(rerun(here, data, out)) == 1

    assert rerun(here, data, out, QUICK.model_copy(update={"batches": (1, 2)})) == NAMES
    monkeypatch.setattr(
        suite, "describe_machine", lambda: {"cpu": "another", "python": "3", "packages": {}, "gpus": []}
    )
    assert rerun(here, data, out, QUICK.model_copy(update={"batches": (1, 2)})) == NAMES
    assert len(list((out / "rows").glob("row-*"))) == len(NAMES)  # the others' are gone


def test_a_row_that_failed_is_tried_again(here: Here, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    here.failing = "run junior"
    rerun(here, data, out)
    stored = without_times(out)
    assert [row["name"] for row in stored["rows"]] == NAMES[1:]
    assert [failure["name"] for failure in stored["failures"]] == ["run junior"]
    assert stored["rows"][0]["accuracy"]["agreement"] is None

    # The artifacts are kept, and compared with the junior that is there now.
    here.failing = ""
    assert rerun(here, data, out) == ["run junior"]
    stored = without_times(out)
    assert stored["failures"] == []
    assert stored["rows"][1]["accuracy"]["agreement_with"] == "run junior"


def test_a_failed_benchmark_deletes_no_earlier_rows(here: Here, data: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", QUICK.model_copy(update={"images": 2})
    rerun(here, data, out)
    here.failing = NAMES[1]
    rerun(here, data, out, other)
    here.failing = ""
    assert rerun(here, data, out) == []
    assert rerun(here, data, out, other) == NAMES  # the earlier benchmark was complete, and kept its own rows alone


def test_a_new_name_costs_no_measurement(here: Here, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rerun(here, data, out)
    assert rerun(here, data, out, names={here.run: "ours", here.artifacts[0]: "INT8"}) == []
    assert [row["name"] for row in without_times(out)["rows"]] == ["ours junior", "INT8", "second.onnx"]
    with pytest.raises(ConfigError, match=r"two rows are called 'second\.onnx'"):
        plan(here.targets, {here.artifacts[0]: "second.onnx", here.artifacts[1]: "second.onnx"})


def test_identities(here: Here, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the figures depend on is in a row's identity."""
    copied = tmp_path / "copy"
    shutil.copytree(data.parent, copied)
    (row, *_), _ = plan(here.targets)

    def identity(options: object = "a", machine: object = "a", version: str = "1") -> str:
        sets = load_data_spec(copied / "data.yaml").resolve()
        shared = shared_conditions(sets, {"any": options}, {"any": machine}, {"numpy": version})
        return row_identity(row, shared)

    first = identity()
    assert identity() == first
    different = {first, identity(options="b"), identity(machine="b"), identity(version="2")}
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    different.add(identity())
    mask = copied / "masks/1.png"
    cv2.imwrite(str(mask), np.zeros(SIZE, np.uint8))
    different.add(identity())
    spec = yaml.safe_load((copied / "data.yaml").read_text())
    (copied / "data.yaml").write_text(yaml.safe_dump(spec | {"label_mapping": {3: 255}}))
    different.add(identity())
    monkeypatch.setattr(row_identity_module, "_code", lambda: "after a change")
    different.add(identity())
    assert len(different) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"label_mapping": {"car": 1}},
        {"mask_values": "colors"},
        {"ignore_colors": [[1, 2, 3]]},
        {"bands": 4},
        {"bits": 16},
    ],
)
def test_all_that_masks_and_images_are_read_by_counts(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = yaml.safe_load(data.read_text()) | {"root": str(data.parent)}
    spec["classes"] = {name: [index, 0, 0] for index, name in enumerate(spec["classes"])}
    found = []
    for content in (spec, spec | changes):
        (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
        found.append(shared_conditions(load_data_spec(tmp_path / "data.yaml").resolve(), {}, {}, {})["data"])
    assert found[0] != found[1]


def test_a_report_without_pictures_leaves_none_of_an_earlier_one(here: Here, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rerun(here, data, out)
    assert list((out / "pictures").iterdir())
    (out / "pictures" / "mine.jpg").write_bytes(b"mine")
    Benchmark(here.targets, data, out, QUICK, pictures=False).run()
    assert [path.name for path in (out / "pictures").iterdir()] == ["mine.jpg"]


def test_images_whose_names_are_not_utf8_are_in_the_report(here: Here, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data.parent, tmp_path / "copy")
    for folder in ("images", "masks"):
        (tmp_path / "copy" / folder / "1.png").rename(tmp_path / "copy" / folder / os.fsdecode(b"caf\xe9.png"))
    rerun(here, tmp_path / "copy" / "data.yaml", tmp_path / "out")
    stored = BenchmarkResult.model_validate_json((tmp_path / "out" / "benchmark.json").read_bytes())
    assert stored.rows[0].accuracy is not None
    assert set(stored.rows[0].accuracy.image_miou) == {"0", "2", "caf\\udce9"}
    assert "caf\\udce9" in {comparison.id for comparison in stored.comparisons}


def test_a_batch_that_takes_too_much_memory_costs_its_own_figures_alone(
    here: Here, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.measure_batch

    def out_of_memory(predictor: Any, images: Any, batch: int, *others: Any) -> Any:
        if batch == 2:
            raise RuntimeError("CUDA out of memory.\nTried to allocate 1 GiB.")
        return real(predictor, images, batch, *others)

    monkeypatch.setattr(worker, "measure_batch", out_of_memory)
    rerun(here, data, tmp_path / "out", QUICK.model_copy(update={"batches": (1, 2, 4)}))
    stored = BenchmarkResult.model_validate_json((tmp_path / "out" / "benchmark.json").read_bytes())
    for row in stored.rows:
        assert [(point.batch, point.error) for point in row.throughput] == [
            (1, None),
            (2, "CUDA out of memory."),
            (4, None),
        ]
        assert row.parameters and row.file_bytes


def test_the_code_counts_with_that_behind_the_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("segkc_deploy/cli", "segkc_deploy/data", "benchmarks/measure"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "segkc_deploy/benchmarks").symlink_to("../benchmarks")
    monkeypatch.setattr(segkc_deploy, "__file__", str(tmp_path / "segkc_deploy/__init__.py"))
    seen = {row_identity_module._code()}
    for file in ("segkc_deploy/__init__.py", "segkc_deploy/data/masks.py", "benchmarks/measure/worker.py"):
        (tmp_path / file).write_text("pass")
        seen.add(row_identity_module._code())
    assert len(seen) == 4
    (tmp_path / "segkc_deploy/cli/benchmark.py").write_text("pass")
    assert row_identity_module._code() in seen


# --- the processes themselves


def worker_of(benchmark: psutil.Process) -> psutil.Process | None:
    """Return the process that measures a row right now."""
    for child in benchmark.children():
        with suppress(psutil.NoSuchProcess):  # it has ended since
            if "segkc_deploy.benchmarks.measure.worker" in child.cmdline():
                return child
    return None


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_for(what: Callable[[], Any]) -> Any:
    """Return the first true value of `what`, which has minutes on a busy machine."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("nothing happened")


def test_workers_and_benchmarks_are_killed(data: Path, tmp_path: Path, command: CommandLine) -> None:
    """The first row ends, the second one's process is killed, and with the third the benchmark itself."""
    artifacts = [make_artifact(tmp_path, f"{name}.onnx", size=SIZE) for name in "abc"]
    out = tmp_path / "out"
    options = ["--data", data, "--out", out, "--samples", 1, "--seconds", 0.01, "--batches", 1, "--device", "cpu"]
    options += ["--rounds", 1]
    options += ["--sustained", 0]
    arguments = [str(argument) for argument in (*artifacts, *options)]
    started = subprocess.Popen([sys.executable, "-m", "segkc_deploy", "benchmark", *arguments], stderr=subprocess.PIPE)
    benchmark = psutil.Process(started.pid)
    try:
        first = wait_for(lambda: worker_of(benchmark))
        second = wait_for(lambda: (found := worker_of(benchmark)) != first and found)
        second.kill()
        third = wait_for(lambda: (found := worker_of(benchmark)) not in (None, second) and found)
    finally:
        started.kill()
    _, told = started.communicate()
    assert b"b.onnx: its process ended with signal 9" in told
    wait_for(lambda: has_ended(third))  # nobody waits for it, and it ends all the same
    stored = json.loads((out / "benchmark.json").read_text())
    assert [row["name"] for row in stored["rows"]] == ["a.onnx"]
    assert [failure["name"] for failure in stored["failures"]] == ["b.onnx"]

    finished = command("benchmark", *arguments)
    assert finished.code == 0
    lines = [line.split(",")[0] for line in finished.err.splitlines() if line.startswith(("Keeping", "Measuring"))]
    rows_alone = [line for line in lines if line.endswith(".onnx")]  # the machine's peaks are measured too
    assert rows_alone == ["Keeping a.onnx", "Measuring b.onnx", "Measuring c.onnx"]
    rows = without_times(out)["rows"]
    assert [row["name"] for row in rows] == ["a.onnx", "b.onnx", "c.onnx"]
    assert rows[0]["accuracy"] == rows[1]["accuracy"] == rows[2]["accuracy"]
    timing = without_times(out)["interleaved"]
    assert (timing["reference"], timing["rounds"]) == ("a.onnx", 1)
    assert [(one["name"], one["same_masks"]) for one in timing["contenders"]] == [
        (f"{name}.onnx", 100) for name in "abc"
    ]
    assert [line for line in finished.out.splitlines() if line.startswith("Interleaved, 1 rounds")]

    # With nothing left to measure: the gate, by a suite.
    shutil.copy(out / "benchmark.json", tmp_path / "old.json")
    content = {
        "targets": ["*.onnx"], "data": os.path.relpath(data, tmp_path), "out": "out", "baseline": "old.json",
        "samples": 1, "seconds": 0.01, "batches": [1], "device": "cpu", "sustained": 0, "rounds": 1,
    }  # fmt: skip
    gated = tmp_path / "suite.yaml"
    gated.write_text(yaml.safe_dump(content | {"fail_if": ["latency.p50 > 0.5x", "miou < -0.5"]}))
    before = (out / "index.html").stat().st_mtime_ns
    finished = command("benchmark", *artifacts, "--suite", gated, "--data", data)
    assert finished.code == 1
    assert "Measuring" not in finished.err
    assert "Keeping the interleaved timing" in finished.err
    assert without_times(out)["interleaved"] == timing
    violations = [line for line in finished.err.splitlines() if line.startswith("gate: ")]
    assert [line.split()[1] for line in violations] == ["a.onnx:", "b.onnx:", "c.onnx:"]
    assert all("latency.p50 is" in line for line in violations)
    assert (out / "index.html").stat().st_mtime_ns > before
    finished = command("benchmark", *artifacts, "--suite", gated, "--data", data, "--fail-if", "miou < -0.5")
    assert finished.code == 0
    assert finished.err.splitlines()[-1] == "gate: passed"
    line = command.refused("benchmark", *artifacts, "--suite", gated, "--data", data, "--fail-if", "mIou < -0.5")
    assert "did you mean 'miou'" in line
