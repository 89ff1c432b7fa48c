"""The engines by name."""

import difflib

from segkc_deploy.errors import ConfigError
from segkc_deploy.export.engines.aoti import AOTIEngine
from segkc_deploy.export.engines.base import Engine
from segkc_deploy.export.engines.onnx_file import OnnxEngine
from segkc_deploy.export.engines.openvino_ir import OpenVINOEngine
from segkc_deploy.export.engines.trt import TensorRTEngine
from segkc_deploy.export.engines.trt_rtx import TensorRTRTXEngine

_ENGINES = (OnnxEngine, TensorRTEngine, TensorRTRTXEngine, OpenVINOEngine, AOTIEngine)

_ALIASES = {"tensorrt": "trt", "engine": "trt", "tensorrt-rtx": "trt-rtx", "onnxruntime": "onnx"}


def find_engine(name: str) -> Engine:
    """Return the engine that is called `name`.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    engines = {engine.name: engine for engine in _ENGINES}
    found = engines.get(_ALIASES.get(name, name))
    if found is None:
        close = difflib.get_close_matches(name, [*engines, *_ALIASES], n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(engines)}"
        raise ConfigError(f"--engine {name}: there is no such engine; {hint}")
    return found()
