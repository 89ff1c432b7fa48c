"""What a tracker of experiments is: a place besides the run directory where the values of a training can be watched."""

from typing import Any, Protocol

import numpy as np


class TrackerError(Exception):
    """A tracker could not be reached or refused a value; the training continues without it."""


class Tracker(Protocol):
    """Receives what a training records; every method raises TrackerError where the service fails."""

    name: str

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add a value to each curve."""

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture, uint8 (H, W, 3)."""

    def close(self, failed: bool) -> None:
        """End the session; `failed` says whether an error ended the training."""


def flat_values(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_values(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
