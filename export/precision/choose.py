"""From the FP32 graph to one of the precision asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import onnx

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import Sample
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.mixed import to_mixed_precision
from segkc_deploy.export.precision.quantize import MIOU_BUDGET, quantize
from segkc_deploy.export.real_images import RealImages
from segkc_deploy.export.tail import attach_tail
from segkc_deploy.manifest import KeptNode
from segkc_deploy.metrics import ConfusionMatrix
from segkc_deploy.preprocess import resize_image, resize_mask
from segkc_deploy.progress import console

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True)
class Precise:
    """A graph in its precision.

    Attributes:
        model: `images` to `logits` float32 (N, C, h, w).
        reference: the FP32 graph with the same tensor names, for a comparison layer by layer.
        kept: nodes that stay in a higher precision, and why.
        method: how activations were cut off, of a quantized graph.
    """

    model: onnx.ModelProto
    reference: onnx.ModelProto
    kept: tuple[KeptNode, ...] = ()
    method: str = ""


def in_precision(
    base: onnx.ModelProto,
    precision: str,
    fused_attention: bool,
    size: tuple[int, int],
    align_corners: bool,
    images: RealImages,
    miou_loss: float | None,
) -> Precise:
    """Return `base` in `precision`.

    Args:
        base: the junior's FP32 graph.
        precision: one of `PRECISIONS`.
        fused_attention: whether FP32 attention may stay one operator. Other precisions take it apart, since what
            overflows in it must be seen.
        size: (height, width) at which calibration images are shown to the graph.
        align_corners: how the logits are upsampled.
        images: calibration is done on real ones.
        miou_loss: the loss of mIoU, in percentage points, within which a quantization has to stay.

    Raises:
        ConfigError: a quantization was asked for and no labeled images are there to choose it by.
    """
    if precision == "fp32" and fused_attention:
        return Precise(base, base)
    reference = decompose_attention(base)
    if precision == "fp32":
        return Precise(reference, reference)
    if images.calibrates_on_judges:
        console.print("ranges are taken from the images that also judge: no training images were given")
    if precision in ("fp16", "bf16"):
        mixed = to_mixed_precision(
            reference, cast(Literal["fp16", "bf16"], precision), list(_batches(images, images.calibration, size))
        )
        return Precise(mixed.model, reference, mixed.kept)
    if not images.labeled:
        raise ConfigError(
            f"--precision {precision} is chosen by mIoU, which needs labeled images:"
            " give --data with a `labeled` section"
        )
    quantized = quantize(
        reference,
        cast(Literal["int8", "fp8"], precision),
        list(_batches(images, images.calibration, size)),
        _Judge(images, size, align_corners).miou,
        MIOU_BUDGET if miou_loss is None else miou_loss,
    )
    for trial in quantized.tried:
        console.print(f"  {trial.method}, {trial.left_out} layers left out: mIoU {trial.miou:.2f}")
    return Precise(quantized.model, reference, quantized.kept, quantized.method)


def _batches(images: RealImages, samples: Sequence[Sample], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the images one by one, uint8 (1, height, width, 3)."""
    for sample in samples:
        yield resize_image(read_sample(Sample(sample.id, sample.image), images.sets)[0], size)[None]


class _Judge:
    """Gives the mIoU of a graph on labeled images that are not those that verify the artifact."""

    def __init__(self, images: RealImages, size: tuple[int, int], align_corners: bool) -> None:
        self._size, self._align_corners = size, align_corners
        self._labels = images.sets.labels
        read = [read_sample(sample, images.sets) for sample in images.labeled]
        self._images = [resize_image(image, size)[None] for image, _ in read]
        self._masks = [mask for _, mask in read if mask is not None]

    def miou(self, model: onnx.ModelProto) -> float:
        """Return the mIoU of `model` in percent, at each image's own size."""
        infer: Callable[[np.ndarray], list[np.ndarray]] = emulate(
            attach_tail(model, ["masks"], self._size, self._align_corners)
        )
        matrix = ConfusionMatrix(self._labels.num_classes, self._labels.ignore_index)
        for image, truth in zip(self._images, self._masks, strict=True):
            (mask,) = infer(image)[0]
            matrix.update(truth, resize_mask(mask, (truth.shape[0], truth.shape[1])))
        return matrix.scores().miou
