"""Tasks for CVAT: the images as a zip, the labels as its raw form takes them, and masks as "CVAT for images 1.1".

The format is documented at https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/ and
https://docs.cvat.ai/docs/dataset_management/formats/xml_format/.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.data.tasks.task_image import TaskImage, TaskWriter
from segkc_deploy.labels import Labels


class CVATTasks(TaskWriter):
    """Writes `images.zip`, `labels.json` and `annotations.xml`, which holds the first network's masks."""

    writes = ("annotations.xml", "labels.json", "images.zip")

    def __init__(
        self, folder: Path, labels: Labels, background: int | None, note: Callable[[Path], None] | None = None
    ) -> None:
        super().__init__(folder, labels, background, note)
        self._root = ElementTree.Element("annotations")
        ElementTree.SubElement(self._root, "version").text = "1.1"
        self._files: list[tuple[Path, str]] = []

    def add(self, image: TaskImage) -> None:
        height, width = image.size
        element = ElementTree.SubElement(
            self._root,
            "image",
            {"id": str(len(self._files)), "name": image.name, "width": str(width), "height": str(height)},
        )
        for label, region in self.regions(image.predictions[0].mask):
            ElementTree.SubElement(element, "mask", {"label": label, "source": "auto", "occluded": "0"} | _mask(region))
        self._files.append((image.path, image.name))

    def finish(self) -> str:
        ElementTree.indent(self._root)
        atomic.write_text(self.target("annotations.xml"), ElementTree.tostring(self._root, "unicode") + "\n")
        labels = [{"name": name, "color": color, "type": "any", "attributes": []} for name, color in self.colors()]
        atomic.write_text(self.target("labels.json"), json.dumps(labels, indent=1, ensure_ascii=False) + "\n")
        with (
            atomic.atomic_path(self.target("images.zip")) as temporary,
            # Files may be older than a zip can say, such as those of archives that set all times to 0.
            zipfile.ZipFile(temporary, "w", strict_timestamps=False) as archive,
        ):
            for path, name in self._files:
                archive.write(path, name)
        return (
            f"CVAT: create a task with {self.folder / 'images.zip'} and, under Raw, the labels of labels.json; then"
            " upload annotations.xml as `CVAT 1.1`"
        )


def _mask(region: np.ndarray) -> dict[str, str]:
    """Return the attributes of a bool (H, W) region: run lengths along the rows of its box, zeros first."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    values = region[top:bottom, left:right].ravel()
    starts = np.flatnonzero(np.diff(values, prepend=False))
    runs = np.diff(np.concatenate([[0], starts, [len(values)]]))
    return {
        "rle": ", ".join(map(str, runs.tolist())),
        "left": str(left),
        "top": str(top),
        "width": str(right - left),
        "height": str(bottom - top),
        "z_order": "0",
    }
