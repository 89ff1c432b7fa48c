"""What has changed since a checkpoint, in words."""

import copy
from typing import Any

import pytest

from segkc_deploy.training.data_facts import changes_in_words

FACTS: dict[str, Any] = {
    "labeled": ["a", "b"],
    "unlabeled": ["c", "d"],
    "labels": {"names": ["sky", "road", "car"], "palette": [[0, 0, 0], [1, 1, 1], [2, 2, 2]], "ignore_index": 255},
    "label_mapping": [],
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
