"""What has changed since a checkpoint, in words."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.labels import Labels
from segkc_deploy.training.data_facts import changes_in_words, data_facts

FACTS: dict[str, Any] = {
    "labeled": ["a", "b"],
    "unlabeled": ["c", "d"],
    "labels": {"names": ["sky", "road", "car"], "palette": [[0, 0, 0], [1, 1, 1], [2, 2, 2]], "ignore_index": 255},
    "label_mapping": [],
    "name_mapping": [["van", 2]],
    "colors": [[[0, 0, 0], 0]],
    "by_color": False,
    "object_names": ["car", "sky"],
}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("labels", "names"),
            ["sky", "road", "car", "bus"],
            "class 'bus' was added since the checkpoint, whose networks",
        ),
        (("labels", "names"), ["sky", "car"], "class 'road' was removed since the checkpoint, whose networks know 3"),
        (
            ("labels", "names"),
            ["sky", "a", "b", "c"],
            "classes 'a', 'b', 'c' were added and classes 'road', 'car' were",
        ),
        (
            ("labels", "names"),
            ["sky", "car", "road"],
            "the order of the classes was 'sky', 'road', 'car' and is 'sky', 'car'",
        ),
        (("labels", "names"), ["sky", "street", "car"], "class 'street' was added and class 'road' was removed since"),
        (("labels", "ignore_index"), 254, "ignore_index was 255 and is 254"),
        (("labels", "palette"), [[9, 9, 9]] * 3, "class colors changed"),
        (("label_mapping",), [[7, 255]], "label_mapping has changed"),
        (("name_mapping",), [["van", 1]], "label_mapping has changed"),
        (("colors",), [], "the colors of masks (classes, ignore_colors or labelmap.txt) have changed"),
        (("by_color",), True, "mask_values has changed"),
        (("object_names",), ["sky", "car"], "the names of YOLO's class numbers have changed"),
        (("labeled",), ["a", "b", "e"], "1 labeled image was added (such as e) since the checkpoint; restore the list"),
        (("unlabeled",), ["d", "c"], "the unlabeled images were put into another order since"),
    ],
)
def test_each_change_is_named(path: tuple[str, ...], value: object, words: str) -> None:
    now = copy.deepcopy(FACTS)
    place = now
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    told = changes_in_words(FACTS, now, "runs/a")
    assert told is not None
    assert told.startswith(words)


def test_nothing_is_said_where_nothing_changed() -> None:
    assert changes_in_words(FACTS, copy.deepcopy(FACTS), "runs/a") is None


def test_everything_that_masks_are_read_by_is_recorded_as_json() -> None:
    labels = Labels(names=("sky", "car"), palette=((0, 0, 0), (9, 9, 9)), ignore_index=255)
    coding = MaskCoding(labels, {7: 1}, {(9, 9, 9): 1, (0, 0, 0): 0}, True, {"van": 1}, ("car", "sky"))
    facts = data_facts(ImageSets(coding, (Sample("a", Path("a.png")),)))
    assert facts == json.loads(json.dumps(facts))
    assert facts["colors"] == [[[0, 0, 0], 0], [[9, 9, 9], 1]]
    others = ({8: 1}, {}, False, {"van": 0}, ("sky", "car"))
    fields = ("label_mapping", "colors", "by_color", "name_mapping", "object_names")
    for field, value in zip(fields, others, strict=True):
        changed = data_facts(ImageSets(replace(coding, **{field: value}), (Sample("a", Path("a.png")),)))
        assert changes_in_words(facts, changed, "runs/a"), field


def test_images_are_recorded_in_their_order() -> None:
    coding = MaskCoding(Labels(names=("sky", "car"), palette=((0, 0, 0), (9, 9, 9)), ignore_index=255))
    labeled, unlabeled = (tuple(Sample(name, Path(f"{name}.png")) for name in names) for names in ("ba", "dc"))
    facts = data_facts(ImageSets(coding, labeled, unlabeled))
    assert (facts["labeled"], facts["unlabeled"]) == (["b", "a"], ["d", "c"])


def test_what_an_earlier_version_did_not_record_is_unknown() -> None:
    new = ("name_mapping", "colors", "by_color", "object_names")
    before = {key: value for key, value in FACTS.items() if key not in new}
    assert changes_in_words(before, FACTS, "runs/a") is None
