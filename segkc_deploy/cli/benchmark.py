"""`segkc-deploy benchmark`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from segkc_deploy.cli.app import app


@app.command()
def benchmark(
    targets: Annotated[
        list[Path] | None, typer.Argument(help="Run directories (their senior and junior in PyTorch) and artifacts.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data spec; its validation images are scored and timed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; finished rows in it are kept.")] = None,
    suite: Annotated[
        Path | None, typer.Option(help="YAML file with targets and options; the command line overrides it.")
    ] = None,
    batches: Annotated[str | None, typer.Option(help="Batch sizes of the throughput. [default: 1,2,4,8]")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Time to measure each latency for; the warm-up may take twice that. [default: 5]"),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Number of runs to measure instead of a time.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: auto]")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of one inference.")] = None,
    images: Annotated[
        int | None, typer.Option(help="Validation images to cycle through when timing. [default: 32]")
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Successive images drawn together for the intervals of mIoU. [default: 1]")
    ] = None,
    sustained: Annotated[
        float | None,
        typer.Option(help="Seconds of load without pauses, for throughput and energy; 0 skips it. [default: 60]"),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=0, help="Rounds of the interleaved timing of rows and baselines; 0 skips it. [default: 30]"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure the finished rows in --out again.")] = False,
    baseline: Annotated[Path | None, typer.Option(help="An earlier benchmark.json to compare with.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Exit with code 1 if true of a row: 'latency.p50 > 1.1x', 'miou < -0.5', 'miou < 60'."),
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option("--pictures/--no-pictures", help="Show validation images in the report. [default: pictures]"),
    ] = None,
    list_metrics: Annotated[
        bool, typer.Option("--list-metrics", help="List the metrics for --fail-if and exit.")
    ] = False,
) -> None:
    """Measure mIoU, latency, throughput, memory and size of networks and artifacts, and write a report.

    Example: `segkc-deploy benchmark runs/a runs/a/junior-fp32.onnx --data data.yaml --out report`
    """
    from segkc_deploy.cli.extras import needs_extra

    if list_metrics:
        _list_metrics()
        raise typer.Exit
    with needs_extra("benchmark"):
        from segkc_deploy.benchmarks.suite import Benchmark
    from segkc_deploy.benchmarks.interleaved.timing import ROUNDS
    from segkc_deploy.benchmarks.options import Suite, read_suite
    from segkc_deploy.benchmarks.regression.regression_gate import read_gate
    from segkc_deploy.benchmarks.report.summary import interleaved_lines, summary

    asked = read_suite(suite) if suite else Suite()
    options = _options(
        asked.options,
        batches=_batches(batches),
        seconds=seconds,
        samples=samples,
        device=device,
        threads=threads,
        images=images,
        block=block,
        sustained=sustained,
    )
    gate = read_gate(fail_if or asked.fail_if, baseline or asked.baseline)
    targets, data = _needed("targets", targets or asked.targets, suite), _needed("--data", data or asked.data, suite)
    out = _needed("--out", out or asked.out, suite)
    result = Benchmark(
        targets,
        data,
        out,
        options,
        names=asked.names,
        rounds=_first(rounds, asked.rounds, ROUNDS),
        fresh=fresh,
        gate=gate,
        pictures=_first(pictures, asked.pictures, True),
    ).run()
    for sentence in summary(result):
        typer.echo(sentence)
    for line in interleaved_lines(result.interleaved) if result.interleaved else ():
        typer.echo(line)
    typer.echo(out / "index.html")
    passed = gate is None or _passes(gate, result)
    if result.failures or not passed:
        raise typer.Exit(1)


def _options(suite: dict[str, Any], **given: Any) -> Any:
    """Return the options of the command line over those of the suite over the defaults."""
    from pydantic import ValidationError

    from segkc_deploy.benchmarks.options import MeasureOptions

    try:
        return MeasureOptions(**suite | {name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{first['input']}: {first['msg']}", param_hint=f"--{first['loc'][0]}") from None


def _batches(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sizes = [size.strip() for size in text.split(",")]
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise typer.BadParameter(
            f"{text!r}: write sizes of 1 or more with commas between, 1,2,4", param_hint="--batches"
        )
    return tuple(map(int, sizes))


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _needed(name: str, value: Any, suite: Path | None) -> Any:
    """Return `value`, which the command line or the suite has to give."""
    from segkc_deploy.errors import ConfigError

    if not value:
        missing = f"{suite}: has no {name.lstrip('-')}; add them there, or" if suite else f"{name} missing:"
        raise ConfigError(f"{missing} give {name} on the command line" + ("" if suite else ", or a --suite with them"))
    return value


def _passes(gate: Any, result: Any) -> bool:
    from segkc_deploy.progress import console

    for name in gate.not_compared(result):
        console.print(f"gate: {name}: not in the baseline, so not compared", soft_wrap=True, markup=False)
    for line in gate.unreliable(result):
        console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)
    violations = gate.violations(result)
    for line in violations:
        console.print(f"gate: {line}", style="red", soft_wrap=True, markup=False)
    if not violations:
        console.print("gate: passed", soft_wrap=True)
    return not violations


def _list_metrics() -> None:
    from segkc_deploy.benchmarks.regression.row_metrics import row_metrics

    for name, metric in row_metrics(["<class>"], ["<batch>"]).items():
        typer.echo(f"{name}{metric.unit and f'  ({metric.unit.strip()})'}")
