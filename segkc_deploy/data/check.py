"""Judges a data set before any GPU time is spent on it: every file is read once, every mistake is named."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from segkc_deploy.data.annotations.pairing import BY_ORDER, is_paired_by_order
from segkc_deploy.data.check_mirror import MIRRORED, mirror_is_labeled_otherwise, mirrored_names
from segkc_deploy.data.check_rare import rare_class_ids, rare_classes
from segkc_deploy.data.headers import PALETTES_DIFFER, TURNED, palette_conflicts
from segkc_deploy.data.mask_files import is_mask_image
from segkc_deploy.data.masks import unknown_ids_message
from segkc_deploy.data.reading import Reading, class_ids, read, unknown
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.set_report import SetReport, report_set
from segkc_deploy.labels import Labels
from segkc_deploy.progress import track

_VALUES_MESSAGE = (
    "single-channel masks among color masks: their values are read as class ids; if a tool stored color masks as"
    " grayscale, add `mask_values: colors`"
)
_DARK_MESSAGE = (
    "images without a value above 16 of 255, nearly black: 16-bit files are divided by 257, so a camera's 10 or 12"
    " bits must be scaled to 16 bits before"
)

#: Rare classes whose objects are compared with their mirror images; each takes a second or two.
_MOST_MIRRORED = 8


@dataclass(frozen=True)
class Finding:
    """One kind of mistake: what it is and how to mend it, and one line for each file that has it."""

    level: Literal["error", "warning"]
    kind: str
    message: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What `check` found: figures for each set that has images, and the findings, errors first.

    `turned` samples have an image with an EXIF rotation and a mask without.
    """

    labels: Labels
    sets: tuple[SetReport, ...]
    findings: tuple[Finding, ...]
    turned: tuple[Sample, ...] = ()

    @property
    def errors(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors


def check(sets: ImageSets, workers: int) -> CheckReport:
    """Read every image and mask of `sets` in `workers` threads.

    `sets` comes from `DataSpec.resolve(allow_missing_masks=True)`, so that missing masks are found beside the rest.
    """
    named = {"labeled": sets.labeled, "unlabeled": sets.unlabeled, "val": sets.val}
    samples = [sample for group in named.values() for sample in group]
    readings = iter(_read_all(samples, sets, workers))
    by_set = {name: [next(readings) for _ in group] for name, group in named.items() if group}
    findings = sorted(_findings(by_set, sets), key=lambda finding: finding.level)  # "error" < "warning"
    reports = tuple(report_set(name, group, sets) for name, group in by_set.items())
    turned = tuple(one.sample for group in by_set.values() for one in group if one.turned)
    return CheckReport(sets.labels, reports, tuple(findings), turned)


def _read_all(samples: Sequence[Sample], sets: ImageSets, workers: int) -> list[Reading]:
    # Threads, not processes: decoding, hashing and counting release the interpreter's lock.
    executor = ThreadPoolExecutor(workers)
    try:
        read_one = partial(read, coding=sets.coding, pixels=sets.pixels)
        return list(track(executor.map(read_one, samples), "checking", total=len(samples)))
    finally:
        executor.shutdown(cancel_futures=True)


def _findings(by_set: dict[str, list[Reading]], sets: ImageSets) -> Iterator[Finding]:
    every = [reading for group in by_set.values() for reading in group]
    yield from _if_any("error", "unreadable", "unreadable files", (text for one in every for text in one.unreadable))
    yield from _if_any("error", "size-mismatch", "masks of another size than their image", _mismatches(every))
    yield from _unknown_ids(every, sets)
    yield from _palettes(every, sets)
    yield from _if_any("warning", "values-among-colors", _VALUES_MESSAGE, _values_among_colors(every))
    ordered = (f"{one.sample.image} with {one.sample.mask}" for one in every if _by_order(one.sample))
    yield from _if_any("warning", "paired-by-order", BY_ORDER, ordered)
    turned = (f"{one.sample.image} (mask {one.sample.mask})" for one in every if one.turned)
    yield from _if_any("warning", "turned", f"{TURNED}. See them with `check --pictures DIR`", turned)
    dark = (str(one.sample.image) for one in every if one.dark)
    yield from _if_any("warning", "dark", _DARK_MESSAGE, dark)
    for name in ("labeled", "val"):
        group = by_set.get(name, [])
        unmasked = (str(one.sample.image) for one in group if one.sample.mask is None)
        yield from _if_any("error", "missing-mask", f"{name} images without a mask", unmasked)
        yield from _zero_and_255(name, group, sets)
        yield from _ignored_masks(name, group, sets)
        yield from _never_labeled(name, group, sets)
    yield from _rare_and_mirrored(by_set.get("labeled", []), sets)
    yield from _in_val("error", "labeled", by_set)
    yield from _in_val("warning", "unlabeled", by_set)
    yield from _unlabeled_copies(by_set)


def _rare_and_mirrored(readings: list[Reading], sets: ImageSets) -> Iterator[Finding]:
    report, names = report_set("labeled", readings, sets), sets.labels.names
    if rare := rare_classes(report, names):
        yield Finding("warning", "rare-class", rare)
    found = [f"{one} and {other}" for one, other in mirrored_names(names)]
    for class_id in rare_class_ids(report)[:_MOST_MIRRORED]:
        holding = [one.sample for one in readings if class_id in class_ids(one)]
        if share := mirror_is_labeled_otherwise(holding, sets, class_id):
            found.append(f"{names[class_id]} ({share} objects)")
    if found:
        yield Finding("warning", "mirrored", f"{MIRRORED}: {', '.join(found)}")


def _values_among_colors(readings: list[Reading]) -> tuple[str, ...]:
    """Name the mask images of values where others hold colors."""
    images = [one for one in readings if one.values and one.sample.mask is not None and is_mask_image(one.sample.mask)]
    values = tuple(str(one.sample.mask) for one in images if not one.are_ids)
    return values if len(values) < len(images) else ()


def _by_order(sample: Sample) -> bool:
    return sample.mask is not None and is_paired_by_order(sample.mask)


def _if_any(level: Literal["error", "warning"], kind: str, message: str, files: Iterable[str]) -> Iterator[Finding]:
    if files := tuple(files):
        yield Finding(level, kind, message, files)


def _mismatches(readings: Iterable[Reading]) -> Iterator[str]:
    return (reading.mismatch for reading in readings if reading.mismatch is not None)


def _palettes(readings: Sequence[Reading], sets: ImageSets) -> Iterator[Finding]:
    palettes = [(one.sample.mask, one.palette) for one in readings if one.sample.mask is not None and one.palette]
    conflicts = tuple(map(str, palette_conflicts(palettes)))
    yield from _if_any("error", "palettes-differ", PALETTES_DIFFER, conflicts)
    if conflicts or not sets.coding.colors:
        return
    names = sets.labels.names
    files = []
    for path, palette in palettes:
        for index, color in palette.items():
            class_id = sets.coding.label_mapping.get(index, index)
            meant = sets.coding.colors.get(color, class_id)
            if meant != class_id and class_id < len(names) and meant < len(names):
                files.append(f"{path}: index {index} means {names[class_id]!r} but has the color of {names[meant]!r}")
                break
    message = (
        "palette masks whose indices and colors name different classes; if the colors are right, add"
        " `mask_values: colors`, or else correct the colors in `classes`"
    )
    yield from _if_any("error", "palette-order", message, files)


def _unknown_ids(readings: Iterable[Reading], sets: ImageSets) -> Iterator[Finding]:
    values: set[int] = set()
    files = []
    for reading in readings:
        if (found := unknown(reading, sets)) and reading.values is not None:
            values.update(found)
            counts = ", ".join(f"{value} ({reading.values[value]} pixels)" for value in found[:4])
            files.append(f"{reading.sample.mask}: {counts}{', …' if len(found) > 4 else ''}")
    if values:
        message = f"values outside the classes: the masks {_plural(unknown_ids_message(sorted(values), sets.labels))}"
        yield Finding("error", "unknown-ids", message, tuple(files))


def _plural(message: str) -> str:
    return "hold" + message.removeprefix("holds")


def _zero_and_255(name: str, readings: Iterable[Reading], sets: ImageSets) -> Iterator[Finding]:
    """With ignore_index 255 such masks are valid and teach one class alone: the usual silent failure of 0/255 masks."""
    if sets.labels.ignore_index != 255 or 255 in sets.coding.label_mapping:
        return
    masks = [reading for reading in readings if reading.values and not reading.are_ids]
    binary = [str(one.sample.mask) for one in masks if 255 in (one.values or ()) and set(one.values or ()) <= {0, 255}]
    if not binary or all(set(reading.values or ()) == {255} for reading in masks):
        return
    if all(set(reading.values or ()) <= {0, 255} for reading in masks):
        message = (
            f"every {name} mask holds only 0 and 255, so that all but class 0 is ignored;"
            " if 255 marks class 1, add `label_mapping: {255: 1}`"
        )
        yield Finding("error", "zero-and-255", message, tuple(binary))
    else:
        message = f"{name} masks that hold only 0 and 255: class 0 and ignored pixels"
        both = (str(reading.sample.mask) for reading in masks if set(reading.values or ()) == {0, 255})
        yield from _if_any("warning", "zero-and-255", message, both)


def _ignored_masks(name: str, readings: Iterable[Reading], sets: ImageSets) -> Iterator[Finding]:
    files = tuple(str(one.sample.mask) for one in readings if class_ids(one) == {sets.labels.ignore_index})
    message = (
        f"{name} masks in which every pixel is ignored, so that they teach and score nothing;"
        " label them or take them out, or map the value to a class: `label_mapping: {255: 1}`"
    )
    yield from _if_any("warning", "ignored-mask", message, files)


def _never_labeled(name: str, readings: list[Reading], sets: ImageSets) -> Iterator[Finding]:
    if not readings:
        return
    report = report_set(name, readings, sets)
    missing = [label for label, count in zip(sets.labels.names, report.class_pixels, strict=True) if not count]
    if not report.labeled_pixels and report.ignored_pixels:
        yield Finding("error", "all-ignored", f"every pixel of every {name} mask is ignored; check label_mapping")
    elif missing and report.labeled_pixels:
        effect = "cannot be learned from labels" if name == "labeled" else "cannot be scored"
        message = f"classes that no {name} mask holds, and so {effect}: {', '.join(missing)}"
        yield Finding("warning", "never-labeled", message)


def _in_val(level: Literal["error", "warning"], name: str, by_set: dict[str, list[Reading]]) -> Iterator[Finding]:
    message = f"{name} images that are also validation images, pixel by pixel; take them out of one of the two sets"
    yield from _if_any(level, f"{name}-in-val", message, _copies(by_set, name, "val"))


def _unlabeled_copies(by_set: dict[str, list[Reading]]) -> Iterator[Finding]:
    message = (
        "unlabeled images that are also labeled images, pixel by pixel; take them out: their masks teach more than"
        " pseudo-labels, and `label-next` may choose them"
    )
    yield from _if_any("warning", "unlabeled-in-labeled", message, _copies(by_set, "unlabeled", "labeled"))


def _copies(by_set: dict[str, list[Reading]], name: str, other: str) -> Iterator[str]:
    """Name the images of a set that another set has too, by the decoded pixels."""
    known: dict[bytes, Path] = {one.content: one.sample.image for one in by_set.get(other, []) if one.content}
    return (f"{one.sample.image} = {known[one.content]}" for one in by_set.get(name, []) if one.content in known)
