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
    out: Annotated[Path | None, typer.Option(help="Folder of the report; rows that are done there are kept.")] = None,
    suite: Annotated[
        Path | None, typer.Option(help="YAML file with targets and options; what the command line gives replaces its.")
    ] = None,
    batches: Annotated[str | None, typer.Option(help="Batch sizes of the throughput. [default: 1,2,4,8]")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.01, help="Time to measure each latency for; the warm-up may take twice that. [default: 5]"),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Runs to measure instead of a time.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda [default: auto]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Validation images to cycle through when timing. [default: 32]")
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(min=1, help="Successive images drawn together for the intervals of mIoU. [default: 1]"),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Turns of every row and of the juniors' baselines, timed in turn; 0 leaves it out. [default: 30]",
        ),
    ] = None,
    sustained: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds of load without pauses, for throughput and energy; 0 leaves it out. [default: 60]"
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure the rows that are done in --out again.")] = False,
    baseline: Annotated[Path | None, typer.Option(help="An earlier benchmark.json to compare with.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="End with exit code 1 if a row is so: 'latency.p50 > 1.1x', 'miou < -0.5', 'miou < 60'."),
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option("--pictures/--no-pictures", help="Show validation images in the report. [default: pictures]"),
    ] = None,
    figures: Annotated[bool, typer.Option("--figures", help="List the figures for --fail-if, and end.")] = False,
) -> None:
    """Measure mIoU, latency, throughput, memory and size of networks and artifacts, and write the report.

    Example: `segkc-deploy benchmark runs/a runs/a/junior-fp32.onnx --data data.yaml --out report`
    """
    from segkc_deploy.cli.extras import needs_extra

    if figures:
        _list_figures()
        raise typer.Exit
    with needs_extra("benchmark"):
        from segkc_deploy.benchmarks.suite import Options, run_benchmark
    from segkc_deploy.benchmarks.baseline_gate import read_gate
    from segkc_deploy.benchmarks.report.verdict import verdict
    from segkc_deploy.benchmarks.suite_file import Suite, read_suite
    from segkc_deploy.benchmarks.turns.in_turn import ROUNDS, in_turn_lines

    asked = read_suite(suite) if suite else Suite()
    given = {
        "batches": _batches(batches),
        "seconds": seconds,
        "samples": samples,
        "device": device,
        "threads": threads,
        "images": images,
        "block": block,
        "sustained": sustained,
    }
    options = Options(**asked.options | {name: value for name, value in given.items() if value is not None})
    turns = next((given for given in (rounds, asked.rounds) if given is not None), ROUNDS)
    shown = next((given for given in (pictures, asked.pictures) if given is not None), True)
    gate = read_gate(fail_if or asked.fail_if, baseline or asked.baseline)
    targets = _needed("targets", targets or asked.targets, suite)
    data, out = _needed("--data", data or asked.data, suite), _needed("--out", out or asked.out, suite)

    result = run_benchmark(
        targets,
        data,
        out,
        options,
        names=asked.names,
        rounds=turns,
        fresh=fresh,
        gate=gate,
        pictures=shown,
    )
    for sentence in verdict(result):
        typer.echo(sentence)
    for line in in_turn_lines(result.in_turn) if result.in_turn else ():
        typer.echo(line)
    typer.echo(out / "index.html")
    passed = gate is None or _passes(gate, result)
    if result.failures or not passed:
        raise typer.Exit(1)


def _batches(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sizes = [size.strip() for size in text.split(",")]
    if not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise typer.BadParameter(
            f"{text!r}: write sizes of 1 or more with commas between, 1,2,4", param_hint="--batches"
        )
    return tuple(sorted({int(size) for size in sizes}))


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
        console.print(f"gate: {name}: is not in the baseline, so it is not compared", soft_wrap=True, markup=False)
    violations = gate.violations(result)
    for line in violations:
        console.print(f"gate: {line}", style="red", soft_wrap=True, markup=False)
    if not violations:
        console.print("gate: passed", soft_wrap=True)
    return not violations


def _list_figures() -> None:
    from segkc_deploy.benchmarks.row_figures import row_figures

    for name, figure in row_figures(["<class>"], ["<batch>"]).items():
        typer.echo(f"{name}{figure.unit and f'  ({figure.unit.strip()})'}")
