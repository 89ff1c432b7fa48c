"""Interleaved timing: known times are recovered, a lost contender does not affect the others, and no process stays."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from tiny_artifact import make_artifact, write_val_images

from segkc_deploy.benchmarks import suite
from segkc_deploy.benchmarks.interleaved import worker
from segkc_deploy.benchmarks.interleaved.contender_process import ContenderProcess
from segkc_deploy.benchmarks.interleaved.relative_speed import relative_speed
from segkc_deploy.benchmarks.interleaved.timing import (
    RUNS,
    ContenderTimes,
    PlannedContender,
    compare_times,
    measure_interleaved,
    plan_contenders,
    time_rounds,
)
from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.report.summary import interleaved_lines
from segkc_deploy.benchmarks.schema import InterleavedTiming, Role, Row
from segkc_deploy.benchmarks.store.masks import save_mask
from segkc_deploy.errors import MissingDependencyError

ROUNDS = 7

#: A contender of `NAME KIND MS LOG`: `clock` takes exactly MS by its own clock, times the round's number, since the
#: machine slows down; `sleep` takes MS by the real clock; `crash` ends in the third round. Each turn is logged.
CONTENDER = """
import os, sys, time
from types import SimpleNamespace
from segkc_deploy.benchmarks.interleaved import worker

name, kind, ms, log = sys.argv[1:]
clock = 100.0
real, runs = time.time, 0

