import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_artifact import LABELS, expected_mask, make_artifact, manifest_of, network

import segkc_deploy
from segkc_deploy.errors import ArtifactError, ConfigError, DataError
from segkc_deploy.machine import cpu_text, describe_machine
from segkc_deploy.manifest import write_manifest
from segkc_deploy.runners.onnx_runner import OnnxRuntimeRunner, _providers

SIZE = (8, 12)


def random_images(count, size=SIZE, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def write_png(path, image):
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def artifact(tmp_path):
    return make_artifact(tmp_path, size=SIZE)


@pytest.fixture
def predictor(artifact):
    with segkc_deploy.load(artifact, device="cpu") as predictor:
        yield predictor


def test_one_image_gives_one_mask(predictor):
    image = random_images(1)[0]
    mask = predictor.predict(image)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected_mask(image))
    assert len(np.unique(mask)) == 4, "the image is too simple to show anything"


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_a_list_gives_a_list_whatever_the_batch(predictor, batch_size):
    images = random_images(5)
    masks = predictor.predict(images, batch_size=batch_size)
    assert len(masks) == 5
    for image, mask in zip(images, masks, strict=True):
        np.testing.assert_array_equal(mask, expected_mask(image))


def test_masks_have_their_images_own_sizes(predictor):
    images = [np.repeat(np.repeat(image, 3, axis=0), 3, axis=1) for image in random_images(1)] + random_images(
        1, (5, 31)
    )
    masks = predictor.predict(images)
    assert [mask.shape for mask in masks] == [(24, 36), (5, 31)]


def test_an_image_of_another_size_is_resized_there_and_its_mask_back(predictor):
    quarters = np.zeros((80, 120, 3), dtype=np.uint8)
    quarters[:40, :60, 0] = quarters[40:, :60, 1] = quarters[40:, 60:, 2] = 250
    expected = np.zeros((80, 120), dtype=np.uint8)
    expected[:40, :60], expected[40:, :60], expected[40:, 60:] = 1, 2, 3
    np.testing.assert_array_equal(predictor.predict(quarters), expected)


def test_files_are_read_as_rgb(predictor, tmp_path):
    image = random_images(1)[0]
    path = write_png(tmp_path / "image.png", image)
    np.testing.assert_array_equal(predictor.predict(path), expected_mask(image))
    np.testing.assert_array_equal(predictor.predict([str(path), image])[0], expected_mask(image))


def test_an_empty_list_gives_an_empty_list(predictor):
    assert predictor.predict([]) == []


def test_views_and_read_only_arrays_are_taken(predictor):
    image = random_images(1, (12, 8))[0].transpose(1, 0, 2)[:, ::-1]
    image.flags.writeable = False
    np.testing.assert_array_equal(predictor.predict(image), expected_mask(image))


def test_the_three_parts_are_what_predict_does(predictor):
    images = random_images(3)
    batch = predictor.preprocess(images)
    assert batch.dtype == np.uint8
    assert batch.shape == (3, *SIZE, 3)
    outputs = predictor.infer(batch)
    assert outputs["masks"].dtype == np.uint8
    np.testing.assert_array_equal(outputs["masks"], expected_mask(batch))
    masks = predictor.postprocess(outputs, [(16, 24), SIZE, (4, 6)])
    assert [mask.shape for mask in masks] == [(16, 24), SIZE, (4, 6)]
    np.testing.assert_array_equal(masks[0][::2, ::2], expected_mask(images[0]))


@pytest.mark.parametrize("count", [1, 4, 6])
def test_an_artifact_with_a_fixed_batch_takes_any_number(tmp_path, count):
    with segkc_deploy.load(make_artifact(tmp_path, batch=4), device="cpu") as predictor:
        images = random_images(count)
        for image, mask in zip(images, predictor.predict(images, batch_size=2), strict=True):
            np.testing.assert_array_equal(mask, expected_mask(image))


def test_the_predictor_knows_its_artifact(predictor):
    assert predictor.labels == LABELS
    assert predictor.contract.size == SIZE
    assert predictor.manifest.precision == "fp32"
    assert predictor.description.startswith("onnxruntime 1.")
    assert predictor.description.endswith(" CPUExecutionProvider")


def test_threads_do_not_change_the_mask(artifact):
    image = random_images(1)[0]
    with segkc_deploy.load(artifact, device="cpu", threads=2) as predictor:
        np.testing.assert_array_equal(predictor.predict(image), expected_mask(image))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 12, 3), dtype=np.float32), "float32 array of shape (8, 12, 3)"),
        (np.zeros((8, 12), dtype=np.uint8), "gray"),
        (np.zeros((8, 12, 4), dtype=np.uint8), "(8, 12, 4)"),
        (np.zeros((0, 12, 3), dtype=np.uint8), "(0, 12, 3)"),
        (np.zeros((2, 8, 12, 3), dtype=np.uint8), "list of images"),
        ("none.png", "none.png: no such image"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(predictor, image, message):
    with pytest.raises(DataError) as refused:
        predictor.predict([random_images(1)[0], image])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("options", [{"device": "gpu"}, {"threads": 0}])
def test_options_that_do_not_exist_are_refused(artifact, options):
    with pytest.raises(ConfigError):
        segkc_deploy.load(artifact, **options)


def test_a_batch_of_none_is_refused(predictor):
    with pytest.raises(ConfigError, match="1 or more"):
        predictor.predict(random_images(1), batch_size=0)


def test_another_engine_is_refused_with_those_that_are_known(tmp_path):
    artifact = make_artifact(tmp_path, engine="abacus")
    with pytest.raises(ArtifactError, match=r"'abacus'.*onnx"):
        segkc_deploy.load(artifact)


def test_a_network_cut_short_at_any_byte_is_refused(tmp_path):
    """The manifest fits the cut file, so that only ONNX Runtime can notice."""
    whole = network(SIZE, -1).SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError) as refused:
            OnnxRuntimeRunner(path, device="cpu").activate()
        assert "cut.onnx" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_network_with_other_inputs_and_outputs_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 12])],
    )
    path = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    write_manifest(path, manifest_of(path))
    with pytest.raises(ArtifactError, match=r"takes x tensor\(float\) and gives y tensor\(float\)"):
        segkc_deploy.load(path, device="cpu")


