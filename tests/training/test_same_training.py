"""The exports of 20 images from different labeling tools: the same masks, and the very same training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from annotation_writers import (
    HEIGHT,
    WIDTH,
    Images,
    expected_mask_of,
    filled,
    objects,
    write_coco,
    write_cvat,
    write_label_studio,
    write_label_studio_brush,
    write_yolo,
)
from data_helpers import write_spec
from PIL import Image
from safetensors.numpy import load_file
from tiny_data import tiny_recipe, write_recipe

from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.training.train import train_run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode

WHOLE = {f"{index:02}": objects(index) for index in range(20)}
#: Corners between the pixels, which each format writes with digits of its own.
FRACTIONAL = {
    name: [(label, [(x + 0.123456, y - 0.345678) for x, y in points]) for label, points in shapes]
    for name, shapes in WHOLE.items()
}
Writer = Callable[[Path, Images], str]


def write_png(root: Path, images: Images) -> str:
    """Masks of class ids, without any tool."""
    (root / "masks").mkdir()
    for name, shapes in images.items():
        Image.fromarray(expected_mask_of(shapes)).save(root / "masks" / f"{name}.png")
    return "masks"


#: the writer, and the largest share of pixels that the rounding of its coordinates may change
TOOLS: dict[str, tuple[Writer, float]] = {
    "coco": (write_coco, 0),
    "yolo": (write_yolo, 0.0005),
    "cvat": (write_cvat, 0.005),
    "label-studio": (write_label_studio, 0),
    "label-studio-brush": (write_label_studio_brush, 0),
}


def export(root: Path, write: Writer, images: Images) -> Path:
    """Write 20 photographs and a tool's annotations of them; return the data spec."""
    (root / "images").mkdir(parents=True)
    for index, (name, shapes) in enumerate(images.items()):
        noise = np.random.default_rng(index).integers(0, 60, (HEIGHT, WIDTH, 3))
        Image.fromarray((noise + 60 * expected_mask_of(shapes)[..., None]).astype(np.uint8)).save(
            root / "images" / f"{name}.png"
        )
    part = f"{{images: images, masks: {write(root, images)}}}"
    return write_spec(
        root, f"classes: [background, road, tree]\nlabeled: {part}\nval: {part}\nunlabeled: {{images: []}}\n"
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_masks_differ_by_no_more_than_a_formats_digits(tmp_path: Path, tool: str) -> None:
    write, share = TOOLS[tool]
    sets = load_data_spec(export(tmp_path, write, FRACTIONAL)).resolve()
    for sample in sets.labeled:
        found, wanted = read_mask(sample, sets.coding), expected_mask_of(FRACTIONAL[sample.id])
        # pycocotools rasterizes in fifths of a pixel, so a rounded corner moves an edge by a pixel at most.
        near_edge = np.zeros(found.shape, bool)
        for _, points in FRACTIONAL[sample.id]:
            region = np.pad(filled(points), 1, mode="edge")
            windows = np.lib.stride_tricks.sliding_window_view(region, (3, 3))
            near_edge |= windows.min((2, 3)) != windows.max((2, 3))
        assert (found == wanted)[~near_edge].all()
        assert (found != wanted).mean() <= share


def test_the_tools_exports_train_the_same_network(tmp_path: Path) -> None:
    recipe = tiny_recipe(senior=None, method={"name": "supervised"}, schedule={"steps": 2}, checkpoint_every=2)
    path = str(write_recipe(tmp_path / "tiny.yaml", recipe))
    weights = {}
    for tool, write in {"png": write_png, **{tool: write for tool, (write, _) in TOOLS.items()}}.items():
        data = export(tmp_path / tool, write, WHOLE)
        sets = load_data_spec(data).resolve()
        for sample in sets.labeled:
            np.testing.assert_array_equal(read_mask(sample, sets.coding), expected_mask_of(WHOLE[sample.id]))
        if tool != "label-studio-brush":
            run = train_run(data, path, tmp_path / f"run-{tool}", device="cpu").path
            weights[tool] = load_file(run / "junior.safetensors")
    for tool, tensors in weights.items():
        assert tensors.keys() == weights["png"].keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(tensor, weights["png"][name], err_msg=f"{tool}: {name}")