def predict(image):
    global clock, runs
    number, runs = int(image[0, 0, 0]), runs + 1
    if kind == "clock":
        clock += float(ms) * (1 + number // 3) / 1e3
        if number % 3 == 0 and runs % 4 == 1:
            clock += 55.0  # caches are cold
    elif kind == "sleep":
        time.sleep(float(ms) / 1e3)
    elif number // 3 == 2:
        os.kill(os.getpid(), 9)
    print("a library says hello")
    os.write(1, b"and another\\n")
    if runs % 4 == 1:
        with open(log, "a") as file:
            file.write(f"{number // 3} {name}\\n")

if kind == "clock":
    worker.time = SimpleNamespace(
        perf_counter=lambda: clock, process_time=lambda: 0.0, sleep=lambda seconds: None
    )
images = [[[[number] * 3]] for number in range(200)]
import numpy as np
worker.serve(lambda: worker.ReadyContender(f"engine of {name}", predict, [np.array(i) for i in images]))
"""

NAMES = ("slow", "fast", "sleep 20", "sleep 80", "crash")


def planned(name: str, kind: Any = "row", **more: Any) -> PlannedContender:
    return PlannedContender(
        name, kind, "an engine", more.pop("role", "artifact"), more.pop("target", Path(name)), **more
    )


def process(script: str, *arguments: object, limit_s: float = 200) -> ContenderProcess:
    return ContenderProcess([sys.executable, "-c", script, *map(str, arguments)], dict(os.environ), limit_s)


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ContenderTimes], list[list[str]]]:
    """What the synthetic contenders gave, and for each round their names in the order in which they ran."""
    log = tmp_path_factory.mktemp("turns") / "log"
    kinds = {"slow": ("clock", 8), "fast": ("clock", 2), "sleep 20": ("sleep", 20), "sleep 80": ("sleep", 80)}
    with ExitStack() as ends:
        contenders = [process(CONTENDER, name, *kinds.get(name, ("crash", 0)), log) for name in NAMES]
        taken = time_rounds([ends.enter_context(contender) for contender in contenders], ROUNDS)
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    return taken, [[name for number, name in lines if int(number) == turn] for turn in range(ROUNDS)]


Turns = tuple[list[ContenderTimes], list[list[str]]]


def test_known_times_are_recovered(turns: Turns, tmp_path: Path) -> None:
    taken, _ = turns
    slow, fast, *_ = taken
    assert slow.rounds_ms == [pytest.approx([8 * (1 + turn)] * RUNS) for turn in range(ROUNDS)]
    assert fast.engine == "engine of fast"
    for name in NAMES:
        (tmp_path / name).mkdir()
        save_mask(tmp_path / name, 0, np.zeros((4, 5), np.uint8))
    result = compare_times([planned(name) for name in NAMES], taken, [tmp_path / name for name in NAMES], ROUNDS)
    assert (result.reference, result.rounds, result.runs) == ("slow", ROUNDS, RUNS)
    slow_contender, fast_contender, short, long, crashed = result.contenders
    # The machine became seven times slower meanwhile: that is in the times and not in the ratios.
    assert fast_contender.total is not None and slow_contender.total is not None
    assert (fast_contender.total.p50, fast_contender.total.max) == (pytest.approx(8), pytest.approx(14))
    assert fast_contender.speed == pytest.approx(4)
    assert fast_contender.speed_interval == pytest.approx((4, 4))
    assert fast_contender.speed_quartiles == pytest.approx((4, 4))
    assert (slow_contender.speed, slow_contender.speed_interval) == (1, (1, 1))
    assert fast_contender.total.samples == ROUNDS * RUNS
    # By the real clock, on a machine that may be busy.
    assert short.total is not None and long.total is not None
    assert short.total.p50 >= 20 and long.total.p50 >= 80
    assert crashed.total is None and crashed.speed is None and crashed.same_masks is None


def test_a_crash_loses_that_way_alone(turns: Turns) -> None:
    *others, crashed = turns[0]
    assert crashed.error == "its process ended with signal 9; out of memory is the usual cause"
    assert [contender.error for contender in others] == [None] * 4
    assert [len(contender.rounds_ms) for contender in others] == [ROUNDS] * 4


def test_the_order_is_drawn_anew_each_round(turns: Turns) -> None:
    rounds = [[name for name in names if name != "crash"] for names in turns[1]]
    assert all(sorted(names) == sorted(NAMES[:4]) for names in rounds)
    assert len({tuple(names) for names in rounds}) > ROUNDS / 2
    assert all(first != second for first, second in zip(turns[1], turns[1][1:], strict=False))


def test_why_a_way_does_not_get_ready() -> None:
    fails = "from segkc_deploy.benchmarks.interleaved.worker import serve\ndef ready():\n raise {}\nserve(ready)"
    user = "from segkc_deploy.errors import ConfigError\n" + fails.format("ConfigError('a.onnx: export it again')")
    for script, limit_s, told in (
        (user, 200, "a.onnx: export it again"),
        (fails.format("RuntimeError('\\n out of luck\\nat line 7')"), 200, "RuntimeError:  out of luck"),
        ("raise SystemExit(3)", 200, "its process ended with exit code 3; out of memory is the usual cause"),
        ("import time; time.sleep(300)", 0.3, "gave no answer within 0.3 seconds"),
    ):
        with process(script, limit_s=limit_s) as contender:
            assert contender.start().error == told


def test_a_way_ends_with_the_benchmark_even_while_it_gets_ready(tmp_path: Path) -> None:
    (tmp_path / "contender.py").write_text(
        "import os, sys, time\n"
        "from segkc_deploy.benchmarks.interleaved.worker import serve\n"
        "def ready():\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '\\n')\n"
        "    time.sleep(500)\n"
        "serve(ready)"
    )
    coordinator = (
        "import os, sys\nfrom segkc_deploy.benchmarks.interleaved.contender_process import ContenderProcess\n"
        f"ContenderProcess([sys.executable, {str(tmp_path / 'contender.py')!r}], os.environ, 500).start()"
    )
    started = subprocess.Popen([sys.executable, "-c", coordinator])
    try:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        contender = psutil.Process(int((tmp_path / "pid").read_text()))
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
    wait_for(lambda: not contender.is_running() or contender.status() == psutil.STATUS_ZOMBIE)


def wait_for(what: Callable[[], Any]) -> None:
    end = time.monotonic() + 200
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_a_way_answers_when_its_threads_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor time of one thread that spins for 100 ms, then of one that never stops."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(worker.time, "sleep", sleep)
    monkeypatch.setattr(worker.time, "perf_counter", lambda: now)
    monkeypatch.setattr(worker.time, "process_time", lambda: min(now, 0.1))
    worker._wait_until_idle()
    assert 0.1 <= now <= 0.15
    monkeypatch.setattr(worker.time, "process_time", lambda: now)
    with pytest.raises(worker.SpinningError, match="OMP_WAIT_POLICY"):
        worker._wait_until_idle()


# --- the ratios


def test_the_interval_is_that_of_the_exact_bootstrap_distribution() -> None:
    """The median of n draws from n values is at most the k-th smallest if more than half the draws are."""
    rounds = 31
    ratios = np.sort(np.random.default_rng(1).lognormal(size=rounds))
    at_most = [
        sum(
            math.comb(rounds, count) * (k / rounds) ** count * (1 - k / rounds) ** (rounds - count)
            for count in range(rounds // 2 + 1, rounds + 1)
        )
        for k in range(1, rounds + 1)
    ]
    found = relative_speed(ratios[:, None], np.ones((rounds, 1)))
    assert found.median == ratios[15]
    assert found.interval is not None
    for end, level in zip(found.interval, (0.025, 0.975), strict=True):
        # 2000 draws leave a standard error of 0.0035 in the level.
        places = [next(k for k in range(rounds) if at_most[k] >= level + off) for off in (-0.011, 0.011)]
        assert ratios[places[0]] <= end <= ratios[places[1]]


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    held, trials, rounds = 0, 300, 30
    for _ in range(trials):
        machine = rng.lognormal(sigma=0.5, size=(rounds, 1))
        reference, contender = (machine * rng.lognormal(np.log(ms), 0.1, (rounds, RUNS)) for ms in (30, 10))
        interval = relative_speed(reference, contender).interval
        assert interval is not None
        held += interval[0] <= 3 <= interval[1]
    assert 0.91 < held / trials < 0.985


def test_quartiles_and_an_interval_of_too_few_rounds() -> None:
    reference = np.array([[1.0, 2.0, 90.0], [4.0, 4.0, 4.0], [6.0, 5.0, 7.0], [8.0, 8.0, 1.0], [10.0, 10.0, 10.0]])
    found = relative_speed(reference, np.full((5, 3), 2.0))
    assert (found.median, found.quartiles) == (3, (2, 4))
    assert found.interval is None
    assert relative_speed(reference[:1], np.full((1, 3), 4.0)).interval is None
    assert relative_speed(np.tile(reference, (2, 1))[:6], np.full((6, 3), 2.0)).interval is not None


# --- what is compared with what


def row(name: str, role: Role = "artifact") -> Row:
    return Row(name=name, role=role, target=f"to/{name}", engine="its engine", precision="fp32", size=(8, 12))


def test_each_junior_has_baselines() -> None:
    assert plan_contenders([]) == plan_contenders([row("alone")]) == []
    contenders = plan_contenders(
        [row("a senior", "senior"), row("a junior", "junior"), row("int8"), row("b junior", "junior")]
    )
    assert [(contender.name, contender.kind, contender.baseline) for contender in contenders] == [
        ("a junior, PyTorch eager", "baseline", "eager"),
        ("a junior, torch.compile", "baseline", "compiled"),
        ("a junior, plain torch.onnx.export", "baseline", "plain export"),
        ("b junior, PyTorch eager", "baseline", "eager"),
        ("b junior, torch.compile", "baseline", "compiled"),
        ("b junior, plain torch.onnx.export", "baseline", "plain export"),
        ("a senior", "row", None),
        ("a junior", "row", None),
        ("int8", "row", None),
        ("b junior", "row", None),
    ]
    assert {contender.target for contender in contenders if contender.name.startswith("b junior")} == {
        Path("to/b junior")
    }


def test_the_reference_and_the_share_of_its_classes(tmp_path: Path) -> None:
    contenders = [
        planned("eager", "baseline", baseline="eager"),
        planned("compiled", "baseline", baseline="compiled"),
        planned("int8"),
    ]
    masks = np.zeros((3, 2, 5, 4), np.uint8)  # contender, image
    masks[1, 0, :2] = 1
    masks[2, 1, 0, :2] = 7
    folders = [tmp_path / contender.name for contender in contenders]
    for folder, images in zip(folders, masks, strict=True):
        folder.mkdir()
        for place, mask in enumerate(images):
            save_mask(folder, place, mask)
    taken = [ContenderTimes("engine", [[4.0] * RUNS for _ in range(6)]) for _ in contenders]
    result = compare_times(contenders, taken, folders, 6)
    assert result.reference == "eager"
    assert [contender.same_masks for contender in result.contenders] == [100, 80, 95]

    taken[0].error = "lost"
    result = compare_times(contenders, taken, folders, 6)
    assert result.reference == "int8"
    assert [contender.same_masks for contender in result.contenders] == [None, 75, 100]
    lines = interleaved_lines(result)
    assert "faster than int8" in lines[0]
    assert "eager: lost" in lines[1]
    assert lines[2].split() == ["4.00", "ms", "1.00×", "(1.00", "to", "1.00)", "compiled,", "engine"]
    for contender in taken:
        del contender.rounds_ms[2:]
    assert interleaved_lines(compare_times(contenders, taken, folders, 2))[2].split()[2:] == [
        "1.00×",
        "compiled,",
        "engine",
    ]

    for contender in taken:
        contender.error = "lost"
    result = compare_times(contenders, taken, folders, 6)
    assert [contender.error for contender in result.contenders] == ["lost"] * 3


def test_a_timing_is_kept_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, list[str]]] = []
    error: str | None = None

    def measure(contenders: list[PlannedContender], data: Path, rounds: int, options: object) -> InterleavedTiming:
        calls.append((rounds, [contender.name for contender in contenders]))
        measured = [{"name": one.name, "kind": one.kind, "engine": "e", "error": error} for one in contenders]
        return InterleavedTiming.model_validate(
            {"reference": contenders[-1].name, "rounds": rounds, "runs": RUNS, "contenders": measured}
        )

    monkeypatch.setattr(suite, "measure_interleaved", measure)
    data = write_val_images(tmp_path)
    targets = [make_artifact(tmp_path, f"{name}.onnx") for name in "ab"]

    def timing_of(rounds: int = 3, **options: Any) -> InterleavedTiming | None:
        names = dict(zip(targets, options.pop("names", ("a", "b")), strict=True))
        benchmark = suite.Benchmark(
            targets, data, tmp_path / "out", MeasureOptions(**options), names=names, rounds=rounds
        )
        benchmark.result.rows = [row(planned.name) for planned in benchmark.planned]
        benchmark.measure_interleaved()
        return benchmark.result.interleaved

    first = timing_of()
    assert first is not None and first.reference == "b"
    assert timing_of() == first
    renamed = timing_of(names=("a", "INT8"))
    assert renamed is not None
    assert (renamed.reference, [contender.name for contender in renamed.contenders]) == ("INT8", ["a", "INT8"])
    assert len(calls) == 1
    timing_of(rounds=4)
    timing_of(rounds=4, threads=1)
    assert len(calls) == 3
    assert len(list((tmp_path / "out/rows").iterdir())) == 1
    assert timing_of(rounds=0) is None
    # One that failed is tried again.
    error = "out of memory"
    timing_of(rounds=5)
    timing_of(rounds=5)
    assert len(calls) == 5


# --- the baselines themselves


def test_the_baselines_give_the_networks_masks(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from segkc_deploy.data.images import read_image
    from segkc_deploy.export.baselines import BASELINES
    from segkc_deploy.export.torch_runner import load_run_predictor

    # Traced as ever, but run by PyTorch's own kernels: compiling C++ takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    image = read_image(sorted((data.parent / "images" / "val").iterdir())[0])
    expected = load_run_predictor(run, device="cpu").predict(image)
    masks = {name: path(run, "cpu", 1).predict(image) for name, path in BASELINES.items()}
    for mask in masks.values():
        assert mask.shape == image.shape[:2]
        # They interpolate by plain bilinear weights and upsample logits instead of masks: borders may move.
        assert (mask == expected).mean() > 0.9
    assert (masks["compiled"] == masks["eager"]).mean() > 0.999


def test_without_a_compiler_nothing_is_compiled(run: Path) -> None:
    from torch._inductor import config, cpp_builder

    from segkc_deploy.export.baselines import CompiledBaseline

    cpp_builder.cpp_compiler_search.cache_clear()
    # Not by `monkeypatch`, after which these settings do not exist any more.
    without = config.patch({"cpp.cxx": ("no-such-compiler",)})
    with without, pytest.raises(MissingDependencyError, match=r"install g\+\+"):
        CompiledBaseline(run, "cpu", 1)
    cpp_builder.cpp_compiler_search.cache_clear()


def test_a_baseline_and_a_row_in_processes_of_their_own(run: Path, data: Path) -> None:
    contenders = [
        planned("eager", "baseline", role="junior", target=run, baseline="eager"),
        planned("junior", role="junior", target=run),
        planned("nothing", target=run / "nothing.onnx"),
    ]
    result = measure_interleaved(contenders, data, 2, MeasureOptions(device="cpu", threads=1, seconds=0.01))
    eager, junior, nothing = result.contenders
    assert result.reference == "eager"
    assert eager.total is not None and junior.total is not None
    assert eager.total.samples == junior.total.samples == 2 * RUNS
    assert eager.engine == junior.engine and "eager" in eager.engine
    assert junior.same_masks is not None and 90 < junior.same_masks <= 100
    assert junior.speed is not None and junior.speed > 0
    assert nothing.error is not None and "nothing.onnx" in nothing.error
