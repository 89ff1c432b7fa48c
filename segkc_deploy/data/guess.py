"""Guess a data spec from a folder: what `segkc-deploy init` writes, and what it says about its guesses."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segkc_deploy.data import roboflow
from segkc_deploy.data.annotations.names import without_upload_prefix
from segkc_deploy.data.annotations.reading import open_annotations
from segkc_deploy.data.annotations.task_pngs import first_pngs, is_task_png, task_names
from segkc_deploy.data.annotations.yolo_names import names_in_lists, yolo_names
from segkc_deploy.data.files import files_below
from segkc_deploy.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from segkc_deploy.data.labelmap import NAME as LABELMAP
from segkc_deploy.data.labelmap import read_labelmap
from segkc_deploy.data.mask_files import raw_mask
from segkc_deploy.errors import DataError

_MASK_WORDS = re.compile(r"mask|label|annot|segm|\bgt|ann$|ground.?truth", re.IGNORECASE)
_VAL_WORDS = re.compile(r"val|valid|validation|test|dev", re.IGNORECASE)
_TRAIN_WORDS = re.compile(r"train|training", re.IGNORECASE)
_MASKS_READ = 24
_MOST_CLASSES = 255
_MOST_NAMED = 5
#: Pascal VOC's folder, and CVAT's, of masks that color objects one by one, beside the one of classes.
_INSTANCES = "SegmentationObject"

#: The folders and files by which a layout is known.
_LAYOUTS = {
    "voc": ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/train.txt"),
    "cityscapes": ("leftImg8bit/train", "gtFine/train"),
    "ade20k": ("images/training", "annotations/training/ADE_train_*"),  # others name their folders so, too
    "coco-stuff": ("train2017", "stuffthingmaps/train2017"),
}


@dataclass
class Guess:
    """A data spec as a mapping, and a remark on each thing that was guessed."""

    spec: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Pair:
    """A folder of images, where their masks are, and how many images have one."""

    images: Path
    masks: Path
    matched: int
    total: int


def guess_spec(root: Path) -> Guess:
    """Look at the files below `root` and return a data spec for them.

    Raises:
        DataError: no images, or no masks or annotations of them, were found.
    """
    for layout, folders in _LAYOUTS.items():
        if all(next(root.glob(folder), None) for folder in folders):
            return Guess({"layout": layout}, [f"layout {layout}: the folder has {', '.join(folders)}"])
    files = sorted(files_below(root))
    pairs = _merged(root, _pairs(root, files), _image_folders(files))
    if not pairs:
        raise DataError(
            f"{root}: no images with masks or annotations of the same names were found; write the data spec by hand"
            " (docs/data.md)"
        )
    train, val = _splits(root, pairs)
    guess = Guess()
    _add_classes(guess, root, [pair.masks for pair in (train, val) if pair is not None], train)
    guess.spec["labeled"] = _section(root, train)
    guess.remarks.append(
        f"labeled: {train.matched} of {train.total} images in {_below(root, train.images)} have a mask"
    )
    if val is not None:
        guess.spec["val"] = _section(root, val)
        guess.remarks.append(f"val: {val.matched} images in {_below(root, val.images)}, by the folder's name")
    used = {train.images, *([val.images] if val else ()), train.masks, *([val.masks] if val else ())}
    unlabeled = [
        folder
        for folder, images in _image_folders(files).items()
        if not used & {folder, *folder.parents} and not _is_mask_folder(root, folder, images)
    ]
    if unlabeled:
        rest = [train.images] if train.matched < train.total else []  # with a section, nothing else is unlabeled
        guess.spec["unlabeled"] = {"images": [_below(root, folder) for folder in (*rest, *unlabeled)]}
        guess.remarks.append(f"unlabeled: images in {', '.join(guess.spec['unlabeled']['images'])}")
    unused = [pair for pair in pairs if pair.masks not in used and not used & {pair.images, *pair.images.parents}]
    if unused:
        named = ", ".join(_below(root, pair.images) for pair in unused[:_MOST_NAMED])
        more = f" and {len(unused) - _MOST_NAMED} more" if len(unused) > _MOST_NAMED else ""
        guess.remarks.append(
            f"not used: the masks of {sum(pair.matched for pair in unused)} images in {named}{more}; a section has one"
            " folder of images and one of masks, or a list of pairs of paths (`ids`)"
        )
    return guess


def _merged(root: Path, pairs: list[_Pair], folders: Mapping[Path, list[Path]]) -> list[_Pair]:
    """Join folders that lie beside each other, as their masks do under the same names: `images/a` with `masks/a`, …

    Folders named after a split stay apart, and so do those beside one, beside images whose masks lie elsewhere, or
    beside mask images, which would be taken for images.
    """
    below: dict[Path, set[Path]] = {}
    for folder in folders:
        for above in (folder, *folder.parents):
            below.setdefault(above, set()).add(folder)
    masked = {folder for folder, images in folders.items() if _is_mask_folder(root, folder, images)}
    while True:
        joined = _joined(root, pairs, below, masked)
        if len(joined) == len(pairs):
            return sorted(joined, key=_most_matched_first)
        pairs = joined


def _joined(root: Path, pairs: list[_Pair], below: Mapping[Path, set[Path]], masked: set[Path]) -> list[_Pair]:
    """Join, one level up, the pairs that may be; `below` has the image folders in each folder."""
    groups: dict[tuple[Path, Path], list[_Pair]] = {}
    for pair in pairs:
        is_split = _VAL_WORDS.search(pair.images.name) or _TRAIN_WORDS.search(pair.images.name)
        if root not in (pair.images, pair.masks) and pair.images.name == pair.masks.name and not is_split:
            groups.setdefault((pair.images.parent, pair.masks.parent), []).append(pair)
    known = {pair.images: pair for pair in pairs}
    for (images, masks), members in groups.items():
        own = known.get(images)  # of images in the folder itself
        group = [*members, *([own] if own is not None and own.masks == masks else [])]
        inside = below[images]
        others = inside & known.keys() - {pair.images for pair in group}
        splits = any(_VAL_WORDS.search(_below(images, folder)) for folder in inside)
        changed = any(known.get(pair.images) != pair for pair in group)  # joined already: left to the next round
        if len(group) < 2 or others or splits or inside & masked or changed:
            continue
        for pair in group:
            del known[pair.images]
        total, matched = sum(pair.total for pair in group), sum(pair.matched for pair in group)
        known[images] = _Pair(images, masks, matched, total)
    return list(known.values())


def _most_matched_first(pair: _Pair) -> tuple[int, Path]:
    return -pair.matched, pair.images


def _pairs(root: Path, files: list[Path]) -> list[_Pair]:
    """Pair image folders with places of masks by the names of their files, best first."""
    folders = _image_folders(files)
    mask_folders = {folder: masks for folder, masks in folders.items() if _is_mask_folder(root, folder, masks)}
    places = [*_mask_places(mask_folders), *_annotation_places(files)]
    best: dict[Path, _Pair] = {}
    for folder, images in folders.items():
        if folder in mask_folders:
            continue
        stems = {_stem(image.name) for image in images}
        for place, masked in (*_roboflow_place(folder, images), *places):
            matched = len(stems & (_task_stems(place, folder) if masked is None else masked))
            if not matched:
                continue
            total = matched if roboflow.is_export(folder) and place == folder else len(images)
            pair, known = _Pair(folder, place, matched, total), best.get(folder)
            if known is None or _merit(root, pair) > _merit(root, known):
                best[folder] = pair
    return sorted(best.values(), key=_most_matched_first)


def _merit(root: Path, pair: _Pair) -> tuple[int, int, int]:
    """More images first; of equals the place whose path ends as the images' does, or shares more words with it."""
    images, masks = (path.relative_to(root).parts for path in (pair.images, pair.masks))
    alike = [one == other for one, other in zip(reversed(images), reversed(masks), strict=False)]
    ending = alike.index(False) if False in alike else len(alike)
    words = (set(re.split(r"\W|_", _below(root, path))) for path in (pair.images, pair.masks))
    return pair.matched, ending, len(set.intersection(*words))


