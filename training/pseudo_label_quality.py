"""How much the pseudo-labels of a network count by each rule, and how many of those that count are right.

`python -m segkc_deploy.training.pseudo_label_quality runs/a --data data.yaml --json quality.json`

The run's junior labels the validation images, which no training has seen and whose masks are known. The command prints
a table and keeps its numbers as JSON.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segkc_deploy import atomic
from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import DataError
from segkc_deploy.machine import describe_machine
from segkc_deploy.training.evaluation.prediction import probability_predictor
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.files.run_directory import RunDirectory, read_config
from segkc_deploy.training.terms.losses import PseudoLabels, pseudo_labels
from segkc_deploy.training.terms.threshold import FixedThreshold, LabelWeights, weights_by


@dataclass(frozen=True)
class LabeledPixels:
    """Pixels that have a true class: the network's labels and the true classes, (N,) each."""

    labels: PseudoLabels
    truth: Tensor

    @property
    def right(self) -> Tensor:
        """Whether the network's class is the true one."""
        return self.labels.classes == self.truth


@dataclass(frozen=True)
class Quality:
    """What one rule makes of the pseudo-labels.

    Attributes:
        counted: their mean weight, in percent.
        right: the share of the weight that right labels have, in percent.
        right_of_class: by true class, how much of its pixels right labels cover by weight, in percent; None without
            pixels of the class.
        area_of_class: by class, the weight of the labels that give it by that of the labels of its true pixels, in
            percent; None where these have no weight. A network that learns labels with more than 100 learns to see the
            class where it is not.
    """

    counted: float
    right: float
    right_of_class: tuple[float | None, ...]
    area_of_class: tuple[float | None, ...]


def quality(pixels: LabeledPixels, weights: Tensor, num_classes: int) -> Quality:
    """Judge pseudo-labels by their `weights` (N,), from 0 to 1."""
    weights = weights.double()
    right = weights * pixels.right

    def by_class(classes: Tensor, values: Tensor) -> Tensor:
        return torch.zeros(num_classes, dtype=torch.float64).index_add_(0, classes, values)

    return Quality(
        counted=100 * weights.mean().item(),
        right=100 * (right.sum() / weights.sum().clamp(min=1e-9)).item(),
        right_of_class=_percentages(
            by_class(pixels.truth, right), torch.bincount(pixels.truth, minlength=num_classes).double()
        ),
        area_of_class=_percentages(by_class(pixels.labels.classes, weights), by_class(pixels.truth, weights)),
    )


def _percentages(parts: Tensor, wholes: Tensor) -> tuple[float | None, ...]:
    return tuple(
        100 * part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)
    )


def rules(num_classes: int, images: Sequence[LabeledPixels]) -> dict[str, LabelWeights]:
    """Return the rules by name; the soft ones have taken in every image once, all with the same share."""
    fixed: dict[str, LabelWeights] = {f"{value:g}": FixedThreshold(value, num_classes) for value in (0, 0.8, 0.95)}
    soft = {name: weights_by(name, num_classes, momentum=1 - 1 / len(images)) for name in ("soft", "soft-pair")}
    for rule in soft.values():
        for image in images:
            rule.update(image.labels, torch.ones_like(image.right))
    return fixed | soft


def label_images(run: Path, sets: ImageSets) -> list[LabeledPixels]:
    """Let the run's junior label the validation images.

    Raises:
        RunDirectoryError: the run has no junior.
        DataError: there is no validation image, or one cannot be used.
    """
    directory = RunDirectory(run)
    recipe, _ = read_config(directory)
    network, _ = load_network(directory.network("junior"))
    predict = probability_predictor(network.eval(), torch.device("cpu"), recipe.validation)
    images = []
    for sample in sets.val:
        image, mask = read_sample(sample, sets)
        assert mask is not None
        labels = pseudo_labels(predict(image).log()[None], runners_up=True)
        known = torch.from_numpy(mask != sets.labels.ignore_index)
        of_known = PseudoLabels(*(tensor[0][known] for tensor in labels if tensor is not None))
        images.append(LabeledPixels(of_known, torch.from_numpy(mask.astype(np.int64))[known]))
    if not any(len(image.truth) for image in images):
        raise DataError(f"{run}: no validation image has a labeled pixel; nothing to compare with")
    return images


def qualities(run: Path, sets: ImageSets) -> dict[str, Quality]:
    """Return by rule the quality of the junior's pseudo-labels on the validation images."""
    num_classes = sets.labels.num_classes
    images = label_images(run, sets)
    labels = PseudoLabels(*map(torch.cat, zip(*(image.labels for image in images), strict=True)))
    pixels = LabeledPixels(labels, torch.cat([image.truth for image in images]))
    return {
        name: quality(pixels, rule(pixels.labels), num_classes) for name, rule in rules(num_classes, images).items()
    }


def table(found: Mapping[str, Quality], names: Sequence[str]) -> str:
    """Return the qualities as a Markdown table."""
    of_classes = [f"{what} of {name}" for what in ("right", "area") for name in names]
    header = ["confidence_threshold", "counted", "of these right", *of_classes]
    lines = [
        [
            name,
            *(
                f"{value:.1f}%" if value is not None else "–"
                for value in (row.counted, row.right, *row.right_of_class, *row.area_of_class)
            ),
        ]
        for name, row in found.items()
    ]
    alignment = [":--", *["--:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, alignment, *lines))


def to_json(run: Path, command: str, sets: ImageSets, found: Mapping[str, Quality]) -> dict[str, Any]:
    """Return the qualities with their conditions as JSON values."""
    recipe, _ = read_config(RunDirectory(run))
    return {
        "command": command,
        "run": {"recipe": recipe.name, "seed": recipe.seed, "steps": recipe.schedule.steps},
        "images": len(sets.val),
        "classes": list(sets.labels.names),
        "machine": describe_machine(),
        "rules": {name: vars(row) for name, row in found.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m segkc_deploy.training.pseudo_label_quality", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory whose junior labels")
    parser.add_argument("--data", type=Path, required=True, help="the data spec with validation images")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args(arguments)
    sets = load_data_spec(options.data).resolve()
    found = qualities(options.run, sets)
    print(table(found, sets.labels.names), end="")
    if options.json:
        command = f"python -m segkc_deploy.training.pseudo_label_quality RUN --data {options.data.name}"
        atomic.write_text(options.json, json.dumps(to_json(options.run, command, sets, found), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
