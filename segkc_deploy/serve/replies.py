"""A prediction as what a client asked for: PNG, JSON or polygons."""

import json
from dataclasses import asdict
from typing import Literal

import cv2
import numpy as np

from segkc_deploy.areas import class_areas
from segkc_deploy.polygons import geojson, mask_polygons
from segkc_deploy.rle import coco_rle
from segkc_deploy.serve.api_models import Area, Prediction
from segkc_deploy.serve.served_model import ServedModel
from segkc_deploy.serve.stages import Stages

Format = Literal["png", "json", "polygons"]

MEDIA_TYPES: dict[Format, str] = {"png": "image/png", "json": "application/json", "polygons": "application/geo+json"}


def png(mask: np.ndarray) -> bytes:
    """Return a mask as a single-channel 8-bit PNG of class ids, as `segkc-deploy predict` writes them."""
    # Level 1: masks compress well at any level, and higher ones cost more time than a fast network.
    encoded, data = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert encoded
    return data.tobytes()


def prediction_json(model: ServedModel, mask: np.ndarray, confidence: np.ndarray | None, stages: Stages) -> bytes:
    """Return a `Prediction` as JSON."""
    areas = class_areas(mask, model.predictor.labels, confidence)
    prediction = Prediction(
        model=model.name,
        width=mask.shape[1],
        height=mask.shape[0],
        classes=[Area(**asdict(area)) for area in areas],
        rle={area.id: coco_rle(mask == area.id) for area in areas},
        milliseconds=stages.milliseconds(),  # the last, so that `mask` holds what came before it
    )
    return prediction.model_dump_json().encode()


def polygons_json(model: ServedModel, mask: np.ndarray, confidence: np.ndarray | None, tolerance: float) -> bytes:
    """Return GeoJSON in pixel coordinates; `tolerance` is in pixels."""
    labels = model.predictor.labels
    means = {area.id: area.confidence for area in class_areas(mask, labels, confidence) if area.confidence is not None}
    collection = geojson(mask_polygons(mask, labels.num_classes, tolerance), labels, means)
    # Members that GeoJSON does not know are allowed.
    collection |= {"model": model.name, "width": mask.shape[1], "height": mask.shape[0]}
    return json.dumps(collection, separators=(",", ":")).encode()
