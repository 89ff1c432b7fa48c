"""The chosen images as tasks of labeling tools, with both networks' masks for a person to correct."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segkc_deploy.data.samples import MaskCoding
from segkc_deploy.data.tasks.task_image import Prediction, TaskImage
from segkc_deploy.data.tasks.writers import WRITERS
from segkc_deploy.training.label_next.earlier import note_task_file
from segkc_deploy.training.label_next.networks import RunNetworks
from segkc_deploy.training.label_next.rank import RankedImage, readable


def write_tasks(
    networks: RunNetworks, chosen: Sequence[RankedImage], scores: Sequence[float], tools: Sequence[str], out: Path
) -> tuple[str, ...]:
    """Write a folder for each tool below `out`, and note its files; return for each what a person does with it.

    Args:
        networks: those that predict the masks.
        chosen: the images, the first chosen first.
        scores: of each image.
        tools: keys of `WRITERS`.
        out: the folder.
    """
    if not tools:
        return ()
    background = MaskCoding(networks.labels).background
    has_background = background != networks.labels.ignore_index
    writers = [
        WRITERS[tool](out / tool, networks.labels, background if has_background else None, partial(note_task_file, out))
        for tool in dict.fromkeys(tools)
    ]
    for image in _task_images(networks, chosen, scores):
        for writer in writers:
            writer.add(image)
    return tuple(writer.finish() for writer in writers)


def _task_images(networks: RunNetworks, chosen: Sequence[RankedImage], scores: Sequence[float]) -> Iterator[TaskImage]:
    score_of = {image.sample: score for image, score in zip(chosen, scores, strict=True)}
    paths = {sample: sample.image.absolute() for sample in score_of}
    folder = os.path.commonpath([path.parent for path in paths.values()])
    for sample, pixels in readable(tuple(score_of), "Writing tasks", networks.pixels):
        yield TaskImage(
            paths[sample].relative_to(folder).as_posix(),
            sample.image,
            score_of[sample],
            _predictions(networks, pixels),
        )


def _predictions(networks: RunNetworks, image: np.ndarray) -> tuple[Prediction, ...]:
    """Return the senior's prediction of an image, where there is a senior, and the junior's."""
    maxima: dict[str, list[tuple[Tensor, Tensor]]] = {"senior": [], "junior": []}
    for junior, senior in networks.probabilities(image):
        maxima["junior"].append(junior.max(dim=0))
        if senior is not None:
            maxima["senior"].append(senior.max(dim=0))
    predictions = []
    for network, parts in maxima.items():
        if parts:
            confidence, classes = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
            mask: np.ndarray = classes.to(torch.uint8).cpu().numpy()
            predictions.append(Prediction(network, mask, confidence.mean().item()))
    return tuple(predictions)
