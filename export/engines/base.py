"""What every engine is given and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import onnx
from torch import nn

from segkc_deploy.engines import ENGINES
from segkc_deploy.manifest import Build, Contract, FallbackNode, LayerPrecision


@dataclass(frozen=True)
class Range:
    """Smallest, most usual and largest value of a free dimension."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class BuildOptions:
    """What a user may choose of a build; an engine that knows no such choice refuses it.

    Attributes:
        workspace_mib: memory the builder's kernels may use; the builder's own limit if None.
        optimization_level: 0 (fast build) to 5 (fast engine); the builder's own choice if None.
        version_compatible: also for later versions of the engine's library.
        hardware_compatible: also for other GPUs (`ampere_plus`, `same_compute_capability`).
        strip_weights: leave the weights out; they are refitted from the ONNX file.
        timing_cache: folder of timing caches, kept between builds on one machine; the user's own cache folder if None.
        compute_capabilities: GPUs to build for ahead of time, such as `8.9`; this machine's if empty.
    """

    workspace_mib: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: str | None = None
    strip_weights: bool = False
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildRequest:
    """A graph and what to make of it.

    Attributes:
        model: the whole ONNX graph, uint8 NHWC `images` to the contract's outputs, in its final precision; with FP32
            for its 16-bit format where that is one of `Engine.hinted_precisions`.
        network: the same in PyTorch, FP32, for engines that do not read ONNX.
        contract: inputs, outputs and sizes.
        precision: what was asked for, one of `Engine.precisions`.
        batch: batch sizes to build for.
        heights, widths: sizes to build for; three times the same where the size is fixed.
        fallbacks: nodes of `model` with a higher precision; an engine that is asked for 16 bits by a hint keeps those
            in FP32 that are so here.
        path: where the engine's file goes. It does not exist; it is renamed when it has been verified.
    """

    model: onnx.ModelProto
    network: nn.Module
    contract: Contract
    precision: str
    batch: Range
    heights: Range
    widths: Range
    path: Path
    options: BuildOptions = field(default_factory=BuildOptions)
    fallbacks: Sequence[FallbackNode] = ()


@dataclass(frozen=True)
class Built:
    """What an engine's build says of itself.

    `layer_precision` is None where the engine cannot tell; the graph's own types then stand in the manifest.
    """

    build: Build | None = None
    layer_precision: LayerPrecision | None = None


class Engine(ABC):
    """Builds one kind of file. Stateless; listed in `segkc_deploy.engines`."""

    #: its name in `segkc_deploy.engines`
    name: ClassVar[str]
    #: precisions whose 16-bit format a hint asks the engine for, with FP32 in the graph; others are written there
    hinted_precisions: ClassVar[Sequence[str]] = ()
    #: attention as one operator (opset 23), or taken apart into products and a softmax
    fused_attention: ClassVar[bool] = True
    #: endings of further files that a build may write beside the engine's file (`manifest.companion_path` names them)
    companion_suffixes: ClassVar[Sequence[str]] = ()
    #: whether the file is made from the ONNX graph, rather than from the PyTorch network
    from_onnx: ClassVar[bool] = True
    #: how the mask head may upsample, the default first: every logit, or only those where classes meet
    upsampling: ClassVar[Sequence[Literal["dense", "sparse"]]] = ("dense",)
    #: what the artifact gives unless other outputs are asked for
    default_outputs: ClassVar[Sequence[str]] = ("masks",)
    #: whether one file runs any number of images at once, without being told how many
    any_batch: ClassVar[bool] = False

    @property
    def suffix(self) -> str:
        """The ending of the engine's file."""
        return ENGINES[self.name].suffix

    @property
    def precisions(self) -> Sequence[str]:
        """The precisions whose graphs the engine takes."""
        return ENGINES[self.name].precisions

    @abstractmethod
    def check(self, options: BuildOptions, precision: str) -> None:
        """Raise a UserError, before any work, if this machine cannot build that or an option is not for this engine.

        `precision` is one of `precisions`.
        """

    @abstractmethod
    def build(self, request: BuildRequest) -> Built:
        """Write the engine's file to `request.path`, whole or not at all.

        Raises:
            BuildError: the engine's own builder refused the graph.
        """

    def verification_device(self, precision: str, options: BuildOptions) -> str:
        """Return the device on which the built file is verified here, or nothing where it cannot run here."""
        return "auto"
