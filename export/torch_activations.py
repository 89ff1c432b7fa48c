"""The most memory that a PyTorch network's intermediate tensors take at once for one image: by its operations."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segkc_deploy.export.deploy_graph import DeployGraph, blank_images
from segkc_deploy.export.liveness import Step, most_live
from segkc_deploy.training.files.network_file import load_network


def torch_activation_peak(graph: nn.Module, size: tuple[int, int]) -> int:
    """Return the most bytes that the tensors between the weights of `graph` take at once, operation after operation.

    Each lives from the operation that makes it to the last one that reads it. Input and outputs count, weights and
    what is computed from weights alone do not; views of one memory count once. Nothing is computed: only shapes are.

    Args:
        graph: a network of images, uint8 (N, H, W, 3), such as a `DeployGraph`.
        size: (height, width) of the image.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        images = blank_images(graph, 1, size, next(graph.parameters()).device)
        with _Tape(images) as tape:
            outputs = graph(images)
    return most_live(tape.steps, tape.sizes, given=[_memory(images)], kept=[*map(_memory, _tensors(outputs))])


def run_activation_peak(run: Path, role: str) -> int:
    """Return the same of the `junior` or the `senior` of a run, at the size that it is deployed at.

    Raises:
        RunDirectoryError: the run has no such network.
    """
    network, metadata = load_network(run / f"{role}.safetensors")
    return torch_activation_peak(DeployGraph(network, metadata.input_size).eval(), metadata.input_size)


class _Tape(TorchDispatchMode):
    """Records every operation on what was computed from `images`, by the memory that it reads and writes."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.sizes: dict[Hashable, int] = {_memory(images): images.untyped_storage().nbytes()}
        self._tensors: list[Any] = [images]  # alive, so that no memory gets the identity of an earlier one

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        reads = {_memory(tensor) for tensor in _tensors((args, kwargs))} & self.sizes.keys()
        if reads:
            written = _tensors(result)
            self.sizes |= {_memory(tensor): tensor.untyped_storage().nbytes() for tensor in written}
            self.steps.append(Step(reads, {_memory(tensor) for tensor in written}))
            self._tensors.append(result)
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _memory(tensor: Tensor) -> Hashable:
    return tensor.untyped_storage()._cdata
