"""The settings that all trainings of a study share: without them its scores say nothing about the methods."""

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from segkc_deploy.benchmarks.studies.study import Study
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.recipe import Recipe

#: The sections of a recipe that are the same in all rows, unless the study compares them.
_SECTIONS = (
    *("junior", "crop_size", "batch", "schedule", "optimizer", "weak", "strong", "supervision"),
    *("ema", "validation", "precision"),
)

#: EntropyMix belongs to a method.
_OF_A_METHOD = {"strong": {"entropymix"}}


def shared_settings(study: Study, recipe: Recipe) -> dict[str, Any]:
    """Return the sections of a recipe that all rows of a study share, every value written out, as JSON has them."""
    return {name: _dumped(name, getattr(recipe, name)) for name in _SECTIONS if name not in study.compared}


def completed(settings: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """Return shared settings with those that recipes have gained since at their defaults.

    So rows of several versions can be compared: a new setting's default is what versions before it did.

    Args:
        settings: those of a row.
        whose: the file or study and the row, for messages.

    Raises:
        ConfigError: they have a setting, or a value, that this version does not know.
    """
    return {name: _dumped(name, _validated(name, value, whose)) for name, value in settings.items()}


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first setting that differs, such as `schedule.steps`, and its two values; None where all are equal.

    Args:
        first: completed settings.
        second: others; a section that only one of the two has differs.
    """
    for name in dict.fromkeys((*first, *second)):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if inner := difference(one, other):
                return f"{name}.{inner[0]}", inner[1], inner[2]
        elif one != other or (name in first) != (name in second):
            return name, one, other
    return None


@functools.cache
def _type_of(section: str) -> TypeAdapter[Any]:
    annotation = Recipe.model_fields[section].annotation
    assert annotation is not None
    return TypeAdapter(annotation)


def _validated(section: str, value: Any, whose: str) -> Any:
    if section not in _SECTIONS:
        raise ConfigError(f"{whose}: studies of this version have no setting {section}; train it again")
    try:
        return _type_of(section).validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in (section, *fault["loc"]))
        raise ConfigError(f"{whose}: this version cannot read {where}: {fault['msg']}; train it again") from None


def _dumped(section: str, value: Any) -> Any:
    return _type_of(section).dump_python(value, mode="json", exclude=_OF_A_METHOD.get(section))
