"""A crop of a resized image without resizing the rest of it.

A training crop is a small part of a large photograph. Resizing only the pixels under it takes a fraction of the time,
and gives what resizing everything and then cropping would.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from segkc_deploy.pixel_format import by_band_group

#: How many resized pixels further than the crop the resized part may reach, on either side.
_REACH = 64
#: How far an end of the part may be from a whole source pixel. Where none within reach is closer, the part reaches to
#: the image's end, where both are whole numbers.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Span:
    """One axis of a crop: `length` pixels from `start` on, of an axis of `source` pixels resized to `resized`."""

    source: int
    resized: int
    start: int
    length: int

    def part(self) -> tuple[slice, int, int]:
        """Return the source pixels to resize, to how many pixels, and how many of these lie before the crop.

        The ends of the part are chosen among those up to `_REACH` resized pixels from the crop: the ones whose place in
        the source is closest to a whole number, so that the part resized by itself has its pixels where the resized
        image has them. Next to the crop there is at least one more pixel, since interpolation looks at neighbors.
        """
        first = np.arange(max(self.start - 1, 0), max(self.start - _REACH, 0) - 1, -1)
        end = self.start + self.length
        last = np.arange(min(end + 1, self.resized), min(end + _REACH, self.resized) + 1)
        low, high = self._end(first, 0), self._end(last, self.resized)
        pixels = slice(round(low * self.source / self.resized), round(high * self.source / self.resized))
        return pixels, high - low, self.start - low

    def _end(self, candidates: np.ndarray, image_end: int) -> int:
        places = candidates * (self.source / self.resized)
        errors = np.abs(places - places.round())
        return int(candidates[errors.argmin()]) if errors.min() <= _TOLERANCE else image_end

    def nearest(self) -> np.ndarray:
        """Return the source pixel under the center of each pixel of the crop, int64 (length,), as Pillow rounds it."""
        pixels = np.arange(self.source, dtype=np.float32)[None]  # exact up to 2^24
        resized = cv2.resize(pixels, (self.resized, 1), interpolation=cv2.INTER_NEAREST_EXACT)
        return resized[0, self.start : self.start + self.length].astype(np.int64)


def crop_of_resized_image(image: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
    """Return a crop of a resized image, (rows, columns, bands).

    Pixels are averaged by area where the image shrinks and interpolated linearly where it grows.

    Args:
        image: uint8 or uint16 (H, W, bands).
        rows: the crop along the height.
        columns: the crop along the width.
    """
    shrinks = rows.resized < rows.source
    (own_rows, height, above), (own_columns, width, before) = rows.part(), columns.part()
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    part = by_band_group(
        image[own_rows, own_columns], lambda bands: cv2.resize(bands, (width, height), interpolation=interpolation)
    )
    return part[above : above + rows.length, before : before + columns.length]


def crop_of_resized_mask(mask: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
    """Return a crop of a mask (H, W) resized to the nearest pixel, (rows, columns)."""
    return mask.take(rows.nearest(), axis=0).take(columns.nearest(), axis=1)
