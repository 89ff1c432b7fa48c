"""The engine `onnx`: the graph itself, for ONNX Runtime and for everything else that reads ONNX."""

import onnxruntime

from segkc_deploy import atomic
from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.deploy_graph import LOGITS, MASKS
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Engine


class OnnxEngine(Engine):
    """Writes the graph as it is; ONNX Runtime optimizes it when it is loaded."""

    name = "onnx"
    any_batch = True
    upsampling = ("sparse", "dense")
    #: The runtime computes the logits alone, and from them masks at the image's own size; other programs read masks.
    default_outputs = (MASKS, LOGITS)

    def check(self, options: BuildOptions, precision: str) -> None:
        if options != BuildOptions():
            raise ConfigError("--engine onnx builds nothing, so it takes no build options; they are for --engine trt")

    def build(self, request: BuildRequest) -> Built:
        atomic.write_bytes(request.path, request.model.SerializeToString())
        return Built()

    def verification_device(self, precision: str, options: BuildOptions) -> str:
        # FP32 and INT8 on the CPU even where there is a GPU: the graph is verified, not a GPU's rounding. A CPU cannot
        # verify FP16: it runs chains of nodes in FP32, where nothing overflows.
        if precision != "fp16":
            return "cpu"
        on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and not cuda_obstacle()
        return "cuda" if on_gpu else ""