def _image_folders(files: Iterable[Path]) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            folders.setdefault(path.parent, []).append(path)
    return folders


def _is_mask_folder(root: Path, folder: Path, images: list[Path]) -> bool:
    return all(image.suffix.lower() in MASK_SUFFIXES for image in images) and bool(
        _MASK_WORDS.search(_below(root, folder)) or all(is_task_png(image) for image in images)
    )


def _roboflow_place(folder: Path, images: list[Path]) -> Iterable[tuple[Path, set[str]]]:
    """Yield the folder of an export of Roboflow, which holds its masks too, and the stems that have some."""
    if roboflow.is_export(folder):
        yield folder, set(roboflow.split_files({_stem(path.name): path for path in images})[1])


def _mask_places(mask_folders: Mapping[Path, list[Path]]) -> Iterable[tuple[Path, set[str] | None]]:
    """Yield each folder of mask images, and the stems of the images that it has masks of; None for tasks' PNG files."""
    for folder, masks in mask_folders.items():
        if folder.name != _INSTANCES:
            yield folder, None if all(is_task_png(mask) for mask in masks) else {_stem(mask.name) for mask in masks}


def _annotation_places(files: list[Path]) -> Iterable[tuple[Path, set[str]]]:
    """Yield each annotation file of many images and each folder of files of one, with the stems of these images."""
    texts: dict[Path, set[str]] = {}
    for path in files:
        if path.suffix.lower() == ".txt":
            texts.setdefault(path.parent, set()).add(unicodedata.normalize("NFC", path.stem))
        if path.suffix.lower() not in {".json", ".xml"}:
            continue
        try:
            annotated = open_annotations(path).images
        except DataError:
            continue  # settings and the like; a damaged annotation file is reported once the spec names it
        if len(annotated) == 1 and _stem(path.name) == _stem(annotated[0].name):
            texts.setdefault(path.parent, set()).add(_stem(path.name))
        elif annotated:
            stems = {_stem(image.name) for image in annotated}
            yield path, stems | {without_upload_prefix(stem) for stem in stems}
    yield from texts.items()


