"""TensorRT and TensorRT for RTX as installed: the module, whether it can be used, and what it logs."""

import importlib
import re
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from segkc_deploy.errors import MissingDependencyError

_KEPT_LINES = 3


@dataclass(frozen=True)
class Library:
    """Where a library is found and which of its versions are known.

    Attributes:
        title: its name in messages.
        builder: its name in a manifest.
        modules: names under which it may be importable, the usual one first.
        first, below: versions from `first` on and below `below` can be used, as (major, minor).
        install: the command that installs it.
    """

    title: str
    builder: str
    modules: tuple[str, ...]
    first: tuple[int, int]
    below: tuple[int, int]
    install: str

    def load(self) -> ModuleType:
        """Import the library.

        Raises:
            MissingDependencyError: it is not installed, its own libraries cannot be loaded, or its version is not one
                that is known.
        """
        reasons = []
        for name in self.modules:
            try:
                module = importlib.import_module(name)
            except (ImportError, OSError) as error:  # OSError: a shared library that the bindings want
                reasons.append(f"{error}")
                continue
            self._check_version(module)
            return module
        raise MissingDependencyError(f"{self.title} cannot be imported ({reasons[0]}); {self.install}")

    def _check_version(self, module: ModuleType) -> None:
        found = re.match(r"(\d+)\.(\d+)", module.__version__)
        version = (int(found[1]), int(found[2])) if found else (0, 0)
        if not self.first <= version < self.below:
            known = f"{self.first[0]}.{self.first[1]} up to, not including, {self.below[0]}.{self.below[1]}"
            raise MissingDependencyError(
                f"{self.title} {module.__version__} is installed, but {known} is needed; {self.install}"
            )


@dataclass(frozen=True)
class LogLines:
    """The last errors that the library logged; in most failures they alone hold the reason."""

    lines: deque[str]
    logger: Any

    def reason(self) -> str:
        """Return the errors in one line."""
        return "; ".join(self.lines) or "it gave no reason"


def collect_log(trt: ModuleType) -> LogLines:
    """Return a logger that keeps errors and lets everything else go by."""
    lines: deque[str] = deque(maxlen=_KEPT_LINES)

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            # The bindings demand this call by name.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                lines.append(" ".join(msg.split()))

    return LogLines(lines, Logger())
