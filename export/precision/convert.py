"""From the FP32 graph to one of the precision asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import onnx

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import Sample
from segkc_deploy.engines import number_formats
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.mixed import to_mixed_precision
from segkc_deploy.export.precision.quantize import FORMATS, MIOU_BUDGET, Quantized, quantize
from segkc_deploy.export.precision.quantized_mixed import quantize_mixed
from segkc_deploy.export.real_images import RealImages
from segkc_deploy.manifest import FallbackNode
from segkc_deploy.metrics import ConfusionMatrix
from segkc_deploy.preprocess import resize_image, resize_mask
from segkc_deploy.progress import console

#: `int8-fp16`: convolutions and products in INT8, everything else in FP16.
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "int8-fp16", "int8-bf16", "fp8-fp16")


@dataclass(frozen=True)
class ConvertedGraph:
    """A graph converted to the precision asked for.

    Attributes:
        model: `images` to `logits` float32 (N, C, h, w).
        reference: the FP32 graph with the same tensor names, for a comparison layer by layer.
        fallbacks: nodes that keep a higher precision, and why.
        quantized: the graph with 8-bit products and without 16-bit types, and how it was made; None without such
            products.
    """

    model: onnx.ModelProto
    reference: onnx.ModelProto
    fallbacks: tuple[FallbackNode, ...] = ()
    quantized: Quantized | None = None

    @property
    def without_16_bits(self) -> onnx.ModelProto:
        """The same graph for engines that are asked for their 16-bit format by a hint."""
        return self.quantized.model if self.quantized else self.reference

    @property
    def method(self) -> str:
        """How activations were cut off; empty without 8-bit products."""
        return self.quantized.method if self.quantized else ""


def convert_precision(
    base: onnx.ModelProto,
    precision: str,
    fused_attention: bool,
    size: tuple[int, int],
    align_corners: bool,
    images: RealImages,
    miou_loss: float | None,
    quantized: Quantized | None = None,
) -> ConvertedGraph:
    """Return `base` in `precision`.

    Args:
        base: the junior's FP32 graph.
        precision: one of `PRECISIONS`.
        fused_attention: whether FP32 attention may stay one operator. Other precisions decompose it, to see
            what overflows inside.
        size: (height, width) at which calibration images are shown to the graph.
        align_corners: how the logits are upsampled.
        images: calibration is done on real ones.
        miou_loss: the loss of mIoU, in percentage points, within which a quantization has to stay.
        quantized: `base` quantized to the 8-bit format of `precision`, where that was done before.

    Raises:
        ConfigError: a quantization was asked for and no labeled images are there to choose it by.
    """
    if precision == "fp32" and fused_attention:
        return ConvertedGraph(base, base)
    reference = decompose_attention(base)
    if precision == "fp32":
        return ConvertedGraph(reference, reference)
    if images.calibrates_on_verification:
        console.print("no training images were given, so ranges are calibrated on the verification images")
    eight_bits, sixteen_bits = formats_of(precision)
    if eight_bits and quantized is None:
        quantized = _quantize(reference, eight_bits, size, align_corners, images, miou_loss)
    if not sixteen_bits:
        assert quantized is not None
        return ConvertedGraph(quantized.model, reference, quantized.fallbacks, quantized)
    # BF16 has the range of float32: what one image shows to be finite comes near its end on no other.
    shown = images.calibration[:1] if sixteen_bits == "bf16" else images.calibration
    source = quantized.unquantized if quantized else reference
    mixed = to_mixed_precision(source, sixteen_bits, list(_batches(images, shown, size)))
    if quantized is None:
        return ConvertedGraph(mixed.model, reference, mixed.fallbacks)
    assert eight_bits is not None
    model, fallbacks = quantize_mixed(mixed, quantized, FORMATS[eight_bits])
    return ConvertedGraph(model, reference, fallbacks, quantized)


def formats_of(precision: str) -> tuple[Literal["int8", "fp8"] | None, Literal["fp16", "bf16"] | None]:
    """Return the 8-bit and the 16-bit format of a precision: of `int8-fp16` both, of `fp32` neither."""
    parts = number_formats(precision)
    eight = next((part for part in parts if part in FORMATS), None)
    sixteen = next((part for part in parts if part in ("fp16", "bf16")), None)
    return cast(Literal["int8", "fp8"] | None, eight), cast(Literal["fp16", "bf16"] | None, sixteen)


def _quantize(
    reference: onnx.ModelProto,
    precision: Literal["int8", "fp8"],
    size: tuple[int, int],
    align_corners: bool,
    images: RealImages,
    miou_loss: float | None,
) -> Quantized:
    if not images.labeled:
        raise ConfigError(
            f"--precision {precision} is chosen by mIoU, which needs labeled images:"
            " give --data with a `labeled` section"
        )
    quantized = quantize(
        reference,
        precision,
        list(_batches(images, images.calibration, size)),
        _LabeledImages(images, size, align_corners).miou,
        MIOU_BUDGET if miou_loss is None else miou_loss,
    )
    for trial in quantized.tried:
        biases = ", biases corrected" if trial.corrected else ""
        console.print(f"  {trial.method}, {trial.left_out} layers left out{biases}: mIoU {trial.miou:.2f}")
    return quantized


def _batches(images: RealImages, samples: Sequence[Sample], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the images one by one, uint8 (1, height, width, 3)."""
    for sample in samples:
        yield resize_image(read_sample(Sample(sample.id, sample.image), images.sets)[0], size)[None]


class _LabeledImages:
    """Measures the mIoU of a graph on labeled training images; the verification images are not among them."""

    def __init__(self, images: RealImages, size: tuple[int, int], align_corners: bool) -> None:
        self._size, self._align_corners = size, align_corners
        self._labels = images.sets.labels
        read = [read_sample(sample, images.sets) for sample in images.labeled]
        self._images = [resize_image(image, size)[None] for image, _ in read]
        self._masks = [mask for _, mask in read if mask is not None]

    def miou(self, model: onnx.ModelProto) -> float:
        """Return the mIoU of `model` in percent, at each image's own size."""
        infer: Callable[[np.ndarray], list[np.ndarray]] = emulate(
            attach_mask_head(model, ["masks"], self._size, self._align_corners)
        )
        matrix = ConfusionMatrix(self._labels.num_classes, self._labels.ignore_index)
        for image, truth in zip(self._images, self._masks, strict=True):
            (mask,) = infer(image)[0]
            matrix.update(truth, resize_mask(mask, (truth.shape[0], truth.shape[1])))
        return matrix.scores().miou
