"""What is written about each frame: a line of JSON."""

import json
from typing import Any, Literal

import numpy as np

from segkc_deploy.areas import class_areas
from segkc_deploy.labels import Labels
from segkc_deploy.polygons import geojson, mask_polygons
from segkc_deploy.rle import coco_rle
from segkc_deploy.video.source import Frame

Detail = Literal["areas", "rle", "polygons"]


def frame_line(frame: Frame, mask: np.ndarray, labels: Labels, detail: Detail) -> str:
    """Return a JSON object in one line: `frame`, `seconds`, `areas` (class to share, 0-1), and by `detail` the mask.

    The mask is in COCO's run lengths by class (`rle`), or a GeoJSON collection in pixel coordinates (`polygons`, exact
    to half a pixel).
    """
    areas = class_areas(mask, labels)
    line: dict[str, Any] = {
        "frame": frame.index,
        "seconds": round(frame.seconds, 6),
        "areas": {area.name: round(area.share, 6) for area in areas},
    }
    if detail == "rle":
        line["rle"] = {area.name: coco_rle(mask == area.id) for area in areas}
    elif detail == "polygons":
        line["polygons"] = geojson(mask_polygons(mask, labels.num_classes, tolerance=0.5), labels)
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False)
