"""The files that `predict` writes about one image: mask, overlay, run lengths, polygons, labelme."""

import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segkc_deploy.areas import class_areas
from segkc_deploy.labels import Labels
from segkc_deploy.overlay import overlay
from segkc_deploy.polygons import geojson, mask_polygons, outline_area
from segkc_deploy.prediction_record import Further, ResultFolder
from segkc_deploy.rle import coco_rle
from segkc_deploy.sources import SourceImage

#: A file's path below the folder of results, and its content.
ResultFile = tuple[Path, bytes]

_JPEG_QUALITY = 92
#: libjpeg's limit along a side; larger overlays are written as PNG.
_JPEG_LONGEST_SIDE = 65500

#: Pixels by which the outlines of polygons may differ from the mask's.
_TOLERANCE = 0.5


@dataclass(frozen=True)
class Outputs:
    """What is written about each image besides its mask.

    Attributes:
        alpha: how strongly the overlays show the colors (0-1); None writes no overlays.
        palette: whether masks are palette PNGs, which viewers show in the classes' colors; the values are the same.
        also: further files.
    """

    alpha: float | None = 0.5
    palette: bool = False
    also: tuple[Further, ...] = ()

    def are_there(self, image_id: str, there: set[str]) -> bool:
        """Whether all files of an image are among `there`, paths such as `masks/a.png`."""
        return not any(there.isdisjoint(names) for names in self.names(image_id))

    def names(self, image_id: str) -> list[set[str]]:
        """Return the paths that each file of an image may have, such as `masks/a.png` or `masks/a.tif`."""
        masks = {f"masks/{image_id}.png", f"masks/{image_id}.tif"}
        overlays = {f"overlays/{image_id}.jpg", f"overlays/{image_id}.png"}
        return [
            masks,
            *([overlays] if self.alpha is not None else []),
            *(_further_paths(kind, image_id) for kind in self.also),
        ]


def results_of(
    out: Path,
    image: SourceImage,
    pixels: np.ndarray,
    mask: np.ndarray,
    labels: Labels,
    outputs: Outputs,
    confidence: np.ndarray | None = None,
) -> Iterator[ResultFile]:
    """Yield the files of an image, uint8 (H, W, 3) RGB, with its mask, uint8 (H, W), and confidence, float32 (H, W).

    Nothing is written; `out` is the folder where they will be.
    """
    yield _mask_file(image, mask, labels if outputs.palette else None)
    if outputs.alpha is not None:
        yield _overlay_file(image, overlay(pixels, mask, labels, outputs.alpha))
    for kind in outputs.also:
        if kind == Further.CONFIDENCE:
            assert confidence is not None
            name = Path(kind, f"{image.id}.png")
            yield name, _encoded(name, as_bytes(confidence), [])
            continue
        name = Path(_further_path(kind, image.id))
        content = _FURTHER[kind](mask, labels, image.path, out / name)
        # A file name that is no text becomes escapes, which are JSON too.
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        yield name, text.encode(errors="backslashreplace")


def write_results(folder: ResultFolder, files: Iterable[ResultFile]) -> None:
    """Write files in their order.

    Raises:
        ConfigError: one cannot be written.
    """
    for name, content in files:
        folder.write(name, content)


def write_mask(folder: ResultFolder, image: SourceImage, mask: np.ndarray) -> None:
    """Write `masks/<id>.png`; `mask` is uint8 (H, W)."""
    folder.write(*_mask_file(image, mask))


def write_overlay(folder: ResultFolder, image: SourceImage, picture: np.ndarray) -> None:
    """Write `overlays/<id>.jpg`, or `.png` where JPEG is too small; `picture` is uint8 (H, W, 3) RGB."""
    folder.write(*_overlay_file(image, picture))


def _mask_file(image: SourceImage, mask: np.ndarray, colors: Labels | None = None) -> ResultFile:
    """Return the PNG of a mask, uint8 (H, W); with `colors` one with a palette."""
    name = Path("masks", f"{image.id}.png")
    if colors is None:
        return name, _encoded(name, mask, [])
    picture = Image.fromarray(mask)
    picture.putpalette([channel for color in colors.palette for channel in color])  # makes it mode P
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return name, buffer.getvalue()


def _overlay_file(image: SourceImage, picture: np.ndarray) -> ResultFile:
    picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    too_long = max(picture.shape[:2]) > _JPEG_LONGEST_SIDE
    name = Path("overlays", f"{image.id}.{'png' if too_long else 'jpg'}")
    return name, _encoded(name, picture, [] if too_long else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def as_bytes(confidence: np.ndarray) -> np.ndarray:
    """Return a confidence, float32 0-1, as uint8: 255 times as much, rounded."""
    scaled: np.ndarray = np.rint(255 * confidence).astype(np.uint8)
    return scaled


def _further_path(kind: Further, image_id: str) -> str:
    return f"{kind}/{image_id}.{'geojson' if kind is Further.POLYGONS else 'json'}"


def _further_paths(kind: Further, image_id: str) -> set[str]:
    if kind == Further.CONFIDENCE:
        return {f"{kind}/{image_id}.png", f"{kind}/{image_id}.tif"}
    return {_further_path(kind, image_id)}


def _rle(mask: np.ndarray, labels: Labels, source: Path, path: Path) -> dict[str, Any]:
    """Return for each class that occurs what pycocotools takes as an annotation; categories are class ids."""
    annotations = [
        {
            "category_id": area.id,
            "category": area.name,
            "area": area.pixels,
            "segmentation": coco_rle(mask == area.id),
        }
        for area in class_areas(mask, labels)
    ]
    return {"image": source.name, "width": mask.shape[1], "height": mask.shape[0], "annotations": annotations}


def _polygons(mask: np.ndarray, labels: Labels, source: Path, path: Path) -> dict[str, Any]:
    # Members that GeoJSON does not know are allowed.
    collection = geojson(mask_polygons(mask, labels.num_classes, _TOLERANCE), labels)
    return collection | {"image": source.name, "width": mask.shape[1], "height": mask.shape[0]}


def _labelme(mask: np.ndarray, labels: Labels, source: Path, path: Path) -> dict[str, Any]:
    """Return what labelme opens. It knows no holes: what lies in one is a smaller shape, drawn later over it."""
    regions = mask_polygons(mask, labels.num_classes, _TOLERANCE)
    shapes = [
        {
            "label": labels.names[region.class_id],
            "points": region.rings[0].tolist(),
            "group_id": None,
            "shape_type": "polygon",
            "flags": {},
        }
        for region in sorted(regions, key=lambda region: -outline_area(region.rings[0]))
    ]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(os.path.relpath(source.absolute(), path.parent.absolute())).as_posix(),
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }


_FURTHER = {Further.RLE: _rle, Further.POLYGONS: _polygons, Further.LABELME: _labelme}


def _encoded(name: Path, pixels: np.ndarray, parameters: list[int]) -> bytes:
    encoded, data = cv2.imencode(name.suffix, pixels, parameters)
    assert encoded
    return data.tobytes()
