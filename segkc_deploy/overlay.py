"""Pictures of masks: an image blended with its classes' colors, and a legend of the classes that occur."""

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segkc_deploy.areas import pixel_counts
from segkc_deploy.labels import Color, Labels
from segkc_deploy.pixel_format import as_picture

_PAPER = (255, 255, 255)
_INK = (30, 30, 30)

#: Text stays readable when the picture is fitted to a screen, so it grows with the picture's shorter side.
_TEXT_SHARE = 1 / 36
_SMALLEST_TEXT = 14
#: Fonts of Linux, Windows and macOS, if they are there, for names with other letters than Pillow's own font has.
_WIDER_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "arialuni.ttf", "Arial Unicode.ttf", "arial.ttf")
#: A legend of a tiny image gets this width all the same; the image keeps its pixels and stands on white.
_NARROWEST_IN_TEXT_HEIGHTS = 16


def colorize(mask: np.ndarray, labels: Labels) -> np.ndarray:
    """Return the palette's colors for a mask, uint8 (H, W) class ids, as uint8 (H, W, 3) RGB.

    Values that are no class ids, such as `ignore_index`, become black.
    """
    table = np.zeros((256, 1, 3), dtype=np.uint8)
    table[: labels.num_classes, 0] = labels.palette
    return np.asarray(cv2.applyColorMap(mask, table))


def blend(image: np.ndarray, mask: np.ndarray, labels: Labels, alpha: float = 0.5) -> np.ndarray:
    """Return `image` mixed with the colors of its mask.

    Args:
        image: uint8 (H, W, 3) RGB, or any bands, which `as_picture` shows.
        mask: uint8 (H, W) class ids; pixels with other values show the image alone.
        labels: the classes.
        alpha: 0 shows the image, 1 the colors.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    image = as_picture(image)
    blended = cv2.addWeighted(image, 1 - alpha, colorize(mask, labels), alpha, 0)
    if mask.max(initial=0) >= labels.num_classes:
        cv2.copyTo(image, (mask >= labels.num_classes).view(np.uint8), blended)
    return blended


def overlay(image: np.ndarray, mask: np.ndarray, labels: Labels, alpha: float = 0.5) -> np.ndarray:
    """Return `blend` with a legend below it: for each class that occurs its color, name and share of the pixels.

    The picture is higher than the image by the legend's height, and wider where the image is very narrow.
    """
    blended = blend(image, mask, labels, alpha)
    text_height = max(_SMALLEST_TEXT, round(min(image.shape[:2]) * _TEXT_SHARE))
    width = max(image.shape[1], _NARROWEST_IN_TEXT_HEIGHTS * text_height)
    legend = _draw_legend(_entries(mask, labels), width, text_height)
    picture = np.full((image.shape[0] + legend.shape[0], legend.shape[1], 3), 255, dtype=np.uint8)
    left = (legend.shape[1] - image.shape[1]) // 2
    picture[: image.shape[0], left : left + image.shape[1]] = blended
    picture[image.shape[0] :] = legend
    return picture


@dataclass(frozen=True)
class _Entry:
    """A class in the legend: its name, its share as `12.3%`, and its color."""

    name: str
    share: str
    color: Color


def _entries(mask: np.ndarray, labels: Labels) -> list[_Entry]:
    """Return what the legend says, the largest class first."""
    counts = pixel_counts(mask)[: labels.num_classes]
    present = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
    return [
        _Entry(labels.names[index], _percent(counts[index] / mask.size), labels.palette[index]) for index in present
    ]


def _percent(share: float) -> str:
    return "<0.1%" if share < 0.001 else f"{100 * share:.1f}%"


def _draw_legend(entries: list[_Entry], width: int, text_height: int) -> np.ndarray:
    """Return uint8 (height, at least `width`, 3): the entries in columns, line by line."""
    margin, swatch = text_height // 2, text_height
    words = [(_word(entry.name, text_height), _word(entry.share, text_height)) for entry in entries]
    space = text_height // 3
    longest = max((name.shape[1] + space + share.shape[1] for name, share in words), default=0)
    column = swatch + margin + longest + 2 * margin
    width = max(width, margin + column)
    columns = max(1, (width - margin) // column)
    line = round(1.5 * text_height)
    rows = -(-len(entries) // columns)
    legend = np.full((2 * margin + rows * line, width, 3), 255, dtype=np.uint8)
    for position, (entry, (name, share)) in enumerate(zip(entries, words, strict=True)):
        left = margin + position % columns * column
        top = margin + position // columns * line
        square = legend[top + (line - swatch) // 2 :, left:][: swatch + 1, : swatch + 1]
        square[:] = _INK
        square[1:-1, 1:-1] = entry.color
        left += swatch + margin
        legend[top : top + line, left : left + name.shape[1]] = name
        left += name.shape[1] + space
        legend[top : top + line, left : left + share.shape[1]] = share
    return legend


@cache
def _font(text_height: int, ascii_only: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in () if ascii_only else _WIDER_FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, text_height)
    return ImageFont.load_default(text_height)


@lru_cache(2048)  # the shares of some classes; drawing them anew takes longer than the rest of the overlay
def _word(text: str, text_height: int) -> np.ndarray:
    """Return text as a picture, uint8 (1.5 times the text height, its own width, 3)."""
    font = _font(text_height, text.isascii())
    size = max(1, math.ceil(font.getlength(text))), round(1.5 * text_height)
    word = Image.new("RGB", size, _PAPER)
    ImageDraw.Draw(word).text((0, size[1] // 2), text, fill=_INK, font=font, anchor="lm")
    return np.asarray(word)
