"""Roboflow's export "Semantic Segmentation Masks": PNG masks beside the images, and the classes in `_classes.csv`."""

import csv
from collections.abc import Mapping
from pathlib import Path

from segkc_deploy.data.images import MASK_SUFFIXES, read_bytes
from segkc_deploy.errors import DataError

NAME = "_classes.csv"

_ENDING = "_mask"
_LARGEST_VALUE = 255


def is_export(folder: Path) -> bool:
    """Return whether a folder holds such an export."""
    return (folder / NAME).is_file()


def holds_mask_images(folder: Path) -> bool:
    """Return whether a folder, or one below it, holds a file that may be a mask image."""
    return folder.is_dir() and any(path.suffix.lower() in MASK_SUFFIXES for path in folder.rglob("*"))


def split_files(files: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Split the files of an export, by id, into images and the masks of these images: `a_mask.png` is that of `a`."""
    masks = {
        name.removesuffix(_ENDING): path
        for name, path in files.items()
        if name.endswith(_ENDING) and name.removesuffix(_ENDING) in files and path.suffix.lower() in MASK_SUFFIXES
    }
    images = {name: path for name, path in files.items() if path not in masks.values()}
    return images, masks


def read_classes(folder: Path) -> dict[int, str]:
    """Return the class of each pixel value.

    Raises:
        DataError: the file cannot be read, or a line is not `value, name`.
    """
    path = folder / NAME
    try:
        lines = read_bytes(path, "file").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    classes: dict[int, str] = {}
    for number, row in enumerate(csv.reader(lines, skipinitialspace=True), start=1):
        fields = [field.strip() for field in row]
        if not any(fields) or (number == 1 and fields[0].lower() == "pixel value"):
            continue
        is_value = len(fields) == 2 and fields[0].isascii() and fields[0].isdigit() and len(fields[0]) <= 3
        if not is_value or int(fields[0]) > _LARGEST_VALUE or not fields[1] or int(fields[0]) in classes:
            raise DataError(f"{path}: line {number}: should be `value, name` with a value of its own, but is {row}")
        classes[int(fields[0])] = fields[1]
    return classes
