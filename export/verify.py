"""Verification, which every artifact passes before it gets its name: does it give what its network gives?"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segkc_deploy.data.masks import read_sample
from segkc_deploy.errors import DataError
from segkc_deploy.export.deploy_graph import CONFIDENCE, LOGITS, MASKS
from segkc_deploy.export.precision.quantize import MIOU_BUDGET
from segkc_deploy.export.real_images import RealImages, spread
from segkc_deploy.manifest import Contract, ShapeCheck, Verification
from segkc_deploy.metrics import ConfusionMatrix, Scores
from segkc_deploy.predictor import Predictor
from segkc_deploy.preprocess import resize_image
from segkc_deploy.progress import track

#: From a batch, uint8 (N, H, W, 3), to logits float32 (N, C, h, w).
Logits = Callable[[np.ndarray], np.ndarray]

#: Mean absolute difference of the confidence, and the loss of agreement in another shape, that rounding explains.
_CONFIDENCE_WITHIN = 0.05
_SHAPE_WITHIN = 0.05

#: How many images make a batch where any number is taken.
_SOME = 3

#: Images that verify unless a number was asked for: so many at most, and fewer where they are large, up to these pixels
#: in all, but never fewer than this. The network in PyTorch takes longest, and minutes for a large one on a CPU.
MOST_IMAGES, FEWEST_IMAGES = 200, 32
VERIFICATION_PIXELS = 1 << 24

#: Images on which the graph is emulated: so many, and more where they are small, up to these pixels in all. Emulation
#: costs more than the artifact itself, and what rounding does to a graph shows on few large images.
GRAPH_IMAGES = 8
GRAPH_PIXELS = 1 << 21


@dataclass(frozen=True)
class Limits:
    """What an artifact has to meet; None where there is no such limit.

    Attributes:
        agreement: least share of pixels (0-1) with the class that the PyTorch junior gives.
        miou_loss: most mIoU, in percentage points, that may be lost against it.
    """

    agreement: float | None = None
    miou_loss: float | None = None


#: By precision. Rounding moves borders by a pixel, so what counts for integers is the score.
DEFAULT_LIMITS = {
    "fp32": Limits(agreement=0.999),
    "fp16": Limits(agreement=0.995),
    "bf16": Limits(agreement=0.995),
    "int8": Limits(miou_loss=MIOU_BUDGET),
    "fp8": Limits(miou_loss=MIOU_BUDGET),
    "int8-fp16": Limits(miou_loss=MIOU_BUDGET),
    "int8-bf16": Limits(miou_loss=MIOU_BUDGET),
    "fp8-fp16": Limits(miou_loss=MIOU_BUDGET),
}


class _Share:
    """Counts how many of the things compared were equal."""

    def __init__(self) -> None:
        self._equal = self._all = 0

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        self._equal += int((expected == got).sum())
        self._all += expected.size

    @property
    def value(self) -> float:
        return self._equal / self._all if self._all else 1.0


class _Comparison:
    """What is found while an artifact and its network are shown the same images."""

    def __init__(self) -> None:
        self.at_own_size, self.masks, self.graph = _Share(), _Share(), _Share()
        self.logit_differences: list[float] = []
        self.confidence_differences: list[float] = []

    def outputs(self, expected: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> None:
        """Compare every output by itself: programs without this package read them so."""
        if MASKS in got:
            self.masks.add(expected[MASKS], got[MASKS])
        if CONFIDENCE in got:
            self.confidence_differences.append(float(np.abs(expected[CONFIDENCE] - got[CONFIDENCE]).mean()))
        if LOGITS in got:
            self.logit_differences.append(float(np.abs(expected[LOGITS] - got[LOGITS]).max()))

    def graph_logits(self, expected: np.ndarray, got: np.ndarray) -> None:
        """Compare logits, float32 (N, h, w, C)."""
        self.graph.add(expected.argmax(axis=-1), got.argmax(axis=-1))
        self.logit_differences.append(float(np.abs(expected - got).max()))

    def facts(self) -> dict[str, Any]:
        finite = all(map(math.isfinite, self.logit_differences)) if self.logit_differences else None
        return {
            "agreement": min(self.at_own_size.value, self.masks.value),
            "finite": finite,
            "max_logit_difference": max(self.logit_differences) if finite else None,
            "confidence_difference": (
                float(np.mean(self.confidence_differences)) if self.confidence_differences else None
            ),
        }


def usual_images(size: tuple[int, int]) -> int:
    """Return on how many images of (height, width) pixels an artifact is verified unless a number was asked for."""
    height, width = size
    return min(max(VERIFICATION_PIXELS // (height * width), FEWEST_IMAGES), MOST_IMAGES)


def verify(artifact: Predictor, reference: Predictor, logits: Logits | None, images: RealImages) -> Verification:
    """Compare an artifact with its network on real images.

    Args:
        artifact: the built artifact.
        reference: the PyTorch network behind the same contract; it gives its logits besides.
        logits: those of the graph in its final precision, where the artifact was made from it; compared on some of the
            images (`GRAPH_IMAGES`, `GRAPH_PIXELS`).
        images: those of `verification` are compared, at their own size.
    """
    labels = images.sets.labels
    scores = {name: ConfusionMatrix(labels.num_classes, labels.ignore_index) for name in ("network", "artifact")}
    height, width = artifact.contract.size
    some = max(GRAPH_IMAGES, GRAPH_PIXELS // (height * width))
    emulated = spread(images.verification, some) if logits is not None else ()
    found = _Comparison()
    for sample in track(images.verification, "verifying on real images"):
        image, truth = read_sample(sample, images.sets)
        batch = artifact.preprocess([image])
        outputs, wanted = artifact.infer(batch), reference.infer(batch)
        found.outputs(wanted, outputs)
        size = [(image.shape[0], image.shape[1])]
        (expected,) = reference.postprocess(_those_of(outputs, wanted), size)
        (got,) = artifact.postprocess(outputs, size)
        found.at_own_size.add(expected, got)
        if logits is not None and sample in emulated:
            found.graph_logits(wanted[LOGITS], np.moveaxis(logits(batch), 1, -1))
        if truth is not None:
            scores["network"].update(truth, expected)
            scores["artifact"].update(truth, got)
    facts: dict[str, Any] = {
        "ran_on": artifact.description,
        "images": len(images.verification),
        "graph_agreement": found.graph.value if logits is not None else None,
        "graph_images": len(emulated) if logits is not None else None,
    }
    if images.masks:
        facts |= _scores(scores["network"].scores(), scores["artifact"].scores(), images)
    return Verification(**facts, **found.facts())


def failure_reason(verification: Verification) -> str:
    """Return why the artifact does not pass, or an empty string."""
    if verification.finite is False:
        return "logits are NaN or infinite"
    difference = verification.confidence_difference
    # Written so that NaN does not pass.
    if difference is not None and not difference <= _CONFIDENCE_WITHIN:
        return f"the confidence differs by {difference:.2g} from the PyTorch junior's, on average"
    return _disagreement(verification) or _lost_score(verification)


def _disagreement(verification: Verification) -> str:
    required = verification.required_agreement
    graph = verification.graph_agreement
    if required is not None and min(verification.agreement, 1.0 if graph is None else graph) < required:
        emulated = "" if graph is None else f", {graph:.4%} of its graph's, rounded as its types say"
        return (
            f"only {verification.agreement:.4%} of the pixels agree with the PyTorch junior{emulated}"
            f" ({required:.4%} are required)"
        )
    least = verification.agreement - _SHAPE_WITHIN
    for check in verification.shapes:
        if check.agreement < least:
            count, height, width = check.shape
            return (
                f"only {check.agreement:.4%} of the pixels agree with the PyTorch junior for {count} images of"
                f" {height}x{width} (height x width), against {verification.agreement:.4%} for one image"
            )
    return ""


def _lost_score(verification: Verification) -> str:
    largest_loss = verification.max_miou_loss
    if largest_loss is None:
        return ""
    assert verification.miou_network is not None and verification.miou_artifact is not None
    loss = verification.miou_network - verification.miou_artifact
    if loss <= largest_loss:
        return ""
    return (
        f"mIoU fell by {loss:.2f}, from {verification.miou_network:.2f} to {verification.miou_artifact:.2f}"
        f" (at most {largest_loss:g} may be lost)"
    )


def other_shapes(artifact: Predictor, reference: Predictor, images: RealImages) -> Iterator[ShapeCheck]:
    """Yield what several images at once, and where sizes are free the ends of their range, give."""
    pictures = [read_sample(sample, images.sets)[0] for sample in images.verification[:_SOME]]
    for count, size in _shapes(artifact.contract):
        batch = np.stack([resize_image(pictures[place % len(pictures)], size) for place in range(count)])
        share = _Share()
        # One by one: that is right whatever batches do, and at the network's own size known already.
        expected = _together([reference.infer(one[None]) for one in batch])
        got = artifact.infer(batch)
        sizes = [size] * count
        masks = reference.postprocess(_those_of(got, expected), sizes)
        for mask, other in zip(masks, artifact.postprocess(got, sizes), strict=True):
            share.add(mask, other)
        yield ShapeCheck(shape=(count, *size), agreement=share.value)


def _together(outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the outputs of single images as those of one batch."""
    return {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}