def _task_stems(folder: Path, images: Path) -> set[str]:
    """Return the stems of the images that Label Studio's PNG files in `folder` may belong to."""
    if names := task_names(folder):
        stems = {_stem(name) for name in names.values()}
        return stems | {without_upload_prefix(stem) for stem in stems}
    candidates = {_stem(path.name) for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    return candidates if len(candidates) == len(first_pngs(folder)) else set()


def _splits(root: Path, pairs: list[_Pair]) -> tuple[_Pair, _Pair | None]:
    """Return the pair to train on and, where a folder's name says so, the one to validate on."""
    val = [pair for pair in pairs if _VAL_WORDS.search(_below(root, pair.images))]
    others = [pair for pair in pairs if pair not in val]
    named = [pair for pair in others if _TRAIN_WORDS.search(_below(root, pair.images))]
    train = (named or others or val)[0]
    preferred = [pair for pair in val if "val" in _below(root, pair.images).lower()]
    chosen = [pair for pair in (preferred or val) if pair is not train]
    return train, chosen[0] if chosen else None


def _add_classes(guess: Guess, root: Path, places: list[Path], train: _Pair) -> None:
    for folder in (root, train.masks if train.masks.is_dir() else train.masks.parent, train.masks.parent):
        if (file := folder / LABELMAP).is_file():
            guess.spec["classes"] = {name: list(color) for name, color in read_labelmap(file).items()}
            guess.remarks.append(f"classes: names and colors of {_below(root, file)}")
            return
    if train.masks.is_dir() and roboflow.is_export(train.masks):
        names = [name for _, name in sorted(roboflow.read_classes(train.masks).items())]
        guess.spec["classes"] = names
        guess.remarks.append(f"classes: those of {_below(root, train.masks / roboflow.NAME)}")
        return
    if labels := _annotation_labels(places):
        source = "the labels in the annotations"
    elif labels := _yolo_labels(root, train):
        source = "the names in YOLO's YAML file or list, or its numbers"
    else:
        _add_values(guess, places)
        return
    names = [name for name in labels if name.lower().strip("_") != "background"]
    guess.spec["classes"] = ["background", *names]
    guess.remarks.append(f"classes: {source}; background is what no shape covers")


def _annotation_labels(places: list[Path]) -> list[str]:
    labels: dict[str, None] = {}
    for place in places:
        files = [place] if place.is_file() else sorted(place.rglob("*.json"))
        for file in files:
            try:
                for image in open_annotations(file).images:
                    labels |= dict.fromkeys(shape.label for shape in image.shapes)
            except DataError:
                continue  # as in `_annotation_places`
        if place.is_dir():
            tags = (re.search(r"-tag-(.+)-\d+$", path.stem) for path in sorted(place.rglob("task-*.png")))
            labels |= dict.fromkeys(tag[1] for tag in tags if tag)
    return sorted(name for name in labels if name != "__ignore__")


def _yolo_labels(root: Path, train: _Pair) -> list[str]:
    if train.masks.is_file() or not any(train.masks.rglob("*.txt")):
        return []
    for path in sorted((*root.glob("*.yaml"), *root.glob("*.yml"))):
        if names := yolo_names(path):
            return list(names)
    for names in names_in_lists((root, train.masks, train.masks.parent)).values():
        return list(names)
    numbers = {int(word) for file in sorted(train.masks.rglob("*.txt")) for word in _first_words(file)}
    return [f"object_{number}" for number in range(max(numbers, default=0) + 1)]


def _first_words(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    words = [line.split()[0] for line in lines if line.split() and len(line) > 8]
    return [word for word in words if word.isascii() and word.isdecimal() and int(word[:4]) < _MOST_CLASSES]


def _add_values(guess: Guess, places: list[Path]) -> None:
    """Name the classes by the values of some masks."""
    values: set[int] = set()
    colors: set[tuple[int, ...]] = set()
    for path in [path for place in places for path in sorted(place.rglob("*"))][:_MASKS_READ]:
        if path.suffix.lower() not in MASK_SUFFIXES:
            continue
        try:
            values |= set(np.unique(raw_mask(path)).tolist())
        except DataError:
            colors |= _colors_of(path)
    if colors:
        guess.spec["classes"] = {f"color_{index}": list(color) for index, color in enumerate(sorted(colors))}
        guess.remarks.append("classes: the colors of some RGB masks; give them their names")
        return
    if values == {0, 255}:
        guess.spec |= {"classes": ["background", "object"], "label_mapping": {255: 1}}
        guess.remarks.append("classes: the masks hold 0 and 255; 255 is taken for a class, not for ignored pixels")
        return
    classes = [value for value in sorted(values) if 0 <= value < _MOST_CLASSES] or [0, 1]
    guess.spec["classes"] = [f"class_{value}" for value in range(max(2, max(classes) + 1))]
    guess.remarks.append(f"classes: the masks hold {_listed(values)}; give the classes their names")
    if others := values - set(classes) - {255}:
        guess.remarks.append(f"classes: {_listed(others)} cannot be class ids; map them with `label_mapping`")


def _listed(values: set[int]) -> str:
    shown = ", ".join(map(str, sorted(values)[:_MOST_CLASSES]))
    return f"{shown} and {len(values) - _MOST_CLASSES} more" if len(values) > _MOST_CLASSES else shown


def _colors_of(path: Path) -> set[tuple[int, ...]]:
    from segkc_deploy.data.images import read_image

    try:
        pixels = read_image(path).reshape(-1, 3)
    except DataError:
        return set()
    return {tuple(map(int, color)) for color in np.unique(pixels, axis=0)[:255]}


def _section(root: Path, pair: _Pair) -> Mapping[str, str]:
    return {"images": _below(root, pair.images), "masks": _below(root, pair.masks)}


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _stem(name: str) -> str:
    """Return a file's name without `.json` and without the image's suffix, in Unicode's composed form."""
    name = unicodedata.normalize("NFC", name.rpartition("/")[2])
    name = re.sub(r"\.(json|xml)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"\.\w{1,5}$", "", name)
