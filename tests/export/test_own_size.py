"""Masks at an image's own size: what an artifact gives is what training's evaluation computes, for any size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import segkc_deploy
from segkc_deploy.data.images import read_image
from segkc_deploy.export.export_run import export_run
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.preprocess import resize_image, resize_mask
from segkc_deploy.training.evaluation.prediction import mask_predictor
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.recipe import ValidationConfig

pytestmark = pytest.mark.usefixtures("graphs_traced_once")

#: (height, width): larger, smaller, and one side below half of the network's, which is averaged by area.
SIZES = [(150, 210), (37, 61), (300, 40)]


@pytest.fixture(scope="module")
def images(data: Path) -> list[np.ndarray]:
    image = read_image(data.parent / "images" / "val" / "000.png")
    return [cv2.resize(image, (width, height)) for height, width in SIZES]


@pytest.mark.parametrize("engine", ["onnx", pytest.param("openvino", marks=pytest.mark.openvino)])
def test_masks_equal_those_of_the_evaluation(
    engine: str, run: Path, data: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    exported = export_run(run, data, ExportSettings(engine=engine), tmp_path)
    contract = exported.manifest.contract
    assert [output.name for output in contract.outputs] == ["masks", "logits"]
    assert (contract.resize, contract.interpolation) == ("stretch", "bilinear-or-area")
    network, _ = load_network(run / "junior.safetensors")
    evaluate = mask_predictor(network, torch.device("cpu"), ValidationConfig(size=contract.size))
    with segkc_deploy.load(exported.path, "cpu", threads=1) as predictor:
        differing = 0
        for image in images:
            mask = predictor.predict(image)
            assert (mask == evaluate(image)).mean() >= 0.9999
            enlarged = resize_mask(evaluate(resize_image(image, contract.size)), image.shape[:2])
            differing += int((mask != enlarged).sum())
    assert differing, "the masks are too simple to tell interpolated logits from enlarged masks"


@pytest.mark.parametrize("engine", ["onnx", pytest.param("openvino", marks=pytest.mark.openvino)])
def test_only_the_outputs_that_masks_are_made_from_are_computed(
    engine: str, run: Path, data: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    both = export_run(run, data, ExportSettings(engine=engine), tmp_path / "both")
    masks = export_run(run, data, ExportSettings(engine=engine, outputs=("masks",)), tmp_path / "masks")
    with segkc_deploy.load(both.path, "cpu") as predictor:
        assert list(predictor.infer(predictor.preprocess(images[:1]))) == ["logits"]
    with segkc_deploy.load(masks.path, "cpu") as predictor:
        assert list(predictor.infer(predictor.preprocess(images[:1]))) == ["masks"]