def _those_of(artifact: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the reference's outputs that the artifact has too: masks are then made from the same ones."""
    return {name: reference[name] for name in artifact}


def _shapes(contract: Contract) -> Sequence[tuple[int, tuple[int, int]]]:
    """Return (images, (height, width)) to try: many at the smallest size, one at the largest and at its transpose."""
    several = contract.batch if contract.batch > 0 else contract.max_batch or _SOME
    if contract.size_multiple is None:
        return [(several, contract.size)]
    least, most = contract.min_size or contract.size, contract.max_size or contract.size
    one = max(contract.batch, 1)
    shapes = [(several, least), (one, most)]
    turned = (most[1], most[0])
    if all(low <= side <= high for low, side, high in zip(least, turned, most, strict=True)):
        shapes.append((one, turned))
    # Height and width apart from each other: graphs in which they came out tied fail here.
    return [*shapes, (one, (least[0], most[1])), (one, (most[0], least[1]))]


def _scores(network: Scores, artifact: Scores, images: RealImages) -> dict[str, Any]:
    if network.pixels == 0:
        raise DataError(
            f"{images.verification[0].mask}: like every validation mask it holds ignored pixels alone;"
            " nothing to verify"
        )
    return {
        "miou_network": network.miou,
        "miou_artifact": artifact.miou,
        "iou_network": tuple(value if math.isfinite(value) else None for value in network.iou),
        "iou_artifact": tuple(value if math.isfinite(value) else None for value in artifact.iou),
    }
