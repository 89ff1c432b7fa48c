"""From an annotation file to the shapes of one image, whatever tool wrote the file."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from segkc_deploy.data.annotations.coco import is_coco, read_coco
from segkc_deploy.data.annotations.cvat import read_cvat
from segkc_deploy.data.annotations.json_fields import load_json
from segkc_deploy.data.annotations.label_studio import is_label_studio, read_label_studio
from segkc_deploy.data.annotations.labelme import is_labelme, read_labelme
from segkc_deploy.data.annotations.names import Fit, ImageNames, parts_of
from segkc_deploy.data.annotations.shapes import AnnotatedImage
from segkc_deploy.data.annotations.supervisely import is_supervisely, read_supervisely
from segkc_deploy.data.annotations.yolo import read_yolo
from segkc_deploy.data.headers import upright_size
from segkc_deploy.errors import DataError

#: What a mask's file may be, beside an image.
ANNOTATION_SUFFIXES = frozenset({".json", ".txt", ".xml"})

_KNOWN = "COCO, labelme, Label Studio, Supervisely or CVAT"


@dataclass(frozen=True)
class AnnotationFile:
    """The annotated images of one file, found by the names of image files."""

    path: Path
    images: tuple[AnnotatedImage, ...]

    def find(self, image: Path) -> tuple[int, Fit] | None:
        """Return which of `images` has the name of an image file, and how well it fits; None where none has it.

        Raises:
            DataError: several have it.
        """
        places, fit = self._names.find(image)
        if len(places) > 1:
            raise DataError(f"{self.path}: {len(places)} images are named {self.images[places[0]].name!r}; keep one")
        return (places[0], fit) if places else None

    @cached_property
    def _names(self) -> ImageNames:
        return ImageNames(image.name for image in self.images)


def open_annotations(path: Path) -> AnnotationFile:
    """Return the content of an annotation file that holds one image or many; YOLO's text is `read_yolo`'s.

    Raises:
        DataError: the file is of none of the known formats, or damaged.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return _open(path, stat.st_mtime_ns, stat.st_size)


def annotated_image(path: Path, image: Path, object_names: Sequence[str]) -> AnnotatedImage:
    """Return the annotations in `path` of the image file `image`.

    Args:
        path: the annotation file.
        image: the image file.
        object_names: the label of each class number of YOLO.

    Raises:
        DataError: the file is damaged, or has no annotations of the image.
    """
    if path.suffix.lower() == ".txt":
        return read_yolo(path, upright_size(image), object_names)
    file = open_annotations(path)
    if len(file.images) == 1 and _is_of(path, image):
        return file.images[0]
    found = file.find(image)
    if found is None:
        raise DataError(f"{path}: has no annotations of {image.name}")
    return file.images[found[0]]


def _is_of(path: Path, image: Path) -> bool:
    """Return whether an annotation file has the name of an image: `a.json` or `a.jpg.json` of `a.jpg`."""
    return parts_of(path.name)[-1] in {parts_of(image.name)[-1], unicodedata.normalize("NFC", image.name)}


@lru_cache(maxsize=4)
def _open(path: Path, changed: int, size: int) -> AnnotationFile:
    if path.suffix.lower() == ".xml":
        return AnnotationFile(path, tuple(read_cvat(path)))
    data = load_json(path)
    if is_coco(data):
        return AnnotationFile(path, tuple(read_coco(data, path)))
    if is_labelme(data):
        return AnnotationFile(path, (read_labelme(data, path),))
    if is_supervisely(data):
        return AnnotationFile(path, (read_supervisely(data, path),))
    if is_label_studio(data):
        return AnnotationFile(path, tuple(read_label_studio(data, path)))
    raise DataError(f"{path}: JSON of no annotation format that is read ({_KNOWN})")
