"""Tasks for labeling tools: read back they give the predicted masks."""

import json
import os
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from data_helpers import write_image

from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import MaskCoding
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.data.tasks.task_image import Prediction, TaskImage
from segkc_deploy.data.tasks.writers import WRITERS
from segkc_deploy.errors import DataError
from segkc_deploy.labels import Labels, default_palette

HEIGHT, WIDTH = 37, 53
NAMES = ("x.png", "deeper/ü 1.png", "deeper/z.png")
WITH_BACKGROUND = ("background", "road & path", "tree")
WITHOUT = ("sky", "road & path", "tree")


def predicted(seed: int) -> np.ndarray:
    """Blobs and single pixels of three classes; the last image is of one class alone."""
    if seed == 5:
        return np.full((HEIGHT, WIDTH), 1, np.uint8)
    rng = np.random.default_rng(seed)
    mask = cv2.resize(rng.integers(0, 3, (6, 8)).astype(np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    noisy = rng.uniform(size=mask.shape) < 0.05
    return np.where(noisy, rng.integers(0, 3, mask.shape), mask).astype(np.uint8)


def write_tasks(root: Path, tool: str, names: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write the images and the tool's files; return the masks of senior and junior by image."""
    labels = Labels(names=names, palette=default_palette(3))
    background = MaskCoding(labels).background
    writer = WRITERS[tool](root / tool, labels, background if background != labels.ignore_index else None)
    masks = {}
    for index, name in enumerate(NAMES):
        path = write_image(root / "photos" / name, index, HEIGHT, WIDTH)
        os.utime(path, (0, 0))  # as archives leave files that set all times to 0; a zip cannot say so
        masks[name] = (predicted(index + 3), predicted(index + 10))
        predictions = tuple(Prediction(*one, 0.75) for one in zip(("senior", "junior"), masks[name], strict=True))
        writer.add(TaskImage(name, path, 0.5, predictions))
    assert writer.finish()
    return masks


def test_the_folder_in_label_studios_step_is_quoted(tmp_path: Path) -> None:
    writer = WRITERS["label-studio"](tmp_path / "out", Labels(names=WITHOUT, palette=default_palette(3)), None)
    path = write_image(tmp_path / "my photos" / "a.png")
    writer.add(TaskImage("a.png", path, 0.5, (Prediction("junior", np.zeros((60, 80), np.uint8), 0.75),)))
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT='{tmp_path / 'my photos'}', paste" in writer.finish()


def test_fiftyones_masks_of_images_that_share_a_stem_are_apart(tmp_path: Path) -> None:
    labels = Labels(names=WITH_BACKGROUND, palette=default_palette(3))
    writer = WRITERS["fiftyone"](tmp_path / "fiftyone", labels, 0)
    names = ("p/a.jpg", "p/a.png", "p/a.jpg.png", "p/A.PNG", "b.png")
    for index, name in enumerate(names):
        mask = np.full((2, 2), index, np.uint8)
        writer.add(TaskImage(name, tmp_path / name, 0.5, (Prediction("junior", mask, 0.9),)))
    writer.finish()
    samples = json.loads((tmp_path / "fiftyone" / "samples.json").read_text())["samples"]
    paths = [sample["junior"]["mask_path"] for sample in samples]
    assert paths == [f"fields/junior/{name}.png" for name in ("p/a", "p/a.png", "p/a.jpg", "p/A.PNG.PNG", "b")]
    for index, path in enumerate(paths):
        assert (cv2.imread(str(tmp_path / "fiftyone" / path), cv2.IMREAD_UNCHANGED) == index).all()


def read_back(root: Path, annotations: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    spec = {"classes": list(names), "labeled": {"images": "photos", "masks": annotations}}
    (root / "data.yaml").write_text(yaml.safe_dump(spec))
    sets = load_data_spec(root / "data.yaml").resolve()
    folder = root / "photos"
    return {sample.image.relative_to(folder).as_posix(): read_mask(sample, sets.coding) for sample in sets.labeled}


@pytest.mark.parametrize("names", [WITH_BACKGROUND, WITHOUT])
def test_cvats_annotations_give_the_seniors_masks(tmp_path: Path, names: tuple[str, ...]) -> None:
    masks = write_tasks(tmp_path, "cvat", names)
    found = read_back(tmp_path, "cvat/annotations.xml", names)
    assert sorted(found) == sorted(NAMES)
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, masks[name][0])

    labels = json.loads((tmp_path / "cvat" / "labels.json").read_text())
    assert [(label["name"], label["attributes"]) for label in labels] == [(name, []) for name in names]
    with zipfile.ZipFile(tmp_path / "cvat" / "images.zip") as archive:
        for name in NAMES:
            assert archive.read(name) == (tmp_path / "photos" / name).read_bytes()
    for mask in ElementTree.parse(tmp_path / "cvat" / "annotations.xml").iter("mask"):
        runs = [int(run) for run in mask.attrib["rle"].split(",")]
        assert sum(runs) == int(mask.attrib["width"]) * int(mask.attrib["height"])
        assert 0 not in runs[1:], "CVAT's runs alternate, and only the first may be empty"


@pytest.mark.parametrize("names", [WITH_BACKGROUND, WITHOUT])
@pytest.mark.parametrize("network", ["senior", "junior"])
def test_label_studios_predictions_give_the_masks(tmp_path: Path, names: tuple[str, ...], network: str) -> None:
    masks = write_tasks(tmp_path, "label-studio", names)
    file = tmp_path / "label-studio" / "tasks.json"
    tasks = json.loads(file.read_text())
    # What Label Studio does when a person submits a prediction as it is.
    for number, task in enumerate(tasks):
        (prediction,) = (one for one in task["predictions"] if one["model_version"] == network)
        assert {result["type"] for result in prediction["result"]} == {"brushlabels"}
        task |= {"id": number, "annotations": [{"id": number, "result": prediction["result"]}]}
    file.write_text(json.dumps(tasks))
    found = read_back(tmp_path, "label-studio/tasks.json", names)
    assert sorted(found) == sorted(NAMES)
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, masks[name][network == "junior"])

    view = ElementTree.parse(tmp_path / "label-studio" / "label-config.xml")
    brush, image = view.find("BrushLabels"), view.find("Image")
    assert brush is not None and image is not None
    assert {result["from_name"] for task in tasks for result in task["predictions"][0]["result"]} == {brush.get("name")}
    assert {result["to_name"] for task in tasks for result in task["predictions"][0]["result"]} == {image.get("name")}
    assert [label.get("value") for label in brush] == list(names)


def test_predictions_alone_are_no_labels(tmp_path: Path) -> None:
    write_tasks(tmp_path, "label-studio", WITH_BACKGROUND)
    spec = {"classes": list(WITH_BACKGROUND), "labeled": {"images": "photos", "masks": "label-studio/tasks.json"}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(DataError, match=r"3 of 3 images have no mask: .*tasks\.json has no annotations of deeper/z"):
        load_data_spec(tmp_path / "data.yaml").resolve()


def test_fiftyones_samples_lead_to_images_and_masks(tmp_path: Path) -> None:
    masks = write_tasks(tmp_path, "fiftyone", WITH_BACKGROUND)
    folder = tmp_path / "fiftyone"
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    info = json.loads((folder / "metadata.json").read_text())["info"]
    assert info["default_mask_targets"] == {"0": "background", "1": "road & path", "2": "tree"}
    assert len(samples) == len(NAMES)
    for name, sample in zip(NAMES, samples, strict=True):
        assert (folder / sample["filepath"]).resolve() == tmp_path / "photos" / name
        for network, mask in zip(("senior", "junior"), masks[name], strict=True):
            assert sample[network]["_cls"] == "Segmentation"
            file = folder / sample[network]["mask_path"]
            np.testing.assert_array_equal(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), mask)
