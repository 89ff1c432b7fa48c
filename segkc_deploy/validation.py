"""Read YAML files into pydantic models; each mistake is one line: the file, the key, and what was meant."""

import codecs
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segkc_deploy.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

_LONGEST_VALUE_SHOWN = 60

#: Bytes of a file; images and videos have a zero among them, and text has none.
_BEGINNING = 8192


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: the file is missing, not YAML (the line is named), not a mapping, or gives a key twice.
    """
    path = Path(path)
    try:
        data = yaml.load(_read_text(path), _StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_place(error)}: {_problem(error)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: should hold `key: value` lines, but it is a {type(data).__name__}")
    return data


def _read_text(path: Path) -> str:
    """Read UTF-8 text; a binary file, which may be a video of many GB, is refused by its beginning."""
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
        if b"\0" in beginning and not beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ConfigError(f"{path}: a binary file, such as an image or a video; give a YAML file")
        return (beginning + file.read()).decode("utf-8")


def require_text(path: Path, where: str) -> None:
    """Refuse a path that is not UTF-8 where libraries take paths as text.

    Raises:
        ConfigError: it is not; the message begins with `where`.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: {path.absolute()} is not UTF-8, as a path has to be here; rename it") from None


def yaml_in_one_line(value: dict[str, Any]) -> str:
    """Return a mapping as a message shows it for a YAML file, quoted where YAML would read something else."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf")).strip()


def validate(model_class: type[Model], data: Any, where: str | Path) -> Model:
    """Return `data` as a `model_class`.

    Args:
        model_class: a pydantic model; with `extra="forbid"` a wrong key is answered with the closest valid one.
        data: what was read, usually by `load_yaml`.
        where: the file, or the command-line option, that the message names.

    Raises:
        ConfigError: one line about the first mistake, and how many others there are.
    """
    try:
        return model_class.model_validate(data)
    except ValidationError as error:
        mistakes = list(_mistakes(model_class, data, error.errors(include_url=False)))
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise ConfigError(f"{where}: {mistakes[0]}{more}") from None


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the valid word closest to `word`, or else the list of the valid ones."""
    valid = list(valid)
    if close := difflib.get_close_matches(word, valid, n=1):
        return f"did you mean {close[0]!r}?"
    return f"valid: {', '.join(valid)}"


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here that is a mistake."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the constructor refuses it
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    text = getattr(error, "problem", None) or str(error)
    return "not YAML: " + " ".join(text.split()) if "given twice" not in text else text


def _mistakes(model_class: type[BaseModel], data: Any, errors: list[ErrorDetails]) -> Iterator[str]:
    """One line a key. Unknown keys come first: a misspelled key is also reported as a missing one."""
    grouped: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
        grouped.setdefault(_location(data, error), []).append(error)
    for location, same_place in grouped.items():
        if any(len(other) > len(location) and other[: len(location)] == location for other in grouped):
            continue  # another member of a union came further with this value: its mistake is the one meant
        if same_place[0]["type"] == "extra_forbidden":
            yield _unknown_key(model_class, location)
        elif same_place[0]["type"] == "missing":
            yield f"{_dotted(location)} is missing"
        else:
            yield _wrong_value(location, same_place)


def _location(data: Any, error: ErrorDetails) -> tuple[int | str, ...]:
    """The error's place in `data`. Pydantic also puts the name of a union's member there, which no file holds."""
    *parents, last = error["loc"] or ("",)
    location = []
    for step in parents:
        if _holds(data, step):
            location.append(step)
            data = data[step]
    if error["type"] == "missing" or _holds(data, last):
        location.append(last)
    return tuple(location)


def _holds(data: Any, step: int | str) -> bool:
    if isinstance(data, list | tuple):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data


def _unknown_key(model_class: type[BaseModel], location: tuple[int | str, ...]) -> str:
    *parents, key = location
    models = [model_class]
    for step in parents:
        annotations = [model.model_fields[str(step)].annotation for model in models if step in model.model_fields]
        # A list's index or a mapping's key is no field: the models inside it are already those of the step before.
        models = [inner for annotation in annotations for inner in _models_in(annotation)] or models
    valid = [field.alias or name for model in models for name, field in model.model_fields.items()]
    inside = f"{_dotted(parents)}: " if parents else ""
    return f"{inside}unknown key {str(key)!r}; {did_you_mean(str(key), dict.fromkeys(valid))}"


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _wrong_value(location: tuple[int | str, ...], errors: list[ErrorDetails]) -> str:
    """Own validators say it all in their message; pydantic's own ones are followed by what was found."""
    key = f"{_dotted(location)}: " if location else ""
    own = [error["msg"].removeprefix("Value error, ") for error in errors if error["type"] == "value_error"]
    if own:
        return key + own[0]
    wanted = " or ".join(dict.fromkeys(re.sub(r"^Input |, unable to parse.*", "", error["msg"]) for error in errors))
    found = errors[0]["input"]
    hint = ""
    if errors[0]["type"] in {"literal_error", "enum"}:
        choices = re.findall(r"'([^']*)'", errors[0]["ctx"]["expected"])
        close = difflib.get_close_matches(str(found), choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{key}{wanted}, but is {_short(found)}{hint}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE_SHOWN else text[:_LONGEST_VALUE_SHOWN] + "…"


def _dotted(location: Iterable[int | str]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")
