"""The scores of a network that sees the images enlarged, by hand, and the command on a trained run."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.input_scales import main, scores_by_scale


def test_scores_are_those_of_enlarged_images(data: Path, run: Path) -> None:
    """Against masks that OpenCV and NumPy make from the network's own output."""
    sets = load_data_spec(data).resolve()
    found = scores_by_scale(run, "junior", sets, [1, 2])
    network, _ = load_network(run / "junior.safetensors")
    multiple = network.eval().size_multiple
    for scale, scores in found.items():
        right = counted = 0
        for sample in sets.val:
            image, truth = read_sample(sample, sets)
            assert truth is not None
            height, width = truth.shape
            seen = [int(scale * side / multiple + 0.5) * multiple for side in (width, height)]
            enlarged = cv2.resize(image, seen).astype(np.float32) / 255
            with torch.no_grad():
                cells = network.decoder(network.features(torch.from_numpy(enlarged.transpose(2, 0, 1))[None]))[0]
            logits = cv2.resize(cells.permute(1, 2, 0).numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
            valid = truth != sets.labels.ignore_index
            right += int((logits.argmax(axis=2) == truth)[valid].sum())
            counted += int(valid.sum())
        assert scores.pixel_accuracy == pytest.approx(100 * right / counted, abs=0.05)
    assert found[2].pixel_accuracy != pytest.approx(found[1].pixel_accuracy, abs=0.2)


def test_the_command_writes_what_it_prints(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scales.json"
    assert main([str(run), "--data", str(data), "--role", "senior", "--scales", "1", "1.5", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert list(found["scales"]) == ["1", "1.5"]
    assert found["run"]["role"] == "senior"
    for line, (scale, scores) in zip(capsys.readouterr().out.splitlines()[2:], found["scales"].items(), strict=True):
        assert line == f"| {scale} | {scores['miou']:.2f} | {scores['pixel_accuracy']:.2f} |"


def test_data_without_validation_images_is_refused(data: Path, run: Path) -> None:
    spec = yaml.safe_load(data.read_text())
    without = {name: value for name, value in spec.items() if name != "val"}
    path = data.with_name("without-val.yaml")
    path.write_text(yaml.safe_dump(without))
    try:
        with pytest.raises(DataError, match="names no validation images"):
            main([str(run), "--data", str(path)])
    finally:
        path.unlink()


def test_a_scale_out_of_range_is_refused(data: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(run), "--data", str(data), "--scales", "0"])
    assert "0 is not from 0.1 to 10" in capsys.readouterr().err
