"""The figures of one set of images: how many, how large, and how often each class is labeled."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from segkc_deploy.data.reading import Reading
from segkc_deploy.data.samples import ImageSets

Size = tuple[int, int]


@dataclass(frozen=True)
class Sizes:
    """(height, width) of the image with the fewest pixels, of the median one and of the one with the most."""

    smallest: Size
    median: Size
    largest: Size
    distinct: int


@dataclass(frozen=True)
class SetReport:
    """Figures of one set. Pixels are counted in the mask files, after `label_mapping`.

    `masks` is how many could be read, `class_images` how many of them hold the class. `sizes` is None when no image
    could be read.
    """

    name: str
    images: int
    masks: int
    sizes: Sizes | None
    class_pixels: tuple[int, ...]
    class_images: tuple[int, ...]
    ignored_pixels: int

    @property
    def labeled_pixels(self) -> int:
        return sum(self.class_pixels)


def report_set(name: str, readings: Sequence[Reading], sets: ImageSets) -> SetReport:
    """Sum up what was read of one set."""
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    masks = [reading for reading in readings if reading.values is not None]
    for reading in masks:
        mapped: Counter[int] = Counter()
        for value, count in (reading.values or {}).items():
            mapped[reading.label_mapping.get(value, value)] += count
        pixels.update(mapped)
        images.update(mapped.keys())
    classes = range(sets.labels.num_classes)
    return SetReport(
        name=name,
        images=len(readings),
        masks=len(masks),
        sizes=_sizes([reading.size for reading in readings if reading.size is not None]),
        class_pixels=tuple(pixels[index] for index in classes),
        class_images=tuple(images[index] for index in classes),
        ignored_pixels=pixels[sets.labels.ignore_index],
    )


def _sizes(sizes: list[Size]) -> Sizes | None:
    if not sizes:
        return None
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return Sizes(by_area[0], by_area[len(by_area) // 2], by_area[-1], len(set(sizes)))
