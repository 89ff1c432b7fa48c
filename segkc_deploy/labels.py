"""The classes of a data set: their names, their colors, and the value that means "not labeled here"."""

import colorsys
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segkc_deploy.errors import DataError

Color = tuple[int, int, int]

#: Masks are 8-bit, and one value of theirs is `ignore_index`.
MAX_CLASSES = 255


class Labels(BaseModel):
    """Class names, one RGB color (0-255) each, and the mask value that is neither trained on nor scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    palette: tuple[Color, ...]
    ignore_index: int = Field(default=255, ge=0, le=255)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.palette) != len(self.names):
            raise ValueError(f"palette has {len(self.palette)} colors for {len(self.names)} classes")
        if any(not 0 <= channel <= 255 for color in self.palette for channel in color):
            raise ValueError("palette colors are three values from 0 to 255")
        if self.ignore_index < len(self.names):
            raise ValueError(
                f"ignore_index {self.ignore_index} is also the id of class {self.names[self.ignore_index]!r}; use 255"
            )
        return self

    @property
    def num_classes(self) -> int:
        return len(self.names)


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Return `num_classes` RGB colors (0-255) that are easy to tell apart, the same ones at every call.

    Hues advance by the golden ratio, so that neighboring ids differ most; lightness cycles through three levels.
    """
    colors = []
    for index in range(num_classes):
        hue = (0.6 + index * 0.618033988749895) % 1.0
        lightness = (0.5, 0.68, 0.36)[index % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.75)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colors)


def require_same_classes(
    network: tuple[str, ...], data: tuple[str, ...], network_name: object, data_name: object
) -> None:
    """Raise a DataError, naming the first difference, unless a network's classes are those of a data spec."""
    if network == data:
        return
    if len(network) != len(data):
        difference = f"{len(network)} classes against {len(data)}"
    else:
        index = next(index for index, (own, other) in enumerate(zip(network, data, strict=True)) if own != other)
        difference = f"class {index} is {network[index]!r} against {data[index]!r}"
    raise DataError(
        f"{network_name} and {data_name} have different classes ({difference}); use the data spec it was trained with"
    )
