"""The chosen images on one self-contained page: picture, both masks, where the two disagree, and the scores."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import cv2
import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from torch import Tensor

from segkc_deploy.labels import Color, Labels
from segkc_deploy.overlay import colorize
from segkc_deploy.pixel_format import as_picture
from segkc_deploy.preprocess import resize_image, resize_mask, size_within
from segkc_deploy.training.label_next.networks import RunNetworks
from segkc_deploy.training.label_next.rank import RankedImage, readable
from segkc_deploy.training.label_next.uncertainty import SCORES, pixel_scores

#: The longer side of a picture in pixels.
_LONGER_SIDE = 360
_JPEG_QUALITY = 82
#: More images than this would make a page that browsers are slow to open.
MOST_SHOWN = 200
_BINS = 48
_CLASSES_NAMED = 5
_COLORMAP = cv2.COLORMAP_INFERNO


@dataclass(frozen=True)
class Picture:
    """A caption and the picture as a data URI."""

    caption: str
    uri: str


@dataclass(frozen=True)
class Card:
    """One chosen image as the page shows it."""

    image: RankedImage
    score: float
    pictures: tuple[Picture, ...]
    classes: str


@dataclass(frozen=True)
class Histogram:
    """The heights of the bars of all and of the chosen images, as shares of the highest bar, and the last score."""

    all: list[float]
    chosen: list[float]
    highest: float


def draw_cards(
    networks: RunNetworks, chosen: Sequence[RankedImage], scores: Sequence[float]
) -> tuple[list[Card], set[int]]:
    """Return the cards of the first `MOST_SHOWN` chosen images, and the ids of the classes that their masks hold."""
    shown = {image.sample: (image, score) for image, score in zip(chosen[:MOST_SHOWN], scores, strict=False)}
    cards, classes = [], set()
    for sample, pixels in readable(tuple(shown), "Drawing the contact sheet", networks.pixels):
        image, score = shown[sample]
        pictures, present = _pictures(networks, pixels)
        cards.append(Card(image, score, pictures, _largest_classes(image.class_shares, networks.labels)))
        classes |= present
    return cards, classes


def contact_sheet(
    cards: Sequence[Card],
    legend: Sequence[tuple[str, Color]],
    facts: Mapping[str, str],
    sentences: Sequence[str],
    histogram: Histogram,
) -> str:
    """Return the page.

    Args:
        cards: what `draw_cards` returned.
        legend: name and color of the classes.
        facts: how the images were chosen, as terms and their explanations; the first stands in the header too.
        sentences: what the page says first.
        histogram: what `score_histogram` returned.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("segkc_deploy.training.label_next").joinpath("contact_sheet.html").read_text("utf-8")
    shown = cards[0].image.scores if cards else {}
    return environment.from_string(template).render(
        cards=cards,
        legend=legend,
        facts=facts,
        sentences=sentences,
        histogram=histogram,
        explained={name: meaning for name, meaning in SCORES.items() if name in shown},
        heat=_heat_stops(),
    )


def score_histogram(scores: np.ndarray, chosen: Sequence[int]) -> Histogram:
    """Return the histogram of scores (N,), the `chosen` indices apart: bars of equal width from 0 to the highest."""
    highest = float(scores.max())
    counts, some = (np.histogram(values, _BINS, (0, highest or 1))[0] for values in (scores, scores[list(chosen)]))
    return Histogram((counts / counts.max()).tolist(), (some / counts.max()).tolist(), highest)


def _pictures(networks: RunNetworks, image: np.ndarray) -> tuple[tuple[Picture, ...], set[int]]:
    size = size_within(image.shape[:2], _LONGER_SIDE)
    pictures = [Picture("image", _jpeg(resize_image(as_picture(image), size)))]
    masks: dict[str, list[Tensor]] = {"junior": [], "senior": []}
    heat: list[Tensor] = []
    for junior, senior in networks.probabilities(image):
        scores = pixel_scores(junior, senior)
        heat.append(scores["entropy_junior" if senior is None else "disagreement"])
        masks["junior"].append(junior.argmax(dim=0))
        if senior is not None:
            masks["senior"].append(senior.argmax(dim=0))
    present: set[int] = set()
    for role, parts in masks.items():
        if parts:
            mask = torch.cat(parts).to(torch.uint8).cpu().numpy()
            present |= set(np.unique(mask).tolist())
            pictures.append(Picture(role, _png(colorize(resize_mask(mask, size), networks.labels))))
    heat_map = _heat_map(torch.cat(heat).float().cpu().numpy(), size)
    if networks.has_senior:
        pictures.append(Picture("disagreement: bright where they differ", _png(heat_map)))
    else:
        pictures.append(Picture("entropy: bright where it is unsure", _jpeg(heat_map)))
    return tuple(pictures), present


def _heat_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the picture, uint8 (*size, 3) RGB, of values from 0 (dark) to 1 (bright)."""
    small = cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA)
    gray = np.round(255 * small.clip(0, 1)).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(gray, _COLORMAP), cv2.COLOR_BGR2RGB)


def _heat_stops() -> list[Color]:
    """The colors of 0, 1/8, …, 1, for the legend."""
    stops = _heat_map(np.linspace(0, 1, 9, dtype=np.float32)[None], (1, 9))[0]
    return [(int(red), int(green), int(blue)) for red, green, blue in stops]


def _largest_classes(shares: Sequence[float], labels: Labels) -> str:
    order = sorted(range(len(shares)), key=lambda index: -shares[index])[:_CLASSES_NAMED]
    return ", ".join(f"{labels.names[index]} {100 * shares[index]:.0f}%" for index in order if shares[index] >= 0.005)


def _jpeg(picture: np.ndarray) -> str:
    return _data_uri(picture, ".jpg", "image/jpeg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def _png(picture: np.ndarray) -> str:
    """For flat colors: smaller than JPEG, and with sharp borders."""
    return _data_uri(picture, ".png", "image/png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _data_uri(picture: np.ndarray, suffix: str, kind: str, options: list[int]) -> str:
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    assert encoded
    return f"data:{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
