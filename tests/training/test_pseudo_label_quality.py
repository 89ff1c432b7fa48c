"""The quality of pseudo-labels by rule, by hand, and the command on a trained run."""

import json
from pathlib import Path

import pytest
import torch

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.training.pseudo_label_quality import LabeledPixels, Tally, main, rules
from segkc_deploy.training.terms.losses import PseudoLabels
from segkc_deploy.training.terms.threshold import SoftWeights


def test_quality_by_hand() -> None:
    classes, truth = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    pixels = LabeledPixels(PseudoLabels(classes, torch.tensor([0.9, 0.8, 0.6, 0.7]), 1 - classes), truth)
    tally = Tally(num_classes=3)
    for part in (slice(0, 1), slice(1, 4)):
        of_part = PseudoLabels(*(values[part] for values in pixels.labels if values is not None))
        tally.add(LabeledPixels(of_part, truth[part]).packed().unpacked(), torch.tensor([1.0, 0.5, 0.25, 0.25])[part])
    found = tally.quality()
    assert found.counted == pytest.approx(50)
    assert found.right == pytest.approx(100 * 1.75 / 2)
    assert found.right_of_class == pytest.approx((75, 12.5, None), nan_ok=True)
    assert found.area_of_class == pytest.approx((100 * 1.75 / 1.5, 100 * 0.25 / 0.5, None), nan_ok=True)


def test_soft_weights_take_in_every_image_alike() -> None:
    confidences = [torch.tensor([0.2, 0.4]), torch.tensor([0.8, 1.0]), torch.tensor([0.5, 0.5])]
    zeros = torch.zeros(2, dtype=torch.int64)
    soft = rules(2, [LabeledPixels(PseudoLabels(zeros, confidence, zeros + 1), zeros) for confidence in confidences])[
        "soft"
    ]
    assert isinstance(soft, SoftWeights)
    assert soft.mean[0].item() == pytest.approx((0.3 + 0.9 + 0.5) / 3)
    assert soft.variance[0].item() == pytest.approx((0.01 + 0.01 + 0) / 3)


def test_the_command_judges_a_runs_junior(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.json"
    assert main([str(run), "--data", str(data), "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert list(found["rules"]) == ["0", "0.8", "0.95", "soft", "soft-pair"]
    everything = found["rules"]["0"]
    assert everything["counted"] == 100
    assert found["rules"]["0.95"]["counted"] <= found["rules"]["0.8"]["counted"] < 100
    out = capsys.readouterr().out
    assert out.splitlines()[2].startswith(f"| 0 | 100.0% | {everything['right']:.1f}% |")
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        main([str(tmp_path / "none"), "--data", str(data)])
