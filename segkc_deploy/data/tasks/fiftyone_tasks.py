"""A data set for FiftyOne: samples with the masks of every network as segmentations.

The folder is what FiftyOne imports as `fiftyone.types.LegacyFiftyOneDataset`: the form that needs no database version.
"""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from segkc_deploy import atomic
from segkc_deploy.data.tasks.task_image import TaskImage, TaskWriter
from segkc_deploy.labels import Labels


class FiftyOneTasks(TaskWriter):
    """Writes `samples.json`, `metadata.json` and PNG masks of class ids as `fields/<network>/<image>.png`.

    Of images that differ in their suffix alone, those after the first keep it: `<image>.jpg.png`.
    """

    writes = ("samples.json", "metadata.json", "fields")

    def __init__(
        self, folder: Path, labels: Labels, background: int | None, note: Callable[[Path], None] | None = None
    ) -> None:
        super().__init__(folder, labels, background, note)
        self._samples: list[dict[str, Any]] = []
        self._masks: set[str] = set()

    def add(self, image: TaskImage) -> None:
        sample = {
            "filepath": os.path.relpath(image.path.resolve(), self.folder.resolve()),
            "tags": ["label-next"],
            "label_next_score": image.score,
        }
        mask = self._mask_name(image.name)
        for prediction in image.predictions:
            name = PurePosixPath("fields", prediction.network, mask)
            buffer = io.BytesIO()
            Image.fromarray(prediction.mask).save(buffer, "PNG")
            atomic.write_bytes(self.target(*name.parts), buffer.getvalue())
            sample[prediction.network] = {"_cls": "Segmentation", "tags": [], "mask_path": str(name)}
            sample[f"{prediction.network}_confidence"] = prediction.confidence
        self._samples.append(sample)

    def finish(self) -> str:
        targets = {str(index): name for index, name in enumerate(self.labels.names)}
        info = {"default_mask_targets": targets, "default_classes": list(self.labels.names)}
        for name, content in (("samples", {"samples": self._samples}), ("metadata", {"info": info})):
            text = json.dumps(content, indent=1, ensure_ascii=False)
            atomic.write_text(self.target(f"{name}.json"), text + "\n")
        return (
            f"FiftyOne: fo.Dataset.from_dir(dataset_dir={str(self.folder.resolve())!r},"
            " dataset_type=fo.types.LegacyFiftyOneDataset)"
        )

    def _mask_name(self, image: str) -> str:
        """Return a name that no image before has; upper and lower case are one on some file systems."""
        name = PurePosixPath(image).with_suffix("").as_posix()
        while name.casefold() in self._masks:
            name = f"{name}{PurePosixPath(image).suffix}"
        self._masks.add(name.casefold())
        return f"{name}.png"
