"""`segkc-deploy eval`: the scores of an artifact or of a run's network on validation images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segkc_deploy.cli.app import app

if TYPE_CHECKING:
    from segkc_deploy.data.samples import ImageSets
    from segkc_deploy.evaluation import Evaluation
    from segkc_deploy.manifest import Contract


@app.command("eval")
def eval_command(
    target: Annotated[Path, typer.Argument(help="An artifact, or a run directory.")],
    data: Annotated[Path, typer.Option(help="Data spec (YAML) whose validation images are scored.")],
    role: Annotated[Literal["junior", "senior"], typer.Option(help="Which network of a run directory.")] = "junior",
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        typer.Option(help="Where it runs; tensorrt is ONNX Runtime's provider."),
    ] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the metrics to this file.")] = None,
    block: Annotated[
        int, typer.Option(min=1, help="Successive images drawn together for the interval of mIoU: 10 for a video's.")
    ] = 1,
) -> None:
    """Print IoU, boundary IoU, precision and recall of each class, mIoU with its 95% interval, and pixel accuracy.

    Example: `segkc-deploy eval junior-fp32.onnx --data data.yaml`
    """
    import json

    from segkc_deploy import atomic
    from segkc_deploy.benchmarks.measure.miou_interval import RESAMPLES, SEED, miou_interval
    from segkc_deploy.data.screening import screen
    from segkc_deploy.data.spec import load_data_spec

    sets = load_data_spec(data).resolve()
    screen(sets)
    score = _score_run if target.is_dir() else _score_artifact
    evaluation, protocol, ran_on = score(target, role, data, sets, device)
    facts = {"target": str(target), "role": role, "data": str(data), "protocol": protocol, "ran_on": ran_on}
    interval = miou_interval(evaluation.image_counts, block)
    drawn = {"resamples": RESAMPLES, "resampling_seed": SEED, "resampling_block": block}
    _print_scores(target, evaluation)
    if interval is not None:
        together = f", {block} successive ones together" if block > 1 else ""
        bootstrap = f"bootstrap over images{together}, {RESAMPLES} resamples, seed {SEED}"
        typer.echo(f"mIoU, 95% interval: {interval[0]:.2f} to {interval[1]:.2f} ({bootstrap})")
    typer.echo(f"protocol: {protocol}")
    typer.echo(f"ran on: {ran_on}")
    typer.echo(f"compared at: {evaluation.resolution}")
    typer.echo(f"rule: {evaluation.scores.rule}")
    typer.echo(f"boundary IoU: {evaluation.boundary.rule}")
    if json_file is not None:  # last: a file that cannot be written costs no score
        facts["weights_sha256"] = _weights_sha256(target, role)
        metrics = facts | evaluation.to_json() | {"miou_interval": interval} | drawn
        atomic.write_text(json_file, json.dumps(metrics, indent=2) + "\n")


def _score_run(target: Path, role: str, data: Path, sets: "ImageSets", device: str) -> tuple["Evaluation", str, str]:
    """Score a run's network as its training did: by the recipe's protocol."""
    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.labels import require_same_classes

    with needs_extra("train"):
        from segkc_deploy.training.evaluation.evaluate_run import class_names, evaluate_run

    require_same_classes(class_names(target, role), sets.labels.names, target, data)
    scored = evaluate_run(target, role, sets, device)
    return scored.evaluation, scored.protocol, scored.ran_on


def _score_artifact(
    target: Path, role: str, data: Path, sets: "ImageSets", device: str
) -> tuple["Evaluation", str, str]:
    """Score an artifact as a device runs it: at its own input size, the mask resized to the image's."""
    from segkc_deploy.errors import ConfigError
    from segkc_deploy.evaluation import evaluate
    from segkc_deploy.labels import require_same_classes
    from segkc_deploy.pixel_format import require_same_format
    from segkc_deploy.predictor import load

    if role != "junior":
        raise ConfigError(f"{target}: an artifact holds the junior alone; give the run directory for --role {role}")
    with load(target, device) as predictor:
        require_same_classes(predictor.labels.names, sets.labels.names, target, data)
        require_same_format(predictor.contract.pixels, sets.pixels, target, data)
        evaluation = evaluate(predictor.predict, sets, f"Evaluating {target.name}")
        return evaluation, _protocol(predictor.contract), predictor.description


def _weights_sha256(target: Path, role: str) -> str:
    """Return the digest of the file that training wrote of the network, by which a model card knows its scores."""
    from segkc_deploy.manifest import read_manifest, sha256_of

    if target.is_dir():
        return sha256_of(target / f"{role}.safetensors")
    return read_manifest(target).source.weights_sha256


def _protocol(contract: "Contract") -> str:
    """Say at which size an artifact sees an image, and how its result comes to the image's own."""
    height, width = contract.size
    seen = f"{width}×{height} (width × height)"
    if contract.size_multiple is not None:
        seen = f"the multiple of {contract.size_multiple} closest to each of its sides"
    what = "logits" if any(output.name == "logits" for output in contract.outputs) else "masks"
    return f"the artifact's own: the whole image resized to {seen}; {what} resized to the image's own size"


def _print_scores(target: Path, evaluation: "Evaluation") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{target}: {evaluation.images} images", title_justify="left")
    table.add_column("class")
    metrics = evaluation.to_json()
    # Where one is undefined: a class in neither truth nor prediction, one never predicted, one not in the truth.
    undefined = {"iou": "absent", "boundary_iou": "absent", "precision": "–", "recall": "–"}
    for title in ("IoU %", "boundary IoU %", "precision %", "recall %"):
        table.add_column(title, justify="right")
    for name in evaluation.labels.names:
        values = ((metrics[metric][name], text) for metric, text in undefined.items())
        table.add_row(name, *(text if value is None else f"{value:.2f}" for value, text in values))
    table.add_section()
    table.add_row("mIoU", f"{evaluation.scores.miou:.2f}", f"{evaluation.boundary.miou:.2f}", style="bold")
    table.add_row("pixel accuracy", f"{evaluation.scores.pixel_accuracy:.2f}")
    Console(highlight=False, markup=False).print(table)
