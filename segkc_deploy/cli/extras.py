"""Optional packages: a missing one is reported with the command that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager

from segkc_deploy.errors import MissingDependencyError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports that need the packages of `extra`.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("segkc_deploy"):
            raise
        raise MissingDependencyError(
            f'this command needs {error.name}, which is not installed: pip install "segkc-deploy[{extra}]"'
        ) from None
