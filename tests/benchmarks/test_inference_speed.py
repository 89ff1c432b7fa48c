"""The study of inference speed: contenders in processes of their own, shares of the roofline, and random networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from segkc_deploy.benchmarks.schema import Peak
from segkc_deploy.benchmarks.studies import inference_speed
from segkc_deploy.benchmarks.studies.inference_rows import InferenceResult, as_markdown
from segkc_deploy.benchmarks.studies.inference_speed import Variant, measure_subject
from segkc_deploy.benchmarks.studies.inference_subjects import Subject
from segkc_deploy.export.export_run import export_run
from segkc_deploy.export.random_run import write_random_run
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.export.torch_runner import load_run_predictor
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.models.spec import NetworkSpec

VARIANTS = (
    Variant("eager", "fp32", "published"),
    Variant("onnx", "fp32", artifact="junior-fp32.onnx"),
    Variant("absent", "fp32", artifact="junior-fp16.onnx"),
)


def test_variants_run_interleaved_and_are_compared_with_the_first(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_speed, "SIZES", ((48, 64), (90, 130)))
    manifest = export_run(run, data, ExportSettings(verify_images=1), tmp_path).manifest
    subject = Subject("tiny", run, tmp_path, manifest.contract.size, manifest.parameters, manifest.flops)
    peak = Peak(device="cpu", precision="fp32", threads=1, gflops=100.0, copy_gb_per_s=10.0, how="made up")
    image = data.parent / "images" / "val" / "000.png"

    rows = measure_subject(subject, image, VARIANTS, rounds=2, threads=1, peaks=[peak], warm_up_s=0.1)

    assert [(row.image, row.variant) for row in rows] == [
        (size, variant.name) for size in ("64x48", "130x90") for variant in VARIANTS
    ]
    for eager, onnx, absent in (rows[:3], rows[3:]):
        assert eager.speed == 1.0 and eager.agreement == 100.0
        assert onnx.speed is not None and onnx.speed > 0 and onnx.p50_ms is not None
        # PIL smooths what it shrinks, so the masks are not quite the same.
        assert onnx.agreement is not None and onnx.agreement > 90
        assert onnx.roofline_ms == pytest.approx(subject.flops / 1e11 * 1e3)
        assert onnx.roofline_share == pytest.approx(100 * onnx.roofline_ms / onnx.p50_ms)
        assert "no such artifact" in (absent.error or "") and absent.p50_ms is None
    machine = {"cpu": "a CPU", "cores": 1, "ram_gib": 1, "os": "an OS"}
    result = InferenceResult(
        machine=machine, remark="", command="c", commit="0" * 40, threads=1, rounds=2, runs=3, peaks=[peak], rows=rows
    )
    text = as_markdown(result)
    assert f"| onnx | {rows[1].p50_ms:.1f} |" in text and "failed: " in text
    assert InferenceResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv4_conv_small_035"])
def test_the_classes_of_a_random_network_share_the_pixels(backbone: str, tmp_path: Path) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8) for seed in range(2)]
    spec = NetworkSpec(backbone=backbone, decoder_channels=16)
    data = write_random_run(tmp_path / "a", spec, (64, 64), images, classes=5)
    with load_run_predictor(tmp_path / "a", device="cpu") as predictor:
        shares = np.bincount(predictor.predict(images[0]).ravel(), minlength=5) / (40 * 60)
    assert (shares > 0.02).sum() >= 4 and shares.max() < 0.7
    assert data.is_file()
    write_random_run(tmp_path / "b", spec, (64, 64), images, classes=5)
    first, again = (load_network(tmp_path / name / "junior.safetensors")[0].state_dict() for name in "ab")
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
