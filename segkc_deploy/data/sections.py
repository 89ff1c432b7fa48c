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


def _name(value: Any) -> Any:
    # YAML reads 366 as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


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
    """Images with masks to train on.

    Those that `ids` lists, or those of a published `partition` (`"366"`, `1/8`), or a `fraction` drawn by `seed`, or
    all that have a mask.
    """

    partition: Annotated[str, BeforeValidator(_name)] | None = None
    fraction: Annotated[Fraction, BeforeValidator(_fraction)] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _one_way_of_choosing(self) -> Self:
        ways = [name for name in ("ids", "partition", "fraction") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways[:2])} are two ways of choosing; keep one")
        return self


class UnlabeledSection(_Section):
    """Images without masks, from one folder or several; the rest of the training images when not given."""

    images: str | list[str] | None = None
    ids: str | None = None