def test_a_network_of_another_size_than_its_manifest_says_is_refused(tmp_path):
    artifact = make_artifact(tmp_path)
    write_manifest(artifact, manifest_of(artifact, size=(16, 16)))
    with segkc_deploy.load(artifact, device="cpu") as predictor, pytest.raises(ArtifactError) as refused:
        predictor.predict(random_images(1)[0])
    assert "(1, 16, 16, 3)" in str(refused.value)


LOAD = "import sys, segkc_deploy; print(segkc_deploy.load(sys.argv[1], device=sys.argv[2]).description)"


def load_in_a_new_process(artifact: Path, device: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LOAD, artifact, device], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_nothing_is_printed_about_gpus_that_are_not_there(artifact, device):
    result = load_in_a_new_process(artifact, device)
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.startswith("onnxruntime ")


def test_the_tensorrt_provider_that_does_not_load_is_named_with_what_brings_it(artifact, monkeypatch, capfd):
    if load_in_a_new_process(artifact, "tensorrt").returncode == 0:
        pytest.skip("TensorRT works here")
    monkeypatch.setattr("segkc_deploy.runners.onnx_runner.cuda_obstacle", lambda: "")
    with pytest.raises(ConfigError, match=r'device tensorrt cannot be used: .*"tensorrt>=10,<11"'):
        segkc_deploy.load(artifact, device="tensorrt")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ConfigError, match="use auto, cpu, cuda, tensorrt"):
        segkc_deploy.load(artifact, device="gpu")


def test_each_file_has_tensorrt_engines_of_its_own(artifact, tmp_path, monkeypatch):
    """ONNX Runtime finds an engine by the names in the graph, which two networks of one kind share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = tmp_path / "other" / artifact.name
    other.parent.mkdir()
    other.write_bytes(artifact.read_bytes() + b"\0")
    first, again, second = (
        dict(_providers("TensorrtExecutionProvider", path)[0][1]) for path in (artifact, artifact, other)
    )
    assert first == again
    assert first["trt_engine_cache_path"] != second["trt_engine_cache_path"]
    assert first["trt_timing_cache_path"] == second["trt_timing_cache_path"]
    assert Path(second["trt_engine_cache_path"]).is_dir()


def test_cuda_is_used_or_what_it_lacks_is_said(artifact):
    result = load_in_a_new_process(artifact, "cuda")
    if result.returncode == 0:
        assert "CUDAExecutionProvider" in result.stdout
    else:
        last = result.stderr.splitlines()[-1]
        assert "ConfigError: device cuda cannot be used: " in last
        assert "onnxruntime:" not in result.stderr


def test_a_cuda_provider_that_does_not_load_is_silent_and_named(artifact, monkeypatch, capfd):
    """As on a machine with a driver and a GPU, but without the CUDA libraries."""
    if load_in_a_new_process(artifact, "cuda").returncode == 0:
        pytest.skip("CUDA works here")
    monkeypatch.setattr("segkc_deploy.runners.onnx_runner.cuda_obstacle", lambda: "")
    with segkc_deploy.load(artifact, device="auto") as predictor:
        assert predictor.description.endswith("CPUExecutionProvider")
    with pytest.raises(ConfigError, match=r"device cuda cannot be used: .*onnxruntime"):
        segkc_deploy.load(artifact, device="cuda")
    assert capfd.readouterr() == ("", "")


def test_the_machine_is_described_in_json_values():
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert set(machine["cpu_features"]) <= {"AVX2", "AVX-512", "VNNI", "BF16", "AMX", "NEON", "I8MM", "SVE"}
    assert cpu_text({"cpu": "a CPU"}) == "a CPU"
    assert cpu_text({"cpu": "a CPU", "cpu_features": ["AVX2", "VNNI"]}) == "a CPU (AVX2, VNNI)"
    assert machine["packages"]["numpy"] == np.__version__
    assert machine["python"] == ".".join(map(str, sys.version_info[:3]))
    assert isinstance(machine["gpus"], list)


def test_gpus_are_those_of_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.65.06, 143771'\necho 'NVIDIA Thor, 580.00, [N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert describe_machine()["gpus"] == [
        {"name": "NVIDIA H200", "driver": "580.65.06", "memory_mib": 143771},
        {"name": "NVIDIA Thor", "driver": "580.00", "memory_mib": None},
    ]


def test_the_documented_lines_for_plain_onnxruntime_give_the_same_mask(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")
    code = page.split("With ONNX Runtime and nothing else:")[1].split("```python")[1].split("```")[0]
    artifact = make_artifact(tmp_path, "junior-fp32.onnx", size=SIZE)
    image = random_images(1, (13, 21))[0]
    write_png(tmp_path / "street.png", image).rename(tmp_path / "street.jpg")  # read by content, and PNG keeps values
    monkeypatch.chdir(tmp_path)
    result: dict[str, np.ndarray] = {}
    exec(code, result)
    with segkc_deploy.load(artifact, device="cpu") as predictor:
        np.testing.assert_array_equal(result["mask"], predictor.predict(image))
