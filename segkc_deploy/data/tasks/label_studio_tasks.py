"""Tasks for Label Studio: JSON with the masks of every network as predictions, and the labeling configuration.

The format is documented at https://labelstud.io/guide/predictions and https://labelstud.io/tags/brushlabels.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.data.annotations.brush import encode_brush
from segkc_deploy.data.tasks.task_image import Prediction, TaskImage, TaskWriter
from segkc_deploy.labels import Labels

#: How Label Studio serves files of its machine, below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
_LOCAL_FILES = "/data/local-files/?d="


class LabelStudioTasks(TaskWriter):
    """Writes `tasks.json` and `label-config.xml`; images are found below Label Studio's local file storage."""

    writes = ("tasks.json", "label-config.xml")

    def __init__(
        self, folder: Path, labels: Labels, background: int | None, note: Callable[[Path], None] | None = None
    ) -> None:
        super().__init__(folder, labels, background, note)
        self._tasks: list[dict[str, Any]] = []
        self._root = Path()

    def add(self, image: TaskImage) -> None:
        self._root = image.path.absolute().parents[len(Path(image.name).parts) - 1]
        self._tasks.append(
            {
                "data": {"image": _LOCAL_FILES + quote(image.name), "label_next_score": image.score},
                "predictions": [self._prediction(prediction) for prediction in image.predictions],
            }
        )

    def finish(self) -> str:
        atomic.write_text(self.target("tasks.json"), json.dumps(self._tasks, ensure_ascii=False) + "\n")
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", {"name": "image", "value": "$image", "zoom": "true"})
        brush = ElementTree.SubElement(view, "BrushLabels", {"name": "brush", "toName": "image"})
        for name, color in self.colors():
            ElementTree.SubElement(brush, "Label", {"value": name, "background": color})
        ElementTree.indent(view)
        atomic.write_text(self.target("label-config.xml"), ElementTree.tostring(view, "unicode") + "\n")
        return (
            f"Label Studio: start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and"
            f" LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(str(self._root))}, paste label-config.xml as the"
            f" labeling interface, and import {self.folder / 'tasks.json'}"
        )

    def _prediction(self, prediction: Prediction) -> dict[str, Any]:
        results = [
            _result(f"{prediction.network}-{number}", label, region)
            for number, (label, region) in enumerate(self.regions(prediction.mask))
        ]
        return {"model_version": prediction.network, "score": prediction.confidence, "result": results}


def _result(name: str, label: str, region: np.ndarray) -> dict[str, Any]:
    height, width = region.shape
    return {
        "id": name,
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(region), "brushlabels": [label]},
    }
