"""The Triton model repository, read back with Triton's own protobuf."""

import json
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from tiny_artifact import LABELS, make_artifact

import segkc_deploy
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.triton import check_model_repository, write_model_repository
from segkc_deploy.labels import Labels
from segkc_deploy.manifest import TensorContract, read_manifest
from segkc_deploy.model_config import read_config

text_format = pytest.importorskip("google.protobuf.text_format")
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")


def written(tmp_path, options=None, **changes):
    artifact = make_artifact(tmp_path, "junior-fp32.onnx", **changes)
    folder = write_model_repository(artifact, read_manifest(artifact), tmp_path / "models", **(options or {}))
    return folder, text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


def tensors(values):
    return [(value.name, model_config_pb2.DataType.Name(value.data_type), list(value.dims)) for value in values]


def test_an_onnx_artifact_becomes_a_model(tmp_path):
    folder, config = written(tmp_path)
    assert folder == tmp_path / "models" / "junior-fp32"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "1/model.onnx.json",
        "config.pbtxt",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["junior-fp32"]
    assert config.name == folder.name
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 8
    assert tensors(config.input) == [("images", "TYPE_UINT8", [8, 12, 3])]
    assert tensors(config.output) == [("masks", "TYPE_UINT8", [8, 12])]
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, group_kind("KIND_AUTO"))]
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000
    assert not config.dynamic_batching.preferred_batch_size


def group_kind(name):
    return model_config_pb2.ModelInstanceGroup.Kind.Value(name)


def test_the_copied_artifact_is_the_artifact(tmp_path):
    folder, config = written(tmp_path)
    with segkc_deploy.load(folder / "1" / "model.onnx", device="cpu") as predictor:
        assert predictor.manifest.sha256 == config.parameters["sha256"].string_value


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": ("masks", "confidence", "logits")},
        {"outputs": ("logits",), "batch": 4},
        {"outputs": ("masks",), "size_multiple": 4, "min_size": (4, 4), "max_size": (16, 16)},
    ],
    ids=["all outputs", "fixed batch", "free size"],
)
def test_tensors_are_those_of_the_graph(tmp_path, changes):
    """The whole shape, with the batch dimension that Triton adds, is what ONNX Runtime sees in the file."""
    folder, config = written(tmp_path, **changes)
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    batch = [-1] if config.max_batch_size else []
    names = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    for values, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        seen = [(one.name, names[one.type], [dim if isinstance(dim, int) else -1 for dim in one.shape]) for one in real]
        assert [(name, kind, batch + dims) for name, kind, dims in tensors(values)] == seen


def test_a_fixed_batch_is_served_as_it_is(tmp_path):
    _, config = written(tmp_path, batch=4)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    (warmup,) = config.model_warmup
    assert warmup.batch_size == 1
    assert list(warmup.inputs["images"].dims) == [4, 8, 12, 3]


def test_the_model_is_warmed_up_with_one_image_and_a_full_batch(tmp_path):
    _, config = written(tmp_path, size_multiple=4, min_size=(4, 4), max_size=(16, 16))
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 8]
    for warmup in config.model_warmup:
        assert list(warmup.inputs) == ["images"]
        assert warmup.inputs["images"].zero_data
        assert warmup.inputs["images"].data_type == model_config_pb2.TYPE_UINT8
        assert list(warmup.inputs["images"].dims) == [8, 12, 3]


def test_a_batch_is_never_larger_than_the_artifact_takes(tmp_path):
    assert written(tmp_path / "a", max_batch=4)[1].max_batch_size == 4
    assert written(tmp_path / "b", max_batch=32)[1].max_batch_size == 32
    assert written(tmp_path / "c", {"max_batch": 16}, max_batch=4)[1].max_batch_size == 4
    assert written(tmp_path / "d", {"max_batch": 2}, max_batch=4)[1].max_batch_size == 2


def test_serving_options_are_written(tmp_path):
    options = {"instances": 3, "max_batch": 16, "queue_delay_us": 250, "preferred_batches": (4, 16)}
    _, config = written(tmp_path, options)
    assert config.max_batch_size == 16
    assert config.instance_group[0].count == 3
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]


def test_a_tensorrt_plan_is_served_on_gpus(tmp_path):
    artifact = make_artifact(
        tmp_path, "junior-fp16.engine", engine="trt", precision="fp16", outputs=("masks", "logits")
    )
    folder = write_model_repository(artifact, read_manifest(artifact), tmp_path / "models")
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.platform == "tensorrt_plan"
    assert config.instance_group[0].kind == group_kind("KIND_GPU")
    assert (folder / "1" / "model.plan").read_bytes() == artifact.read_bytes()
    assert tensors(config.output)[1] == ("logits", "TYPE_FP32", [-1, -1, 4])


