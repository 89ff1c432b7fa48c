"""Classes whose mirror images are labeled as others: found by their pictures or their names, and no others."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from data_helpers import write_mask, write_spec
from PIL import Image

from segkc_deploy.data.check import Finding, check
from segkc_deploy.data.check_mirror import mirrored_names
from segkc_deploy.data.spec import load_data_spec


def _scene(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A plate on noise; a few pixels of class 2, by what `kind` says they are."""
    rng = np.random.default_rng(seed)
    image = rng.normal((60, 90, 150), 12, (96, 128, 3))
    mask = np.zeros((96, 128), np.uint8)
    top, left = int(rng.integers(12, 50)), int(rng.integers(12, 70))
    plate = np.s_[top : top + 28, left : left + 40]
    image[plate] = rng.normal((70, 180, 80), 10, (28, 40, 3))
    mask[plate] = 1
    if kind == "left corner":
        mask[top : top + 3, left : left + 4] = 2
    elif kind == "both corners":
        mask[top : top + 3, left : left + 4] = mask[top : top + 3, left + 36 : left + 40] = 2
    else:  # a spot that looks the same both ways
        center = (left + 20, top + 14)
        cv2.circle(mask, center, 2, 2, -1)
        cv2.circle(image, center, 2, (240, 230, 60), -1)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _mirrored(root: Path, kind: str, classes: str = "[ground, plate, mark]") -> list[Finding]:
    for index in range(6):
        image, mask = _scene(kind, index)
        (root / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        write_mask(root / "masks" / f"{index}.png", mask)
    path = write_spec(root, f"classes: {classes}\nlabeled: {{images: images, masks: masks}}\n")
    return [one for one in check(load_data_spec(path).resolve(), workers=1).findings if one.kind == "mirrored"]


def test_a_mark_at_one_side_alone_is_found(tmp_path: Path) -> None:
    (finding,) = _mirrored(tmp_path, "left corner")
    assert finding.level == "warning"
    assert "-o weak.flip=0" in finding.message
    assert "mark (" in finding.message
    assert "plate (" not in finding.message


@pytest.mark.parametrize("kind", ["both corners", "spot"])
def test_what_is_labeled_alike_both_ways_is_not(tmp_path: Path, kind: str) -> None:
    assert _mirrored(tmp_path, kind) == []


def test_names_that_differ_in_left_and_right(tmp_path: Path) -> None:
    assert mirrored_names(["Left lung", "heart", "right Lung", "leftover"]) == [("Left lung", "right Lung")]
    (finding,) = _mirrored(tmp_path, "spot", "[ground, left_part, right_part]")
    assert "left_part and right_part" in finding.message
