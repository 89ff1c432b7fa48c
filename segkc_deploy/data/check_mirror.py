"""Whether mirrored training images would contradict the labels, for `check`.

Training flips images left to right. Where the mirror image of an object is labeled as something else (a left lung that
becomes a right one, a mark at the left corner of a part whose right corner bears none), flipped images teach the
opposite of the others, and the network can at best predict both.
"""

import re
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.errors import DataError

MIRRORED = (
    "classes whose mirror images are labeled as others, while training mirrors half of the crops; train with"
    " -o weak.flip=0 (docs/training.md, Mirrored objects)"
)

#: Images that are looked at for a class, and objects in each.
_MOST_IMAGES, _MOST_OBJECTS = 16, 4
#: An object with its surroundings is compared at no more than this many pixels a side, within 8 such sides.
_LONGEST_SIDE, _REACH = 32, 8
#: Correlation that counts as the same picture, and by how much the mirror image has to match better than the object.
_SAME, _BETTER = 0.7, 0.15
#: At least so many objects, and this share of those seen. On 23 classes of street and steel photographs the share was
#: at most 5% wherever three objects were seen.
_LEAST_OBJECTS, _LEAST_SHARE = 3, 0.25


def mirror_is_labeled_otherwise(samples: Sequence[Sample], sets: ImageSets, class_id: int) -> str:
    """Return how often the mirror image of an object of a class is labeled otherwise, as `7 of 8`; "" where seldom.

    Objects are cut out with their surroundings. Each and its mirror image are searched in the image around it, where
    no pixel of the class is (normalized cross-correlation). A mirror image that is found there, unlike the object
    itself, contradicts it. Objects that look the same both ways, and classes that cannot be told from their
    surroundings, count as no contradiction.

    Args:
        samples: images that hold the class.
        sets: what their masks mean.
        class_id: the class.
    """
    step = max(len(samples) // _MOST_IMAGES, 1)
    seen = found = 0
    for sample in samples[::step][:_MOST_IMAGES]:
        try:
            image, mask = read_sample(sample, sets)
        except DataError:
            continue  # `check` reports it
        assert mask is not None
        for region, inside, box in _objects(image[..., :3], mask == class_id):
            seen += 1
            found += _mirror_is_elsewhere(region, inside, box)
    return f"{found} of {seen}" if found >= max(_LEAST_OBJECTS, _LEAST_SHARE * seen) else ""


def mirrored_names(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of class names that differ in `left` and `right` alone."""
    pairs = ((name, re.sub("left", "right", name, flags=re.IGNORECASE)) for name in names)
    lower = {name.lower(): name for name in names}
    return [(name, lower[other.lower()]) for name, other in pairs if other != name and other.lower() in lower]


_Box = tuple[slice, slice]


def _objects(image: np.ndarray, inside: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, _Box]]:
    """Yield the surroundings of an object, float32 (H, W, C), where the class is in them, and the object's window."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    largest = sorted(range(1, count), key=lambda index: -stats[index, cv2.CC_STAT_AREA])
    for index in largest[:_MOST_OBJECTS]:
        left, top, width, height = (int(value) for value in stats[index, :4])
        margin = max(4, max(width, height) // 2)
        window = (top - margin, left - margin, top + height + margin, left + width + margin)
        if window[0] < 0 or window[1] < 0 or window[2] > image.shape[0] or window[3] > image.shape[1]:
            continue
        side = max(window[2] - window[0], window[3] - window[1])
        reach = _REACH * side
        first = (max(window[0] - reach, 0), max(window[1] - reach, 0))
        cut = np.s_[first[0] : window[2] + reach, first[1] : window[3] + reach]
        scale = min(_LONGEST_SIDE / side, 1.0)
        region, marked = _shrunk(image[cut], scale), _shrunk(inside[cut], scale)
        rows, columns = (
            slice(round((window[axis] - first[axis]) * scale), round((window[axis + 2] - first[axis]) * scale))
            for axis in (0, 1)
        )
        yield region, marked > 0, (rows, columns)


def _shrunk(values: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(round(length * scale), 1) for length in values.shape[:2])
    return cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)


def _mirror_is_elsewhere(region: np.ndarray, inside: np.ndarray, window: _Box) -> bool:
    template, marked = region[window], inside[window]
    itself = _best_match(region, inside, template, marked)
    mirrored = _best_match(region, inside, cv2.flip(template, 1), cv2.flip(marked.astype(np.uint8), 1) > 0)
    return mirrored >= max(_SAME, itself + _BETTER)


def _best_match(region: np.ndarray, inside: np.ndarray, template: np.ndarray, marked: np.ndarray) -> float:
    """Return the highest correlation with the template where no pixel that it marks is of the class; -1 without one."""
    scores = cv2.matchTemplate(region, np.ascontiguousarray(template), cv2.TM_CCOEFF_NORMED)
    overlap = cv2.matchTemplate(inside.astype(np.float32), marked.astype(np.float32), cv2.TM_CCORR)
    elsewhere = scores[(overlap < 0.5) & np.isfinite(scores)]
    return float(elsewhere.max(initial=-1.0))
