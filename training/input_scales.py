"""How good the masks of a trained network are when it sees the images enlarged: which `method.teacher_scale` may pay.

`python -m segkc_deploy.training.input_scales runs/a --data data.yaml --scales 1 1.25 1.5 2 --json scales.json`

A network that learned its own pseudo-labels may label enlarged images better than images of their own size. Then
teachers that see them enlarged have more to teach, and an artifact with a larger input is better at the cost of its
latency. Each scale is scored on the validation images at their own size.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segkc_deploy import atomic
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.evaluation import count_pixels, require_validation_images, scores_of
from segkc_deploy.machine import describe_machine
from segkc_deploy.metrics import Scores
from segkc_deploy.pixel_format import require_same_format
from segkc_deploy.training.evaluation.prediction import mask_predictor
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.files.run_directory import RunDirectory, read_config
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import ValidationConfig

_USUAL_SCALES = (1.0, 1.25, 1.5, 2.0)


def scaled_predictor(network: Segmenter, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from an image, uint8 (H, W, 3), to its mask, uint8 (H, W), by a network that sees it enlarged.

    The sides of what the network sees are `scale` times the image's, to the nearest size that it takes. The image is
    seen whole, so memory grows with the square of the scale.
    """

    def predict(image: np.ndarray) -> np.ndarray:
        height, width = (max(round(side * scale), 1) for side in image.shape[:2])
        return mask_predictor(network, torch.device("cpu"), ValidationConfig(size=(height, width)))(image)

    return predict


def scores_by_scale(run: Path, role: str, sets: ImageSets, scales: Sequence[float]) -> dict[float, Scores]:
    """Score the `junior` or `senior` of a run on `sets.val`, at each scale of its input.

    Raises:
        RunDirectoryError: the run has no such network.
        DataError: there is no validation image, one cannot be used, or the network takes other bands.
    """
    require_validation_images(sets)
    network, _ = load_network(RunDirectory(run).network(role))
    require_same_format(network.pixels, sets.pixels, run, "the data spec")
    predictors = [scaled_predictor(network.eval(), scale) for scale in scales]
    totals, _ = count_pixels(predictors, sets, sets.val, f"Labeling with {run.name}, {role}")
    return {scale: scores_of(total, sets) for scale, total in zip(scales, totals, strict=True)}


def table(found: dict[float, Scores]) -> str:
    """Return the scores as a Markdown table."""
    rows = [f"| {scale:g} | {scores.miou:.2f} | {scores.pixel_accuracy:.2f} |" for scale, scores in found.items()]
    return "\n".join(["| scale of the input | mIoU (%) | pixel accuracy (%) |", "| --: | --: | --: |", *rows]) + "\n"


def to_json(run: Path, role: str, command: str, sets: ImageSets, found: dict[float, Scores]) -> dict[str, Any]:
    """Return the scores with their conditions as JSON values."""
    recipe, _ = read_config(RunDirectory(run))
    return {
        "command": command,
        "run": {"recipe": recipe.name, "role": role, "seed": recipe.seed, "steps": recipe.schedule.steps},
        "images": len(sets.val),
        "machine": describe_machine(),
        "scales": {
            f"{scale:g}": {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
            for scale, scores in found.items()
        },
    }


def scale_factor(text: str) -> float:
    """Return what `--scales` gives; the function's name stands in argparse's message."""
    value = float(text)
    if not 0.1 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 10")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m segkc_deploy.training.input_scales", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--data", type=Path, required=True, help="the data spec with validation images")
    parser.add_argument("--role", choices=("junior", "senior"), default="junior", help="which network of the run")
    parser.add_argument(
        "--scales", type=scale_factor, nargs="+", default=list(_USUAL_SCALES), help="sides of the input by the image's"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args(arguments)
    sets = load_data_spec(options.data).resolve()
    found = scores_by_scale(options.run, options.role, sets, options.scales)
    print(table(found), end="")
    if options.json:
        scales = " ".join(f"{scale:g}" for scale in options.scales)
        command = (
            f"python -m segkc_deploy.training.input_scales RUN --data {options.data.name} --role {options.role}"
            f" --scales {scales}"
        )
        content = to_json(options.run, options.role, command, sets, found)
        atomic.write_text(options.json, json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
