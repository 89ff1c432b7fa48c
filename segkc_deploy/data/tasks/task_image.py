"""An image to label with what networks predict, and what writes such images for one tool."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from segkc_deploy.labels import Labels


@dataclass(frozen=True)
class Prediction:
    """The mask that a network predicts.

    Attributes:
        network: `senior` or `junior`.
        mask: uint8 (H, W) class ids.
        confidence: the mean probability of the mask's classes, 0 to 1.
    """

    network: str
    mask: np.ndarray
    confidence: float


@dataclass(frozen=True)
class TaskImage:
    """An image of a task.

    Attributes:
        name: its path below the folder that all images of the tasks share, with its suffix.
        path: the file.
        score: how much it should be labeled, 0 to 1.
        predictions: at least one, the best network's first; all of one size.
    """

    name: str
    path: Path
    score: float
    predictions: tuple[Prediction, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.predictions[0].mask.shape
        return height, width


class TaskWriter(ABC):
    """Writes images, one after the other, for one labeling tool.

    Args:
        folder: for the tool's files.
        labels: the classes.
        background: the class that needs no region, since readers give it to every pixel without one; None where all
            classes need one.
        note: told of each file before it is written, so that a later call knows its own.

    Attributes:
        writes: the files and the folder of files, by their names in `folder`.
    """

    writes: ClassVar[tuple[str, ...]]

    def __init__(
        self, folder: Path, labels: Labels, background: int | None, note: Callable[[Path], None] | None = None
    ) -> None:
        self.folder, self.labels, self.background, self._note = folder, labels, background, note

    @abstractmethod
    def add(self, image: TaskImage) -> None:
        """Take in an image; its masks are not kept."""

    @abstractmethod
    def finish(self) -> str:
        """Write the files and return what a person does with them, in one sentence."""

    def target(self, *parts: str) -> Path:
        """Return the path of a file that is about to be written, by its parts below `folder`."""
        assert parts[0] in self.writes
        path = self.folder.joinpath(*parts)
        if self._note is not None:
            self._note(path)
        return path

    def regions(self, mask: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and bool (H, W) region of each class that the mask holds and that needs a region."""
        for index in np.unique(mask).tolist():
            if index != self.background and index < self.labels.num_classes:
                yield self.labels.names[index], mask == index

    def colors(self) -> Iterator[tuple[str, str]]:
        """Yield name and color, such as `#804080`, of every class."""
        for name, (red, green, blue) in zip(self.labels.names, self.labels.palette, strict=True):
            yield name, f"#{red:02x}{green:02x}{blue:02x}"