def test_class_names_of_any_kind_reach_the_client(tmp_path):
    names = ('quote " and \\', "Straße", "new\nline", "人\t\x01")
    labels = Labels(names=names, palette=((1, 2, 3),) * 4)
    _, config = written(tmp_path, labels=labels)
    assert tuple(json.loads(config.parameters["class_names"].string_value)) == names
    assert json.loads(config.parameters["palette"].string_value) == [[1, 2, 3]] * 4
    assert config.parameters["precision"].string_value == "fp32"


def test_a_client_learns_the_classes_and_the_contract(tmp_path):
    """From the configuration as Triton's HTTP API tells it."""
    from google.protobuf.json_format import MessageToDict

    folder, config = written(tmp_path, outputs=("masks", "logits"))
    told = MessageToDict(config, preserving_proto_field_name=True)
    contract = read_manifest(folder / "1" / "model.onnx").contract
    assert read_config(told, "junior-fp32") == (LABELS, contract.model_copy(update={"max_batch": 8}))


def test_more_bands_of_16_bits_are_served(tmp_path):
    manifest = read_manifest(make_artifact(tmp_path, "junior-fp32.onnx"))
    images = TensorContract(name="images", dtype="uint16", layout="NHWC")
    contract = manifest.contract.model_copy(update={"input": images, "bands": 5, "color": "bands"})
    folder = write_model_repository(
        tmp_path / "junior-fp32.onnx", manifest.model_copy(update={"contract": contract}), tmp_path / "models"
    )
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert tensors(config.input) == [("images", "TYPE_UINT16", [8, 12, 5])]
    warmup = config.model_warmup[0].inputs["images"]
    assert (warmup.data_type, list(warmup.dims)) == (model_config_pb2.TYPE_UINT16, [8, 12, 5])


def test_an_existing_model_is_replaced_only_when_asked_for(tmp_path):
    folder, _ = written(tmp_path)
    (folder / "1" / "old").touch()
    with pytest.raises(ConfigError, match="junior-fp32: already exists"):
        written(tmp_path)
    assert (folder / "1" / "old").exists()
    written(tmp_path, {"overwrite": True})
    assert not (folder / "1" / "old").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["junior-fp32"]


def test_a_failed_copy_leaves_nothing(tmp_path):
    artifact = make_artifact(tmp_path, "junior-fp32.onnx")
    manifest = read_manifest(artifact)
    artifact.unlink()
    with pytest.raises(FileNotFoundError):
        write_model_repository(artifact, manifest, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"instances": 0}, {"max_batch": 0}, {"queue_delay_us": -1}, {"preferred_batches": (4, 9)}]
)
def test_numbers_that_cannot_be_are_refused(tmp_path, options):
    with pytest.raises(ConfigError):
        written(tmp_path, options)


def test_an_engine_that_triton_does_not_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"openvino.*--engine onnx or trt"):
        check_model_repository("openvino", "junior-fp32", tmp_path)


def test_the_documented_client_gets_the_mask_and_the_names(tmp_path, monkeypatch):
    """Against a stand-in that speaks Triton's protocol and runs the repository's model."""
    grpc = pytest.importorskip("grpc")
    services = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")
    messages = pytest.importorskip("tritonclient.grpc.service_pb2")
    folder, config = written(tmp_path)
    model = folder / "1" / "model.onnx"

    class StandIn(services.GRPCInferenceServiceServicer):
        def ModelConfig(self, request, context):  # noqa: N802
            assert request.name == folder.name
            return messages.ModelConfigResponse(config=config)

        def ModelInfer(self, request, context):  # noqa: N802
            (tensor,) = request.inputs
            assert (request.model_name, tensor.name, tensor.datatype) == (folder.name, "images", "UINT8")
            images = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tensor.shape)
            session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            (masks,) = session.run(["masks"], {"images": images})
            response = messages.ModelInferResponse(raw_output_contents=[masks.tobytes()])
            response.outputs.add(name="masks", datatype="UINT8", shape=masks.shape)
            return response

    image = np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "street.png"), image[..., ::-1])
    (tmp_path / "street.png").rename(tmp_path / "street.jpg")  # read by content, and PNG keeps values
    page = (Path(__file__).parents[2] / "docs" / "triton.md").read_text(encoding="utf-8")
    code = page.split("### With Triton's library")[1].split("```python")[1].split("```")[0]
    server = grpc.server(futures.ThreadPoolExecutor(1))
    services.add_GRPCInferenceServiceServicer_to_server(StandIn(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    monkeypatch.chdir(tmp_path)
    result = {}
    try:
        exec(code.replace("localhost:8001", f"localhost:{port}"), result)
    finally:
        result["client"].close()
        server.stop(None).wait()
    assert tuple(result["names"]) == LABELS.names
    with segkc_deploy.load(model, device="cpu") as predictor:
        np.testing.assert_array_equal(result["mask"], predictor.predict(image))
