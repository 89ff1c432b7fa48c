"""Pictures of masks: an image blended with its classes' colors, and a legend of the classes that occur."""

from dataclasses import dataclass

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
    picture = np.full((image.shape[0] + legend.shape[0], legend.shape[1], 3), _PAPER, dtype=np.uint8)
    left = (legend.shape[1] - image.shape[1]) // 2
    picture[: image.shape[0], left : left + image.shape[1]] = blended
    picture[image.shape[0] :] = legend
    return picture


@dataclass(frozen=True)
class _Entry:
    text: str
    color: Color


def _entries(mask: np.ndarray, labels: Labels) -> list[_Entry]:
    """Return what the legend says, the largest class first."""
    counts = pixel_counts(mask)[: labels.num_classes]
    present = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
    return [
        _Entry(f"{labels.names[index]} {_percent(counts[index] / mask.size)}", labels.palette[index])
        for index in present
    ]


def _percent(share: float) -> str:
    return "<0.1%" if share < 0.001 else f"{100 * share:.1f}%"


def _draw_legend(entries: list[_Entry], width: int, text_height: int) -> np.ndarray:
    """Return uint8 (height, at least `width`, 3): the entries in columns, line by line."""
    font = ImageFont.load_default(text_height)
    margin, swatch = text_height // 2, text_height
    longest = max((font.getlength(entry.text) for entry in entries), default=0)
    column = round(swatch + margin + longest + 2 * margin)
    width = max(width, margin + column)
    columns = max(1, (width - margin) // column)
    line = round(1.5 * text_height)
    rows = -(-len(entries) // columns)
    legend = Image.new("RGB", (width, 2 * margin + rows * line), _PAPER)
    draw = ImageDraw.Draw(legend)
    for position, entry in enumerate(entries):
        left = margin + position % columns * column
        top = margin + position // columns * line
        middle = top + line // 2
        box = (left, middle - swatch // 2, left + swatch, middle + swatch // 2)
        draw.rectangle(box, fill=entry.color, outline=_INK)
        draw.text((left + swatch + margin, middle), entry.text, fill=_INK, font=font, anchor="lm")
    return np.asarray(legend)
