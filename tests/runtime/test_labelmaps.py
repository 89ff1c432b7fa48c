"""CVAT's labelmap.txt as editors and other tools leave it."""

from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_image, write_spec
from PIL import Image

from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError

IDS = np.resize(np.array([0, 1, 2], np.uint8), (32, 48))
COLORS = np.array([(0, 0, 0), (128, 64, 128), (107, 142, 35)], np.uint8)
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ntree:107,142,35::\n"


def _first_mask(root: Path) -> np.ndarray:
    write_image(root / "images/a.png")
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(COLORS[IDS]).save(root / "masks/a.png")
    sets = load_data_spec(
        write_spec(root, "classes: [background, road, tree]\nlabeled: {images: images, masks: masks}\n")
    ).resolve()
    return read_mask(sets.labeled[0], sets.coding)


@pytest.mark.parametrize(
    "content",
    [
        LABELMAP.encode("utf-8-sig"),
        LABELMAP.replace("\n", "\r\n").encode(),
        LABELMAP.replace("\n", "\r").encode(),
        LABELMAP.replace(":", " : ").replace(",", ", ").encode(),
        f"\n   # a remark\n\n{LABELMAP}\n# another\n".encode(),
        LABELMAP.replace("::", "").encode(),
        LABELMAP.replace("road", "Road").encode(),
        LABELMAP.replace("background:0,0,0::\n", "").encode(),
        LABELMAP.replace("road:128,64,128::", "road:128,64,128:lane,curb:walk,drive").encode(),
        (LABELMAP + "car:1,2,3::\n").encode(),
    ],
    ids=["bom", "crlf", "cr", "spaces", "remarks", "short", "case", "no-background", "parts", "more-labels"],
)
def test_every_form_of_it_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labelmap.txt").write_bytes(content)
    np.testing.assert_array_equal(_first_mask(tmp_path), IDS)


def test_it_may_lie_with_the_masks(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/labelmap.txt").write_text(LABELMAP)
    np.testing.assert_array_equal(_first_mask(tmp_path), IDS)


def test_a_class_without_a_color_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text(LABELMAP.replace("tree", "bush"))
    with pytest.raises(DataError, match=r"labelmap\.txt with these classes"):
        _first_mask(tmp_path)
