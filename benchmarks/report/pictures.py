"""Side-by-side pictures: which validation images to show, and small files of what each row made of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from segkc_deploy import atomic
from segkc_deploy.benchmarks.schema import BenchmarkResult, Comparison, Picture, Row
from segkc_deploy.benchmarks.store.image_ids import printable
from segkc_deploy.benchmarks.store.masks import mask_path, read_mask
from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.labels import Labels
from segkc_deploy.overlay import colorize
from segkc_deploy.pixel_format import as_picture
from segkc_deploy.preprocess import resize_image, resize_mask

#: The longer side of a picture in pixels.
_LONGER_SIDE = 360
_JPEG_QUALITY = 82
_WORST = 4
#: The names that `save_pictures` gives.
_PICTURE = re.compile(r"\d{2,}-\d{2,}\.(jpg|png)")
#: The color of pixels without a class in the truth.
NOT_LABELED = (212, 212, 212)


def chooser(rows: Sequence[Row]) -> Row | None:
    """Return the row whose mistakes choose the pictures: the first junior, else the first artifact, else any."""
    scored = [row for row in rows if row.accuracy and row.accuracy.image_miou]
    return min(scored, key=lambda row: ("junior", "artifact", "senior").index(row.role), default=None)


def choose(image_miou: Mapping[str, float | None], worst: int = _WORST) -> list[tuple[str, str]]:
    """Return (image id, reason): the `worst` by mIoU first, then the median one and the best one, none twice."""
    scored = [(value, image) for image, value in image_miou.items() if value is not None]
    ranked = [image for _, image in sorted(scored)]
    if not ranked:
        return []
    reasons = {image: f"{_ordinal(place)}worst" for place, image in enumerate(ranked[:worst], start=1)}
    reasons.setdefault(ranked[len(ranked) // 2], "median")
    reasons.setdefault(ranked[-1], "best")
    return list(reasons.items())


def _ordinal(place: int) -> str:
    return "" if place == 1 else {2: "2nd ", 3: "3rd "}.get(place, f"{place}th ")


def save_pictures(result: BenchmarkResult, sets: ImageSets, masks: Mapping[str, Path], out: Path) -> None:
    """Write the pictures into `out/pictures` and list them in `result.comparisons`.

    Args:
        result: its rows choose the images.
        sets: where the validation images and their truth are.
        masks: for each row's name the folder with its predicted masks, as `save_mask` names them.
        out: the report's folder.
    """
    row = chooser(result.rows)
    if row is None or row.accuracy is None:
        return
    result.chosen_by = row.name
    places = {printable(sample.id): place for place, sample in enumerate(sets.val)}
    result.comparisons = []
    for number, (image_id, reason) in enumerate(choose(row.accuracy.image_miou), start=1):
        place = places[image_id]
        image, truth = read_sample(sets.val[place], sets)
        assert truth is not None  # it has been scored
        size = _small(image.shape[:2])
        pictures = [("input", resize_image(as_picture(image), size)), ("truth", _colored(truth, result.labels, size))]
        pictures += [
            (other.name, _colored(read_mask(masks[other.name], place), result.labels, size))
            for other in result.rows
            if other.name in masks and mask_path(masks[other.name], place).exists()
        ]
        files = [
            Picture(
                title=title, file=_write(picture, out, f"pictures/{number:02d}-{column:02d}", photo=title == "input")
            )
            for column, (title, picture) in enumerate(pictures)
        ]
        score = row.accuracy.image_miou[image_id]
        result.comparisons.append(Comparison(id=image_id, reason=reason, miou=score, pictures=files))


def remove_pictures(out: Path) -> None:
    """Remove the pictures that an earlier report left in `out/pictures`, and the folder where nothing else is in it."""
    folder = out / "pictures"
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _PICTURE.fullmatch(path.name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _small(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(_LONGER_SIDE / max(size), 1.0)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def _colored(mask: np.ndarray, labels: Labels, size: tuple[int, int]) -> np.ndarray:
    small = resize_mask(mask, size)
    picture = colorize(small, labels)
    picture[small >= labels.num_classes] = NOT_LABELED  # black can be a class's color
    return picture


def _write(picture: np.ndarray, out: Path, stem: str, photo: bool) -> str:
    name = f"{stem}.jpg" if photo else f"{stem}.png"
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if photo else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, data = cv2.imencode(Path(name).suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    assert done, name
    atomic.write_bytes(out / name, data.tobytes())
    return name
