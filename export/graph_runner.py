"""Runs an ONNX graph from memory, as its types say, where the engine built from it cannot run."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime

from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.runners.base import Runner


class GraphRunner(Runner):
    """Runs `model` by ONNX Runtime on the CPU, without fusions and in the precision that its types say."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._infer: Callable[[np.ndarray], list[np.ndarray]] | None = None
        self.description = f"the graph, emulated by onnxruntime {onnxruntime.__version__} on the CPU"

    def activate(self) -> None:
        self._infer = emulate(self._model)

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert self._infer is not None, "activate the runner first"
        names = [output.name for output in self._model.graph.output]
        return dict(zip(names, self._infer(images), strict=True))

    def deactivate(self) -> None:
        self._infer = None
