"""Which images calibrate an export, choose a quantization and verify the artifact, and how a graph sees them."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_graphs
import torch
import yaml
from tiny_data import CLASSES, write_tiny_data

from segkc_deploy.data.images import read_image
from segkc_deploy.export.precision.convert import _batches, _LabeledImages
from segkc_deploy.export.real_images import RealImages, real_images
from segkc_deploy.labels import Labels, default_palette
from segkc_deploy.metrics import ConfusionMatrix
from segkc_deploy.preprocess import resize_image, resize_mask
from segkc_deploy.training.files.network_file import NetworkMetadata
from segkc_deploy.training.models.spec import NetworkSpec

LABELS = Labels(names=tuple(CLASSES), palette=default_palette(3))
METADATA = NetworkMetadata(
    role="junior",
    network=NetworkSpec(backbone="resnet10t", decoder_channels=16),
    labels=LABELS,
    input_size=(32, 64),
    recipe="tiny",
    method="none",
    step=0,
    ema=False,
    scores={},
)


def without(data: Path, *sections: str) -> Path:
    """Return the path of a copy of a data spec that lacks sections."""
    spec = yaml.safe_load(data.read_text())
    path = data.with_name(f"without-{'-'.join(sections)}.yaml")
    path.write_text(yaml.safe_dump({key: value for key, value in spec.items() if key not in sections}))
    return path


def places(images: RealImages) -> dict[str, list[str]]:
    """Return folder and name of the images by what they are for."""
    return {
        purpose: [f"{sample.image.parent.name}/{sample.image.stem}" for sample in getattr(images, purpose)]
        for purpose in ("verification", "calibration", "labeled")
    }


def test_what_calibrates_and_what_chooses_does_not_verify(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path)
    # Spread over all of them: neighbors in a data set are often alike.
    images = real_images(METADATA, data, None, verify=2, calibrate=3)
    assert places(images) == {
        "verification": ["val/000", "val/002"],
        "calibration": ["extra/000", "extra/002", "extra/005"],
        "labeled": ["train/000", "train/002", "train/003"],
    }
    assert all(sample.mask is not None for sample in (*images.verification, *images.labeled))
    assert images.masks
    assert not images.calibrates_on_verification
    labeled = real_images(METADATA, without(data, "unlabeled"), None, verify=9, calibrate=9)
    assert places(labeled)["calibration"] == [f"train/{number:03}" for number in range(4)]
    assert not labeled.calibrates_on_verification
    alone = real_images(METADATA, without(data, "unlabeled", "labeled"), None, verify=1, calibrate=9)
    assert places(alone) == {
        "verification": ["val/000"],
        "calibration": ["val/000", "val/001", "val/002"],
        "labeled": [],
    }
    assert alone.calibrates_on_verification


def test_a_folder_of_images_verifies_and_the_training_images_still_calibrate(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path)
    images = real_images(METADATA, data, str(tmp_path / "images" / "train"), verify=9, calibrate=2)
    assert places(images)["verification"] == [f"train/{number:03}" for number in range(4)]
    assert places(images)["calibration"] == ["extra/000", "extra/005"]
    assert not images.masks


def test_a_graph_is_shown_the_images_in_rgb_at_its_own_size(tmp_path: Path) -> None:
    images = real_images(METADATA, write_tiny_data(tmp_path), None, verify=3, calibrate=2)
    shown = list(_batches(images, images.calibration, (16, 24)))
    for batch, sample in zip(shown, images.calibration, strict=True):
        assert np.array_equal(batch, resize_image(read_image(sample.image), (16, 24))[None])
        blue = cv2.imread(str(sample.image))[..., 0].mean()
        assert batch[..., 2].mean() == pytest.approx(blue, abs=2)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_quantization_is_chosen_by_the_miou_at_the_images_own_size(tmp_path: Path, align_corners: bool) -> None:
    images = real_images(METADATA, write_tiny_data(tmp_path), None, verify=3, calibrate=3)
    graph = small_graphs.attention_graph()
    sets = replace(images.sets, coding=replace(images.sets.coding, labels=_five_classes()))
    matrix = ConfusionMatrix(5, 255)
    for sample in images.labeled:
        truth = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
        batch = resize_image(read_image(sample.image), (16, 24))[None]
        logits = torch.from_numpy(small_graphs.attention_in_float64(graph.weights, batch))
        full = torch.nn.functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=align_corners)
        matrix.update(truth, resize_mask(full[0].argmax(dim=0).numpy().astype(np.uint8), truth.shape))
    judge = _LabeledImages(replace(images, sets=sets), (16, 24), align_corners)
    assert judge.miou(graph.model()) == pytest.approx(matrix.scores().miou, abs=0.02)


def _five_classes() -> Labels:
    return Labels(names=tuple("abcde"), palette=default_palette(5))
