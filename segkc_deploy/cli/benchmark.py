"""`segkc-deploy benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command()
def benchmark(
    targets: Annotated[
        list[Path], typer.Argument(help="Run directories (their senior and junior in PyTorch) and artifacts.")
    ],
    data: Annotated[Path, typer.Option(help="Data spec; its validation images are scored and timed.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    batches: Annotated[str, typer.Option(help="Batch sizes of the throughput.")] = "1,2,4,8",
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Time to measure each latency for; the warm-up may take twice that.")
    ] = 5.0,
    samples: Annotated[int | None, typer.Option(min=1, help="Runs to measure instead of a time.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Validation images to cycle through when timing.")] = 32,
) -> None:
    """Measure mIoU, latency, throughput, memory and size of networks and artifacts, and write the report.

    Example: `segkc-deploy benchmark runs/a runs/a/junior-fp32.onnx --data data.yaml --out report`
    """
    from segkc_deploy.cli.extras import needs_extra

    with needs_extra("benchmark"):
        from segkc_deploy.benchmarks.suite import Options, run_benchmark
    from segkc_deploy.benchmarks.verdict import verdict

    options = Options(_batches(batches), seconds, samples, device, threads, images)
    result = run_benchmark(targets, data, out, options)
    for sentence in verdict(result):
        typer.echo(sentence)
    typer.echo(out / "index.html")
    if result.failures:
        raise typer.Exit(1)


def _batches(text: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.split(",")]
    if not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise typer.BadParameter(
            f"{text!r}: write sizes of 1 or more with commas between, 1,2,4", param_hint="--batches"
        )
    return tuple(sorted({int(size) for size in sizes}))
