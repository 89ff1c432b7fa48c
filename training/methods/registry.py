"""Methods are found by file name: `method: {name: segkc}` is the class that `segkc.py` names as METHOD."""

from importlib import import_module, resources

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.validation import did_you_mean, validate

#: Files of this folder that are no method; every other one is.
_NOT_METHODS = {"__init__", "base", "registry", "weak_to_strong"}


def available_methods() -> list[str]:
    """Return the names that `method.name` may have."""
    files = (entry.name for entry in (resources.files("segkc_deploy.training") / "methods").iterdir())
    stems = {name.removesuffix(".py") for name in files if name.endswith(".py")}
    return sorted(stem.replace("_", "-") for stem in stems - _NOT_METHODS)


def method_class(recipe: Recipe) -> type[Method]:
    """Return the method class that `recipe` names.

    Raises:
        ConfigError: there is no such method.
    """
    name = recipe.method.get("name", "")
    if name not in available_methods():
        raise ConfigError(f"recipe {recipe.name}: method {name!r}: {did_you_mean(str(name), available_methods())}")
    module = import_module(f"segkc_deploy.training.methods.{name.replace('-', '_')}")
    found: type[Method] = module.METHOD
    return found


def with_method_defaults(recipe: Recipe) -> Recipe:
    """Return `recipe` with every setting of its method written out, so that a later default changes no stored run.

    Raises:
        ConfigError: there is no such method, or its settings are wrong.
    """
    config = validate(method_class(recipe).Config, recipe.method, f"recipe {recipe.name}, method")
    return recipe.model_copy(update={"method": config.model_dump(mode="json")})


def build_method(recipe: Recipe, num_classes: int, ignore_index: int) -> Method:
    """Build the method that `recipe` names, with fresh networks.

    Raises:
        ConfigError: there is no such method, or its settings or networks are wrong.
    """
    found = method_class(recipe)
    config = validate(found.Config, recipe.method, f"recipe {recipe.name}, method")
    return found.build(recipe, config, num_classes, ignore_index)
