"""The builders of the engines, by name."""

from typing import cast

from segkc_deploy.engines import find_entry, import_class
from segkc_deploy.export.engines.base import Engine


def find_engine(name: str) -> Engine:
    """Return the engine that `--engine name` means; only its own module is imported.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    return cast(Engine, import_class(find_entry(name).builder)())
