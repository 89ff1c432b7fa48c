"""Mistakes in YAML files: each one line that names the file, the place and the fix."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from segkc_deploy.errors import ConfigError
from segkc_deploy.validation import did_you_mean, load_yaml, validate


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Step(_Strict):
    scale: float = 1.0


class _Optimizer(_Strict):
    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)


class _Recipe(_Strict):
    title: str
    optimizer: _Optimizer | None = None
    steps: list[_Step] = []
    folders: str | list[str] = ""

    @field_validator("title")
    @classmethod
    def _not_empty(cls, title: str) -> str:
        if not title:
            raise ValueError("a title has at least one letter")
        return title


def _message(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(_Recipe, data, "recipe.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"titel": "a"}, "recipe.yaml: unknown key 'titel'; did you mean 'title'? (and 1 more)"),
        (
            {"title": "a", "zzz": 1},
            "recipe.yaml: unknown key 'zzz'; valid: title, optimizer, steps, folders",
        ),
        (
            {"title": "a", "optimizer": {"learning_rat": 1}},
            "recipe.yaml: optimizer: unknown key 'learning_rat'; did you mean 'learning_rate'?",
        ),
        (
            {"title": "a", "steps": [{}, {"scal": 2}]},
            "recipe.yaml: steps[1]: unknown key 'scal'; did you mean 'scale'?",
        ),
        ({}, "recipe.yaml: title is missing"),
        ({"title": ""}, "recipe.yaml: title: a title has at least one letter"),
        (
            {"title": "a", "optimizer": {"name": "adam"}},
            "recipe.yaml: optimizer.name: should be 'adamw' or 'sgd', but is 'adam'; did you mean 'adamw'?",
        ),
        (
            {"title": "a", "optimizer": {"learning_rate": 0}},
            "recipe.yaml: optimizer.learning_rate: should be greater than 0, but is 0",
        ),
        (
            {"title": "a", "folders": 3},
            "recipe.yaml: folders: should be a valid string or should be a valid list, but is 3",
        ),
        (
            {"title": "a", "optimizer": {"learning_rate": "fast"}},
            "recipe.yaml: optimizer.learning_rate: should be a valid number, but is 'fast'",
        ),
        (
            {"title": "a", "folders": ["x", 3]},
            "recipe.yaml: folders[1]: should be a valid string, but is 3",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_fix(data: object, expected: str) -> None:
    assert _message(data) == expected


def test_a_valid_mapping_becomes_the_model() -> None:
    recipe = validate(_Recipe, {"title": "a", "optimizer": {"learning_rate": "1e-4"}}, "recipe.yaml")
    assert recipe.optimizer is not None
    assert recipe.optimizer.learning_rate == 1e-4


def test_load_yaml_reads_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: Größe\nitems: [1, 2]\n", encoding="utf-8")
    assert load_yaml(path) == {"name": "Größe", "items": [1, 2]}
    path.write_text("# nothing yet\n")
    assert load_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", ", line 3, column 2: not YAML: expected ',' or ']', but got ':'"),
        (b"a: 1\n\tb: 2\n", ", line 2, column 1: not YAML: found character '\\t' that cannot start any token"),
        (b"a: {b: 1, {c: 2}}\n", ", line 1, column 11: not YAML: found unhashable key"),
        (b"a: 1\nb: 2\na: 3\n", ", line 3, column 1: the key 'a' is given twice"),
        (b"- 1\n- 2\n", ": should hold `key: value` lines, but it is a list"),
        (b"a: \xff\n", ": not UTF-8 text (byte 3); save it as UTF-8"),
        ("a: 1".encode("utf-16"), ": not UTF-8 text (byte 0); save it as UTF-8"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", ": a binary file, such as an image or a video; give a YAML file"),
        (b"\x00\x00\x00\x18ftypmp42", ": a binary file, such as an image or a video; give a YAML file"),
    ],
)
def test_a_file_that_is_not_a_yaml_mapping_is_named_with_the_line(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert str(caught.value) == f"{path}{expected}"


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file"):
        load_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)


def test_did_you_mean_lists_the_valid_words_when_none_is_close() -> None:
    assert did_you_mean("restnet", ["resnet", "convnext"]) == "did you mean 'resnet'?"
    assert did_you_mean("qqq", ["resnet", "convnext"]) == "valid: resnet, convnext"
