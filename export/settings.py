"""What a user may choose of an export."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from segkc_deploy.errors import ConfigError
from segkc_deploy.export.deploy_graph import CONFIDENCE, LOGITS, MASKS, OUTPUT_NAMES
from segkc_deploy.export.engines.base import BuildOptions, Range
from segkc_deploy.export.mask_head import LEAST_OPSET
from segkc_deploy.export.precision.convert import PRECISIONS, formats_of
from segkc_deploy.export.to_onnx import OPSET
from segkc_deploy.export.verify import DEFAULT_LIMITS, Limits
from segkc_deploy.training.models.fixed_size import check_size


@dataclass(frozen=True)
class ExportSettings:
    """The choices; everything has a default.

    Attributes:
        engine: `onnx`, `trt`, `trt-rtx`, `openvino` or `aoti`.
        precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`.
        size: (height, width) of the input; by default the size at which the run was validated.
        free_size: height and width may be any multiple of what the backbone needs, from `min_size` to `max_size`
            (by default from half of `size` to twice).
        batch: batch sizes to build for; one number fixes the batch. By default any (ONNX), or 1 to 8.
        outputs: what the artifact gives, in that order; by default `Engine.default_outputs`.
        upsampling: how masks are made from logits. `dense` upsamples every logit before the argmax, which suits GPUs;
            `sparse` upsamples only where classes meet, which gives the same masks and is several times cheaper on a
            CPU. By default the engine's own choice; a graph of free size, or with confidence, is dense.
        limits: what the artifact has to meet; by default what `DEFAULT_LIMITS` says for the precision.
        verify_images: on how many real images the artifact is verified, at most; by default what `usual_images` says
            for the input size.
        calibration_images: on how many real images ranges are calibrated, at most.
        opset: of an ONNX file, for programs that do not read the newest; the other engines have a parser of their own.
        options: of the engine's build.
    """

    engine: str = "onnx"
    precision: str = "fp32"
    size: tuple[int, int] | None = None
    free_size: bool = False
    min_size: tuple[int, int] | None = None
    max_size: tuple[int, int] | None = None
    batch: Range | None = None
    outputs: Sequence[str] | None = None
    upsampling: Literal["dense", "sparse"] | None = None
    limits: Limits = field(default_factory=Limits)
    verify_images: int | None = None
    calibration_images: int = 64
    opset: int = OPSET
    options: BuildOptions = field(default_factory=BuildOptions)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision}: there is no such precision; use {', '.join(PRECISIONS)}")
        if self.outputs is not None:
            _check_outputs(self.outputs)
        if self.upsampling == "sparse" and (self.free_size or CONFIDENCE in (self.outputs or ())):
            raise ConfigError("--upsampling sparse is for graphs of fixed size without confidence; leave it out")
        for limit in (self.limits.agreement, self.limits.miou_loss):
            if limit is not None and not math.isfinite(limit):
                raise ConfigError(f"a limit of {limit} limits nothing; give a number")
        batch = self.batch
        if batch is not None and not 1 <= batch.min <= batch.opt <= batch.max:
            raise ConfigError(
                f"--batch {batch.min}:{batch.opt}:{batch.max}: the smallest, the usual and the largest batch,"
                " in this order, from 1 on"
            )
        if batch is not None and 1 < batch.min < batch.max:
            raise ConfigError(
                f"--batch {batch.min}:{batch.opt}:{batch.max}: a range begins at 1, since one image is what most calls"
                f" bring; write 1:{batch.opt}:{batch.max}, or {batch.max} for always as many"
            )
        if not self.free_size and (self.min_size or self.max_size):
            raise ConfigError("--min-size and --max-size are for graphs of free size: add --dynamic")
        self._check_opset()

    def _check_opset(self) -> None:
        # QuantizeLinear as the quantized graphs have it is of opset 19.
        least = 19 if formats_of(self.precision)[0] else LEAST_OPSET
        if not least <= self.opset <= OPSET:
            raise ConfigError(f"--opset {self.opset}: --precision {self.precision} takes {least} to {OPSET}")

    @property
    def effective_limits(self) -> Limits:
        """The limits that are set, and the precision's own where none is.

        With a limit on agreement, a quantized artifact has no limit on its loss of mIoU unless one is set too.
        """
        usual, chosen = DEFAULT_LIMITS[self.precision], self.limits
        by_agreement_alone = usual.agreement is None and chosen.agreement is not None
        return Limits(
            usual.agreement if chosen.agreement is None else chosen.agreement,
            usual.miou_loss if chosen.miou_loss is None and not by_agreement_alone else chosen.miou_loss,
        )

    def size_range(self, size: tuple[int, int], multiple: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the smallest and the largest (height, width) to build for.

        Raises:
            ConfigError: a side is not a multiple of `multiple`, or `size` is not between the two.
        """
        if not self.free_size:
            return size, size
        least = self.min_size or _scaled(size, 0.5, multiple)
        most = self.max_size or _scaled(size, 2, multiple)
        for bound in (least, most):
            check_size(bound, multiple)
        if any(not low <= side <= high for low, side, high in zip(least, size, most, strict=True)):
            raise ConfigError(
                f"size {size[0]}x{size[1]} is not between --min-size {least[0]}x{least[1]}"
                f" and --max-size {most[0]}x{most[1]} (height x width)"
            )
        return least, most


def _check_outputs(outputs: Sequence[str]) -> None:
    unknown = [name for name in outputs if name not in OUTPUT_NAMES]
    if unknown or not outputs or len(set(outputs)) < len(outputs):
        raise ConfigError(f"--outputs {','.join(outputs)}: name each once, out of {','.join(OUTPUT_NAMES)}")
    if not {MASKS, LOGITS} & set(outputs):
        raise ConfigError(f"--outputs {','.join(outputs)}: masks or logits have to be among them")


def _scaled(size: tuple[int, int], factor: float, multiple: int) -> tuple[int, int]:
    # Two cells at least: exported graphs of free size are traced for no fewer.
    height, width = (max(round(side * factor / multiple), 2) * multiple for side in size)
    return height, width
