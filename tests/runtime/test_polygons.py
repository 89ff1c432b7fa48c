"""Polygons, areas and run lengths of masks, against references that are computed in another way."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask
from tiny_artifact import LABELS

from segkc_deploy.areas import class_areas
from segkc_deploy.polygons import Polygon, geojson, mask_polygons
from segkc_deploy.rle import coco_rle

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 255]))


def filled(polygons: list[Polygon], shape: tuple[int, int]) -> np.ndarray:
    """Fill polygons by the even-odd rule: for each pixel's center, count the edges to its right."""
    mask = np.full(shape, 255, np.uint8)
    rows, columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    for polygon in polygons:
        crossings = np.zeros(shape, int)
        for ring in polygon.rings:
            for (x, y), (_, next_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                crossings += np.outer((rows > min(y, next_y)) & (rows < max(y, next_y)), columns < x)
        inside = crossings % 2 == 1
        assert np.all(mask[inside] == 255), "two polygons overlap"
        mask[inside] = polygon.class_id
    return mask


@settings(deadline=None, max_examples=150)
@given(MASKS)
def test_filled_polygons_give_the_mask_back(mask):
    assert np.array_equal(filled(mask_polygons(mask, 3), mask.shape), mask)


def test_a_region_with_a_hole_is_one_polygon_of_two_rings():
    mask = np.zeros((6, 7), np.uint8)
    mask[1:5, 1:6] = 1
    mask[2, 3] = 0
    (ring, hole), (background_ring, _), (island,) = (polygon.rings for polygon in mask_polygons(mask, 2)[::-1])
    assert sorted(map(tuple, ring.tolist())) == [(1, 1), (1, 5), (6, 1), (6, 5)]
    assert sorted(map(tuple, hole.tolist())) == [(3, 2), (3, 3), (4, 2), (4, 3)]
    assert len(background_ring) == len(island) == 4


def test_a_tolerance_saves_points_and_stays_within_it():
    y, x = np.mgrid[:60, :60]
    disk = ((x - 30) ** 2 + (y - 30) ** 2 < 400).astype(np.uint8)
    exact, coarse = (mask_polygons(disk, 2, tolerance)[1].rings[0] for tolerance in (0, 1.5))
    assert len(coarse) < len(exact) / 3
    assert np.abs(np.hypot(*(coarse - 30).T) - 20).max() < 2


def test_small_regions_are_left_out_by_their_area():
    mask = np.zeros((10, 10), np.uint8)
    mask[1, 1] = mask[5:8, 5:8] = 1
    assert len(mask_polygons(mask, 2)) == 3
    kept = mask_polygons(mask, 2, min_area=2)
    assert [(polygon.class_id, len(polygon.rings)) for polygon in kept] == [(0, 2), (1, 1)]


def test_geojson_closes_its_rings_and_names_classes():
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3, 1:3] = 3
    collection = json.loads(json.dumps(geojson(mask_polygons(mask, 4), LABELS, {0: 0.5, 3: 0.25})))
    feature = collection["features"][1]
    assert feature["properties"] == {"class_id": 3, "class": "blue", "color": "#1e1edc", "confidence": 0.25}
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert len(ring) == 5


@settings(deadline=None, max_examples=150)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_run_lengths_are_those_of_pycocotools(region):
    reference = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
    assert coco_rle(region) == {"size": list(reference["size"]), "counts": reference["counts"].decode()}


def test_areas_are_shares_of_all_pixels_and_sorted():
    mask = np.array([[0, 1, 1], [1, 255, 3]], np.uint8)
    confidence = np.array([[0.5, 1, 0.5], [0.75, 0.1, 0.2]], np.float32)
    areas = class_areas(mask, LABELS, confidence)
    assert [(area.id, area.name, area.pixels) for area in areas] == [(1, "red", 3), (0, "dark", 1), (3, "blue", 1)]
    assert [area.share for area in areas] == pytest.approx([1 / 2, 1 / 6, 1 / 6])
    assert [area.confidence for area in areas] == pytest.approx([0.75, 0.5, 0.2])
    assert class_areas(mask, LABELS)[0].confidence is None


def test_pixels_are_counted_one_by_one_however_many_there_are():
    mask = np.zeros((4097, 4097), np.uint8)  # an odd number of more than 24 bits, which single precision cannot hold
    mask[0, :2] = 1
    assert [area.pixels for area in class_areas(mask, LABELS)] == [4097**2 - 2, 2]
