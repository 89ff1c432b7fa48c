"""Which annotation file belongs to which image."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from segkc_deploy.data.annotations.names import Fit, ImageNames
from segkc_deploy.data.annotations.reading import ANNOTATION_SUFFIXES, open_annotations
from segkc_deploy.data.annotations.task_pngs import first_pngs, is_task_png, task_names
from segkc_deploy.data.files import files_below, files_by_id
from segkc_deploy.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from segkc_deploy.data.samples import Sample
from segkc_deploy.errors import DataError

_OF_MANY_IMAGES = ANNOTATION_SUFFIXES - {".txt"}

BY_ORDER = (
    "Label Studio's PNG files name tasks, not images: they are paired with the images by order alone; compare some, or"
    " export the project as JSON too and put the file beside the masks"
)


def pair_masks(images: Mapping[str, Path], place: Path, ending: str, beside_images: bool) -> dict[str, Path]:
    """Return the mask file of each image that has one, by the image's id.

    Args:
        images: the image files by id.
        place: a folder of masks or of annotation files, one an image, or an annotation file of many images.
        ending: what a mask's name has after the id.
        beside_images: the folder is that of the images, so its image files are no masks.

    Raises:
        DataError: a file is damaged, or two have the same id.
    """
    if place.is_file():
        return _of_file(images, place)
    masks = {} if beside_images else files_by_id(place, MASK_SUFFIXES, ending)
    if masks and all(is_task_png(path) for path in masks.values()):
        return _of_tasks(images, place)
    if masks:
        return masks
    files = [path for path in files_below(place) if path.suffix.lower() in _OF_MANY_IMAGES]
    texts = _of_suffix(images, place, ".txt", ending)
    if len(files) == 1 and files[0].stem not in images and not texts.keys() & images.keys():
        return _of_file(images, files[0])
    return max(
        (_of_suffix(images, place, ".json", ending), texts), key=lambda found: len(found.keys() & images.keys())
    )  # of equals the first


def is_paired_by_order(mask: Path) -> bool:
    """Return whether nothing but the order of files ties a mask to its image."""
    return is_task_png(mask) and task_names(mask.parent) is None


def require_own_annotations(samples: Iterable[Sample]) -> None:
    """Refuse samples of which two have the same annotations: the name of these fits several image files.

    Raises:
        DataError: there are some, or an annotation file is damaged.
    """
    by_mask: dict[Path, list[Sample]] = {}
    for sample in samples:
        if sample.mask is not None:
            by_mask.setdefault(sample.mask, []).append(sample)
    for mask, sharing in by_mask.items():
        if len(sharing) == 1 or not (is_task_png(mask) or mask.suffix.lower() in _OF_MANY_IMAGES):
            continue
        owners: dict[int, Path] = {}
        for sample in sharing:
            found = (0, None) if is_task_png(mask) else open_annotations(mask).find(sample.image)
            owner = owners.setdefault(found[0], sample.image) if found else sample.image  # by a list, not by its name
            if owner != sample.image and owner.resolve() != sample.image.resolve():
                raise DataError(
                    f"{mask}: the same annotations fit {owner} and {sample.image} by name; take one of the two images"
                    " out, or write the folders of both into the annotation file"
                )


def _of_file(images: Mapping[str, Path], file: Path) -> dict[str, Path]:
    return dict.fromkeys(_owners(images, open_annotations(file).find), file)


def _owners(images: Mapping[str, Path], find: Callable[[Path], tuple[int, Fit] | None]) -> dict[str, int]:
    """Return which annotations each image has; of images that the same ones fit, those that they fit best have them."""
    found = {name: hit for name, image in images.items() if (hit := find(image)) is not None}
    best: dict[int, Fit] = {}
    for place, fit in found.values():
        best[place] = max(fit, best.get(place, fit))
    return {name: place for name, (place, fit) in found.items() if fit == best[place]}


def _of_suffix(images: Mapping[str, Path], place: Path, suffix: str, ending: str) -> dict[str, Path]:
    """Return the annotation files of one suffix, by the id of the image that each is named after."""
    found = files_by_id(place, frozenset({suffix}), ending)
    return {name if name in images else _without_image_suffix(name): path for name, path in found.items()}


def _of_tasks(images: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    pngs = first_pngs(folder)
    named = task_names(folder)
    if named is not None:
        tasks = [task for task in named if task in pngs]
        texts = [named[task] for task in tasks]
        names = ImageNames(texts)

        def find(image: Path) -> tuple[int, Fit] | None:
            places, fit = names.find(image)
            if len(places) > 1:
                shown = " and ".join(f"{tasks[place]}" for place in places[:2])
                raise DataError(f"{folder}: tasks {shown} are both of {texts[places[0]]!r}; keep one")
            return (places[0], fit) if places else None

        return {name: pngs[tasks[place]] for name, place in _owners(images, find).items()}
    if len(pngs) != len(images):
        raise DataError(
            f"{folder}: Label Studio's PNG files name tasks, not images, and there are {len(pngs)} tasks for"
            f" {len(images)} images; export the project as JSON too and put the file beside them"
        )
    return dict(zip(sorted(images, key=_natural), pngs.values(), strict=True))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _without_image_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name
