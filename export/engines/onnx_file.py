"""The engine `onnx`: the graph itself, for ONNX Runtime and for everything else that reads ONNX."""

import onnxruntime

from segkc_deploy import atomic
from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Engine


class OnnxEngine(Engine):
    """Writes the graph as it is; ONNX Runtime optimizes it when it is loaded."""

    name = "onnx"
    suffix = ".onnx"
    #: no fp8: ONNX Runtime's fusions make invalid graphs of it, or lose a Relu (1.31)
    precisions = ("fp32", "fp16", "bf16", "int8")
    any_batch = True
    tail = "sparse"

    def check(self, options: BuildOptions) -> None:
        if options != BuildOptions():
            raise ConfigError("--engine onnx builds nothing, so it takes no build options; they are for --engine trt")

    def build(self, request: BuildRequest) -> Built:
        atomic.write_bytes(request.path, request.model.SerializeToString())
        return Built()

    def judge(self, precision: str) -> str:
        # FP32 and INT8 on the CPU even where there is a GPU: the graph is judged, not a GPU's rounding.
        if precision not in ("fp16", "bf16"):
            return "cpu"
        # Of 16-bit graphs the CPU says nothing: it has no BF16 kernels, and runs chains of FP16 nodes in FP32, where
        # nothing overflows.
        on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and not cuda_obstacle()
        return "cuda" if on_gpu else ""
