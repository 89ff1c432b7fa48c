"""OpenVINO's own format: an `.xml` file for the graph and a `.bin` file for the weights."""

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

from segkc_deploy.atomic import atomic_path
from segkc_deploy.errors import BuildError, ConfigError
from segkc_deploy.export.deploy_graph import LOGITS, MASKS
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Engine
from segkc_deploy.export.engines.openvino_biases import add_missing_biases
from segkc_deploy.export.engines.openvino_precision import keep_in_fp32, tensors_in_fp32
from segkc_deploy.manifest import Build, LayerPrecision, companion_path
from segkc_deploy.runners.openvino_runner import (
    GRAPH_PRECISION,
    HINT_OPTION,
    WEIGHTS,
    compile_for_cpu,
    import_openvino,
    layer_precisions,
    one_line,
)

#: The hint with which each precision runs; without one OpenVINO would choose by the CPU's features.
#: FP16 is written in the graph: asked for it by a hint, a CPU with BF16 and no FP16 computes in BF16.
_HINTS = {"fp32": "f32", "int8": "f32", "fp16": GRAPH_PRECISION, "bf16": "bf16", "int8-bf16": "bf16"}


class OpenVINOEngine(Engine):
    """Converts the graph, and names the precision in a hint that the runner sets.

    A CPU without FP16 or BF16 arithmetic runs such graphs in FP32, no faster.
    """

    name = "openvino"
    hinted_precisions = ("bf16", "int8-bf16")
    #: As fast taken apart, and older releases do not know the one operator.
    fused_attention = False
    companion_suffixes = (WEIGHTS,)
    upsampling = ("sparse", "dense")
    #: The runtime computes the logits alone, and from them masks at the image's own size; other programs read masks.
    default_outputs = (MASKS, LOGITS)
    any_batch = True

    def check(self, options: BuildOptions, precision: str) -> None:
        """See `Engine.check`.

        Raises:
            MissingDependencyError: openvino is not installed.
            ConfigError: an option is not for this engine.
        """
        import_openvino()
        if options != BuildOptions():
            raise ConfigError("--engine openvino has no options of the builder; leave them out")

    def build(self, request: BuildRequest) -> Built:
        """See `Engine.build`. The layers' precision is that on this machine's CPU."""
        openvino = import_openvino()
        hint = _HINTS[request.precision]
        start = time.perf_counter()
        graph = add_missing_biases(request.model).SerializeToString()
        weights = companion_path(request.path, WEIGHTS)
        request.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=request.path.parent, prefix=".openvino-") as folder:
            written = Path(folder, "model.xml")
            try:
                model = openvino.Core().read_model(graph)
                _name_outputs(model, request)
                # Halving the weights would change the precision behind the graph's back.
                openvino.save_model(model, written, compress_to_fp16=False)
                del model
                if request.precision in self.hinted_precisions:
                    keep_in_fp32(written, tensors_in_fp32(request.model, request.fallbacks))
                # From the files: what cannot be read again is not handed on.
                compiled = compile_for_cpu(openvino, openvino.Core().read_model(written), None, hint)
            except RuntimeError as error:
                raise BuildError(f"{request.path}: openvino refused the graph: {one_line(error)}") from None
            layers = layer_precisions(compiled)
            # The graph last: without it, weights are no artifact.
            with atomic_path(request.path) as xml, atomic_path(weights) as binary:
                written.with_suffix(WEIGHTS).replace(binary)
                written.replace(xml)
        build = Build(
            builder="openvino",
            version=openvino.__version__,
            onnx_sha256=hashlib.sha256(graph).hexdigest(),
            options={HINT_OPTION: hint},
            seconds=round(time.perf_counter() - start, 2),
        )
        return Built(build, LayerPrecision(source="inspector", layers=layers))


def _name_outputs(model: Any, request: BuildRequest) -> None:
    """Leave every output the one name of the contract; OpenVINO also keeps those of nodes it merges."""
    for output, wanted in zip(model.outputs, request.contract.outputs, strict=True):
        assert wanted.name in output.names, f"{wanted.name} is not among {output.names}"
        output.tensor.set_names({wanted.name})
