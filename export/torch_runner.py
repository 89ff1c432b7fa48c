"""The networks of a run, run by PyTorch with the same contract as an artifact: the reference and the eager baseline."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segkc_deploy.export.contract import contract_of
from segkc_deploy.export.deploy_graph import LOGITS, DeployGraph, blank_images
from segkc_deploy.predictor import Predictor
from segkc_deploy.runners.base import Runner
from segkc_deploy.runners.torch_events import TorchTimer
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.models.device import choose_device


class TorchRunner(Runner):
    """Runs a `DeployGraph` eagerly.

    Args:
        graph: the network for one input size.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, graph: DeployGraph, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.graph = graph
        self.description = f"PyTorch {torch.__version__} eager, {self.device.type}"
        self._timer: TorchTimer | None = None

    def activate(self) -> None:
        self.graph.eval().to(self.device)

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self.device)
            if self._timer is not None:
                self._timer.start()
            outputs = self.graph(batch)
            if self._timer is not None:
                self._timer.stop()
            found = {name: output.cpu().numpy() for name, output in zip(self.graph.outputs, outputs, strict=True)}
        if self._timer is not None:
            self.last_device_ms = self._timer.elapsed_ms()
        return found

    def time_device(self, on: bool) -> None:
        """See `Runner.time_device`; on the CPU there is nothing to tell."""
        self._timer = TorchTimer(torch) if on and self.device.type == "cuda" else None
        self.last_device_ms = None

    def deactivate(self) -> None:
        self.graph.cpu()


@dataclass(frozen=True)
class RunDescription:
    """What a report says of a run's network. FLOPs are for one image at the input size, two per multiply-add."""

    role: str
    backbone: str
    decoder: str
    method: str
    recipe: str
    step: int
    input_size: tuple[int, int]
    parameters: int
    flops: int
    weights: Path
    weights_bytes: int


def describe_run(run: Path, role: str = "junior") -> RunDescription:
    """Describe the `junior` or the `senior` of a run.

    Raises:
        RunDirectoryError: the run has no such network.
    """
    path = run / f"{role}.safetensors"
    network, metadata = load_network(path)
    return RunDescription(
        role=role,
        backbone=metadata.network.backbone,
        decoder=type(network.decoder).__name__.removesuffix("Decoder").lower(),
        method=metadata.method,
        recipe=metadata.recipe,
        step=metadata.step,
        input_size=metadata.input_size,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=count_flops(DeployGraph(network, metadata.input_size), metadata.input_size),
        weights=path,
        weights_bytes=path.stat().st_size,
    )


def load_run_predictor(
    run: Path, role: str = "junior", device: str = "auto", size: tuple[int, int] | None = None
) -> Predictor:
    """Return a predictor of a run's `junior` or `senior`, with the preprocessing and size that its artifact has.

    Its masks are exact: made from logits at the image's own size.

    Raises:
        RunDirectoryError: the run has no such network.
    """
    network, metadata = load_network(run / f"{role}.safetensors")
    size = size or metadata.input_size
    runner = TorchRunner(DeployGraph(network, size, (LOGITS,)), device)
    runner.activate()
    return Predictor(runner, metadata.labels, contract_of(network, size, (LOGITS,)))


def count_flops(graph: nn.Module, size: tuple[int, int]) -> int:
    """Return the floating-point operations of matrix products and convolutions for one image, two per multiply-add.

    `graph` takes images as a `DeployGraph` does, and may be on the device `meta`.
    """
    images = blank_images(graph, 1, size, next(graph.parameters()).device)
    # The counter knows the plain formula of attention, not every fused kernel's.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        graph(images)
    return int(counter.get_total_flops())
