"""Recipe files: shipped ones by name, a user's own by path, both with `base:` and with overrides."""

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.validation import load_yaml, validate


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("segkc_deploy.training") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """Read a shipped recipe by name or a file by path, apply `overrides` (`optimizer.lr=1e-4`), and validate.

    A file with `base: NAME` holds what differs from another recipe, section by section; NAME is a shipped recipe or a
    file beside it.

    Raises:
        ConfigError: no such recipe, an unknown key, or a value out of range; the message names the closest key.
    """
    path = _recipe_path(name_or_path, Path())
    return _validated(_with_base(path, ()), overrides or [], str(path))


def with_overrides(recipe: Recipe, overrides: list[str], where: str) -> Recipe:
    """Return `recipe` with values changed (`workers=2`); `where` is the file that an error names.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    return _validated(recipe.model_dump(mode="json"), overrides, where)


def _validated(data: dict[str, Any], overrides: list[str], where: str) -> Recipe:
    for override in overrides:
        _override(data, override)
    return validate(Recipe, data, where)


def _recipe_path(name_or_path: str, folder: Path) -> Path:
    """The file of a recipe: a path, relative to `folder`, if it ends like one, or else a shipped recipe's name."""
    if Path(name_or_path).suffix in (".yaml", ".yml"):
        return folder / name_or_path
    if name_or_path not in shipped_recipes():
        close = difflib.get_close_matches(name_or_path, shipped_recipes(), n=1)
        hint = f" did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"recipe {name_or_path!r}: no such recipe;{hint} `segkc-deploy recipes` lists them, or give the path of a"
            " .yaml file"
        )
    return Path(str(resources.files("segkc_deploy.training") / "recipes" / f"{name_or_path}.yaml"))


def _with_base(path: Path, heirs: tuple[Path, ...]) -> dict[str, Any]:
    """The content of a recipe file laid over that of its base, if it names one."""
    own = load_yaml(path)
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base should be a recipe's name, but is {base!r}")
    if path.resolve() in heirs:
        raise ConfigError(f"{path}: is the base of itself")
    inherited = _with_base(_recipe_path(base, path.parent), (*heirs, path.resolve()))
    if _method_name(own) not in (None, _method_name(inherited)):
        inherited.pop("method", None)  # another method knows none of its settings
    return _merged(inherited, own)


def _method_name(content: dict[str, Any]) -> object:
    method = content.get("method")
    return method.get("name") if isinstance(method, dict) else None


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: write it as key=value, for example optimizer.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: {text!r} is not a YAML value") from None
    if isinstance(value, str):
        value = _number(value)
    *parents, last = key.split(".")
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        data = data[parent]
        if not isinstance(data, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
    data[last] = value


def _number(text: str) -> float | str:
    # YAML 1.1 reads 1e-4 (no dot) as text.
    try:
        return float(text)
    except ValueError:
        return text
