"""Published networks behind the report's points."""

from segkc_deploy.benchmarks.report.published_points import published_sets
from segkc_deploy.data.layouts import LAYOUTS
from segkc_deploy.labels import Labels, default_palette


def labels(names: tuple[str, ...]) -> Labels:
    return Labels(names=names, palette=default_palette(len(names)))


def test_only_data_with_the_same_classes_are_comparable() -> None:
    voc = tuple(LAYOUTS["voc"].classes or ())
    sets = published_sets(labels(voc))
    assert {one["title"] for one in sets if one["same_classes"]} == {"Pascal VOC 2012"}
    assert not any(one["same_classes"] for one in published_sets(labels(voc[:-1])))


def test_a_set_has_the_rows_of_its_partition_that_tell_their_size() -> None:
    (one,) = [
        one
        for one in published_sets(labels(("a", "b")))
        if (one["title"], one["partition"]) == ("Pascal VOC 2012", "366")
    ]
    assert {(point["method"], point["params_m"], point["miou"]) for point in one["points"]} == {
        ("SegKC", 24.8, 87.1),
        ("UniMatch V2", 24.8, 85.9),
        ("UniMatch V2", 97.5, 88.9),
    }
    assert all("arXiv" in point["source"] for point in one["points"])
