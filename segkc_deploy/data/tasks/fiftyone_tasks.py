"""A data set for FiftyOne: samples with the masks of every network as segmentations.

The folder is what FiftyOne imports as `fiftyone.types.LegacyFiftyOneDataset`: the form that needs no database version.
"""

import io
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from segkc_deploy import atomic
from segkc_deploy.data.tasks.task_image import TaskImage, TaskWriter
from segkc_deploy.labels import Labels


class FiftyOneTasks(TaskWriter):
    """Writes `samples.json`, `metadata.json` and PNG masks of class ids as `fields/<network>/<image>.png`."""

    def __init__(self, folder: Path, labels: Labels, background: int | None) -> None:
        super().__init__(folder, labels, background)
        self._samples: list[dict[str, Any]] = []

    def add(self, image: TaskImage) -> None:
        sample = {
            "filepath": os.path.relpath(image.path.resolve(), self.folder.resolve()),
            "tags": ["label-next"],
            "label_next_score": image.score,
        }
        for prediction in image.predictions:
            name = PurePosixPath("fields", prediction.network, image.name).with_suffix(".png")
            buffer = io.BytesIO()
            Image.fromarray(prediction.mask).save(buffer, "PNG")
            atomic.write_bytes(self.folder / name, buffer.getvalue())
            sample[prediction.network] = {"_cls": "Segmentation", "tags": [], "mask_path": str(name)}
            sample[f"{prediction.network}_confidence"] = prediction.confidence
        self._samples.append(sample)

    def finish(self) -> str:
        targets = {str(index): name for index, name in enumerate(self.labels.names)}
        info = {"default_mask_targets": targets, "default_classes": list(self.labels.names)}
        for name, content in (("samples", {"samples": self._samples}), ("metadata", {"info": info})):
            text = json.dumps(content, indent=1, ensure_ascii=False)
            atomic.write_text(self.folder / f"{name}.json", text + "\n")
        return (
            f"FiftyOne: fo.Dataset.from_dir(dataset_dir={str(self.folder.resolve())!r},"
            " dataset_type=fo.types.LegacyFiftyOneDataset)"
        )
