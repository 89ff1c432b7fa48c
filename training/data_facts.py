"""What every later step of a training depends on, and what has changed of it since a checkpoint, in words."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from segkc_deploy.data.samples import ImageSets, MaskCoding

_MOST_NAMED = 4

#: What `MaskCoding` is made of beside the classes, by the names of the facts, in words.
_CODING = {
    "label_mapping": "label_mapping has",
    "name_mapping": "label_mapping has",
    "colors": "the colors of masks (classes, ignore_colors or labelmap.txt) have",
    "by_color": "mask_values has",
    "object_names": "the names of YOLO's class numbers have",
}


def data_facts(sets: ImageSets) -> dict[str, Any]:
    """Return the image lists and the classes as JSON values: the same ids in the same order give the same draws."""
    return {
        "labeled": [sample.id for sample in sets.labeled],
        "unlabeled": [sample.id for sample in sets.unlabeled],
        "labels": sets.labels.model_dump(mode="json"),
        "labeled_masks": _digest("/".join(sample.mask.parts[-2:]) for sample in sets.labeled if sample.mask),
        "val": _digest(sample.id for sample in sets.val),
        **_coding_facts(sets.coding),
    }


def _coding_facts(coding: MaskCoding) -> dict[str, Any]:
    return {
        "label_mapping": [list(pair) for pair in sorted(coding.label_mapping.items())],
        "name_mapping": [list(pair) for pair in sorted(coding.name_mapping.items())],
        "colors": [[list(color), class_id] for color, class_id in sorted(coding.colors.items())],
        "by_color": coding.by_color,
        "object_names": list(coding.object_names),
    }


def changes_in_words(before: dict[str, Any], now: dict[str, Any], run: str) -> str | None:
    """Say what is not as it was in the `data_facts` of a checkpoint, and what to do; None where nothing has changed.

    Args:
        before: the facts that the checkpoint holds; earlier versions recorded fewer, and what is missing is unknown.
        now: those of the data spec.
        run: the run directory, for the commands that are named.
    """
    old, new = before["labels"], now["labels"]
    if old["names"] != new["names"]:
        return _classes_in_words(old["names"], new["names"], run)
    for key in ("ignore_index", "palette"):
        if old[key] != new[key]:
            what = f"ignore_index was {old[key]} and is {new[key]}" if key == "ignore_index" else "class colors changed"
            return f"{what} since the checkpoint; restore the data spec, or start anew with --overwrite"
    for key, what in _CODING.items():
        if key in before and before[key] != now[key]:
            return f"{what} changed since the checkpoint; restore the data spec, or start anew with --overwrite"
    for key in ("labeled", "unlabeled"):
        if before[key] != now[key]:
            return (
                f"{_images_in_words(key, before[key], now[key])} since the checkpoint; restore the list, or train on"
                f" the new one from these weights: --out ANOTHER_RUN -o junior.pretrained={run}"
            )
    return None


def remarks_on_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return warnings of changes with which a training goes on, of the same arguments as `changes_in_words`."""
    remarks = {
        "labeled_masks": "the masks of the labeled images have moved: later steps learn from the new files",
        "val": "the validation images have changed: later scores are not comparable with earlier ones",
    }
    return [f"warning: {text}" for key, text in remarks.items() if key in before and before[key] != now[key]]


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _classes_in_words(old: Sequence[str], new: Sequence[str], run: str) -> str:
    added, removed = [name for name in new if name not in old], [name for name in old if name not in new]
    start = f"start another run from its weights: --out ANOTHER_RUN -o junior.pretrained={run}"
    if not added and not removed:
        return (
            f"the order of the classes was {_names(old)} and is {_names(new)}; a class is known by its place, so"
            " restore the order in the data spec"
        )
    changes = " and ".join(
        f"{'class' if len(names) == 1 else 'classes'} {_names(names)} {'was' if len(names) == 1 else 'were'} {verb}"
        for names, verb in ((added, "added"), (removed, "removed"))
        if names
    )
    if len(old) == len(new):
        return f"{changes} since the checkpoint; restore the names in the data spec, or {start}"
    return (
        f"{changes} since the checkpoint, whose networks know {len(old)} classes and not {len(new)}; restore the"
        f" classes in the data spec, or {start} (the last layer begins anew)"
    )


def _images_in_words(kind: str, old: Sequence[str], new: Sequence[str]) -> str:
    added, removed = set(new) - set(old), set(old) - set(new)
    if not added and not removed:
        return f"the {kind} images were put into another order"
    return " and ".join(
        f"{len(ids)} {kind} {'image was' if len(ids) == 1 else 'images were'} {verb} (such as {min(ids)})"
        for ids, verb in ((added, "added"), (removed, "removed"))
        if ids
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more
