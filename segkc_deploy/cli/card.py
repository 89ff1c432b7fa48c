"""`segkc-deploy card`: a model card of a run or an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segkc_deploy.cli.app import app

if TYPE_CHECKING:
    from segkc_deploy.sharing.card_facts import LatencyFacts


@app.command("card")
def card_command(
    target: Annotated[Path, typer.Argument(help="A run directory, or an artifact.")],
    license_name: Annotated[
        str, typer.Option("--license", help="License identifier, such as apache-2.0, cc-by-4.0 or other.")
    ],
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="README.md beside the target")] = None,
    name: Annotated[str | None, typer.Option(help="Title.", show_default="the target's name")] = None,
    dataset: Annotated[str, typer.Option(help="What the data is called.")] = "own data",
    data: Annotated[
        Path | None, typer.Option(help="Data spec (YAML) of the training.", show_default="a run's own")
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="What `eval --json` wrote.", metavar="JSON")] = None,
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="A benchmark.json with the artifact's latency; repeatable.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="Markdown on intended use and limits, to be added.")] = None,
    repo: Annotated[str | None, typer.Option(help="The hub's repository, OWNER/NAME, for the instructions.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a model card: what a network is, what it was trained on, how good and how fast it is, and its limits.

    Example: `segkc-deploy card junior-fp32.onnx --license apache-2.0 --scores eval.json --dataset CamVid`

    Markdown with the YAML front matter that Hugging Face reads. What was not measured is said to be so.
    """
    from segkc_deploy import atomic
    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.errors import ConfigError
    from segkc_deploy.sharing.card_facts import artifact_facts, data_facts, read_scores
    from segkc_deploy.sharing.model_card import Card, card_text

    path = out or (target / "README.md" if target.is_dir() else target.with_name("README.md"))
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: exists; choose another --out, or add --overwrite")
    if target.is_dir():
        with needs_extra("train"):
            from segkc_deploy.training.card_facts import run_facts
        network, own_data = run_facts(target)
        data = data or (own_data if own_data is not None and own_data.is_file() else None)
    else:
        network = artifact_facts(target)
    try:
        added = limits.read_text(encoding="utf-8") if limits else ""
    except UnicodeDecodeError as error:
        raise ConfigError(f"{limits}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    measured = read_scores(scores, network) if scores else None
    card = Card(
        network=network,
        name=name or (network.file if target.is_dir() else target.stem),
        license=license_name,
        dataset=dataset,
        data=data_facts(data, network.labels) if data else None,
        scores=measured,
        latency=[latency for file in benchmark or () for latency in _latency(file, target, network.weights_sha256)],
        limits=added,
        repo=repo,
    )
    atomic.write_text(path, card_text(card))
    typer.echo(path)


def _latency(file: Path, target: Path, weights_sha256: str) -> "list[LatencyFacts]":
    """Return the latencies of the target in a benchmark: of its name and weights, since most exports have one name."""
    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.errors import ConfigError
    from segkc_deploy.sharing.card_facts import LatencyFacts

    with needs_extra("benchmark"):
        from segkc_deploy.benchmarks.store.result_file import read_result

    result = read_result(file)
    named = [row for row in result.rows if Path(row.target).name == target.resolve().name and row.role != "senior"]
    rows = [row for row in named if row.about.get("weights_sha256") == weights_sha256]
    found = [
        LatencyFacts(total.p50, total.p90, total.p99, row.size, row.machine or _machine(result.machine))
        for row in rows
        if row.latency is not None
        for total in [row.latency.total]
    ]
    if not found:
        what = f"its {target.name} has other weights" if named and not rows else f"has no latency of {target.name}"
        raise ConfigError(f"{file}: {what}; benchmark this target")
    return found


def _machine(machine: dict[str, object]) -> str:
    gpus = machine.get("gpus")
    names = [str(gpu.get("name")) for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    return ", ".join([str(machine.get("cpu")), *names])
