"""The gate that every artifact passes before it gets its name: does it give the masks that its network gives?"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segkc_deploy.data.masks import read_sample
from segkc_deploy.errors import DataError
from segkc_deploy.export.real_images import RealImages
from segkc_deploy.export.torch_runner import TorchRunner
from segkc_deploy.manifest import Verification
from segkc_deploy.metrics import ConfusionMatrix, Scores
from segkc_deploy.predictor import Predictor
from segkc_deploy.progress import track

#: From a batch, uint8 (N, H, W, 3), to logits float32 (N, C, h, w).
Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Limits:
    """What an artifact has to keep; None where there is no such limit.

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
    "int8": Limits(miou_loss=0.5),
    "fp8": Limits(miou_loss=0.5),
}


def verify(
    artifact: Predictor, reference: Predictor, network: TorchRunner, logits: Logits | None, images: RealImages
) -> Verification:
    """Compare an artifact with its network on real images.

    Args:
        artifact: the built artifact.
        reference: the PyTorch network behind the same contract.
        network: that network's runner, for its logits.
        logits: the artifact's own logits, where they can be seen.
        images: those of `verification` are compared, at their own size.
    """
    labels = images.sets.labels
    scores = {name: ConfusionMatrix(labels.num_classes, labels.ignore_index) for name in ("network", "artifact")}
    equal = pixels = 0
    differences: list[float] = []
    for sample in track(images.verification, "verifying on real images"):
        image, truth = read_sample(sample, images.sets)
        batch = artifact.preprocess([image])
        size = [(image.shape[0], image.shape[1])]
        (expected,) = reference.postprocess(reference.infer(batch), size)
        (got,) = artifact.postprocess(artifact.infer(batch), size)
        equal += int((expected == got).sum())
        pixels += expected.size
        if logits is not None:
            differences.append(float(np.abs(network.infer_logits(batch) - logits(batch)).max()))
        if truth is not None:
            scores["network"].update(truth, expected)
            scores["artifact"].update(truth, got)
    finite = all(map(math.isfinite, differences)) if differences else None
    facts: dict[str, Any] = {
        "ran_on": artifact.description,
        "images": len(images.verification),
        "agreement": equal / pixels,
        "finite": finite,
        "max_logit_difference": max(differences) if finite else None,
    }
    if images.masks:
        facts |= _scores(scores["network"].scores(), scores["artifact"].scores(), images)
    return Verification(**facts)


def shortcoming(verification: Verification) -> str:
    """Return in words what keeps an artifact from passing, or nothing."""
    if verification.finite is False:
        return "logits are NaN or infinite"
    required, largest_loss = verification.required_agreement, verification.max_miou_loss
    if required is not None and verification.agreement < required:
        return (
            f"only {verification.agreement:.4%} of the pixels agree with the PyTorch junior"
            f" ({required:.4%} are required)"
        )
    if largest_loss is not None:
        assert verification.miou_network is not None and verification.miou_artifact is not None
        loss = verification.miou_network - verification.miou_artifact
        if loss > largest_loss:
            return (
                f"mIoU fell by {loss:.2f}, from {verification.miou_network:.2f} to {verification.miou_artifact:.2f}"
                f" (at most {largest_loss:g} may be lost)"
            )
    return ""


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
