"""How a row compares with the PyTorch junior that it belongs to: mask agreement and difference of mIoU."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segkc_deploy.benchmarks.measure.miou_interval import miou_difference
from segkc_deploy.benchmarks.schema import Row
from segkc_deploy.benchmarks.store.masks import mask_agreement, read_counts


def compare_with_junior(row: Row, rows: Sequence[Row], masks: Mapping[str, Path]) -> None:
    """Set the agreement and the difference of `row` to its junior, of the same weights or else of the same run.

    Args:
        row: left as it is if it is a junior or was not scored.
        rows: among which the junior is.
        masks: by row name, the folder of its masks and counts.
    """
    if row.accuracy is None or row.role == "junior":
        return
    for junior in rows:
        same_weights = row.about.get("weights_sha256") == junior.about.get("weights_sha256", "unknown")
        if junior.role != "junior" or junior.accuracy is None or not (same_weights or row.target == junior.target):
            continue
        accuracy, ours, theirs = row.accuracy, masks[row.name], masks[junior.name]
        accuracy.agreement = mask_agreement(ours, theirs, accuracy.images)
        accuracy.agreement_with = junior.name
        counts, junior_counts = read_counts(ours), read_counts(theirs)
        if counts is not None and junior_counts is not None:
            difference = miou_difference(counts, junior_counts, accuracy.resampling_block or 1)
            accuracy.miou_difference, accuracy.miou_difference_interval = difference.miou, difference.interval
        return
