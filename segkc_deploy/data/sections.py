"""The parts of a data spec: which images are labeled, which are not, and which validate."""

from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


def _fraction(value: Any) -> Fraction:
    try:
        fraction = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"should be a fraction such as 1/8 or 0.125, but is {value!r}") from None
    if not 0 < fraction <= 1:
        raise ValueError(f"should be above 0 and at most 1, but is {value}")
    return fraction


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ValSection(_Section):
    """Images with masks. What is not given comes from the layout.

    `images` and `masks` are folders; `ids` is a file that lists the images to use, all of them when not given.
    """

    images: str | None = None
    masks: str | None = None
    ids: str | None = None


class LabeledSection(ValSection):
    """Images with masks to train on: those that `ids` lists, or a `fraction` drawn by `seed`, or all with masks."""

    fraction: Annotated[Fraction, BeforeValidator(_fraction)] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _one_way_of_choosing(self) -> Self:
        if self.ids is not None and self.fraction is not None:
            raise ValueError("ids and fraction are two ways of choosing; keep one")
        return self


class UnlabeledSection(_Section):
    """Images without masks, from one folder or several; the rest of the training images when not given."""

    images: str | list[str] | None = None
    ids: str | None = None
