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

    def packed(self) -> "LabeledPixels":
        """Return them with uint8 classes, in 7 bytes each instead of 28, for keeping alone."""
        return self._with_classes_as(torch.uint8)

    def unpacked(self) -> "LabeledPixels":
        """Return them with int64 classes."""
        return self._with_classes_as(torch.int64)

    def _with_classes_as(self, dtype: torch.dtype) -> "LabeledPixels":
        classes, confidence, runners_up = self.labels
        assert runners_up is not None
        return LabeledPixels(PseudoLabels(classes.to(dtype), confidence, runners_up.to(dtype)), self.truth.to(dtype))


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


class Tally:
    """Judges pseudo-labels that come image by image.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self._weight_of_label, self._weight_of_truth, self._right_of_truth, self._pixels = torch.zeros(
            4, num_classes, dtype=torch.float64
        )

    def add(self, pixels: LabeledPixels, weights: Tensor) -> None:
        """Count labels by their `weights` (N,), from 0 to 1."""
        weights = weights.double()
        self._weight_of_label.index_add_(0, pixels.labels.classes, weights)
        self._weight_of_truth.index_add_(0, pixels.truth, weights)
        self._right_of_truth.index_add_(0, pixels.truth, weights * pixels.right)
        self._pixels += torch.bincount(pixels.truth, minlength=len(self._pixels))

    def quality(self) -> Quality:
        """Return what the labels are like together."""
        weight, right = self._weight_of_truth.sum(), self._right_of_truth.sum()
        return Quality(
            counted=100 * (weight / self._pixels.sum()).item(),
            right=100 * (right / weight.clamp(min=1e-9)).item(),
            right_of_class=_percentages(self._right_of_truth, self._pixels),
            area_of_class=_percentages(self._weight_of_label, self._weight_of_truth),
        )


def _percentages(parts: Tensor, wholes: Tensor) -> tuple[float | None, ...]:
    return tuple(
        100 * part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)
    )


def rules(num_classes: int, images: Sequence[LabeledPixels]) -> dict[str, LabelWeights]:
    """Return the rules by name; the soft ones have taken in every image once, all with the same share."""
    fixed: dict[str, LabelWeights] = {f"{value:g}": FixedThreshold(value, num_classes) for value in (0, 0.8, 0.95)}
    soft = {name: weights_by(name, num_classes, momentum=1 - 1 / len(images)) for name in ("soft", "soft-pair")}
    for image in images:
        labels = image.unpacked().labels
        for rule in soft.values():
            rule.update(labels, torch.ones_like(labels.classes, dtype=torch.bool))
    return fixed | soft


def label_images(run: Path, sets: ImageSets) -> list[LabeledPixels]:
    """Let the run's junior label the validation images; their pixels are packed.

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
        parts = [pseudo_labels(part.log()[None], runners_up=True) for part in predict(image)]
        known = torch.from_numpy(mask != sets.labels.ignore_index)
        of_known = PseudoLabels(*(torch.cat(tensors, dim=1)[0][known] for tensors in zip(*parts, strict=True)))
        images.append(LabeledPixels(of_known, torch.from_numpy(mask)[known]).packed())
    if not any(len(image.truth) for image in images):
        raise DataError(f"{run}: no validation image has a labeled pixel; nothing to compare with")
    return images


def qualities(run: Path, sets: ImageSets) -> dict[str, Quality]:
    """Return by rule the quality of the junior's pseudo-labels on the validation images."""
    num_classes = sets.labels.num_classes
    images = label_images(run, sets)
    by_name = rules(num_classes, images)
    tallies = {name: Tally(num_classes) for name in by_name}
    for pixels in map(LabeledPixels.unpacked, images):
        for name, rule in by_name.items():
            tallies[name].add(pixels, rule(pixels.labels))
    return {name: tally.quality() for name, tally in tallies.items()}


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
