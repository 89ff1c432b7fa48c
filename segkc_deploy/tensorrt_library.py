"""TensorRT and TensorRT for RTX as installed: the module, whether its version is known, and what it logs."""

import importlib
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from segkc_deploy.errors import MissingDependencyError

#: Ending of the file beside a stripped plan that holds its weights: the ONNX graph it was built from.
WEIGHTS = ".weights.onnx"

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
        magic: the first bytes of its engine files.
    """

    title: str
    builder: str
    modules: tuple[str, ...]
    first: tuple[int, int]
    below: tuple[int, int]
    install: str
    magic: bytes

    def load(self) -> Any:
        """Import the library. Probe CUDA before (`segkc_deploy.cuda_probe`) where a GPU is to be used.

        Raises:
            MissingDependencyError: it is not installed, its own libraries cannot be loaded, or its version is not one
                that is known.
        """
        reasons = []
        for name in self.modules:
            try:
                module = importlib.import_module(name)
            except (ImportError, OSError) as error:  # also a shared library that the bindings do not find
                reasons.append(" ".join(str(error).split()))
                continue
            self._check_version(module.__version__)
            return module
        raise MissingDependencyError(f"{self.title} cannot be imported ({reasons[0]}): {self.install}")

    def knows(self, version: str) -> bool:
        """Say whether `version` is one that this package was written for."""
        found = re.match(r"(\d+)\.(\d+)", version)
        return found is not None and self.first <= (int(found[1]), int(found[2])) < self.below

    def _check_version(self, version: str) -> None:
        if not self.knows(version):
            known = f"{self.first[0]}.{self.first[1]} up to, not including, {self.below[0]}.{self.below[1]}"
            raise MissingDependencyError(f"{self.title} {version} is installed, but {known} is needed: {self.install}")


#: by the engine's name
LIBRARIES = {
    "trt": Library(
        title="TensorRT",
        builder="tensorrt",
        modules=("tensorrt",),
        first=(10, 13),
        below=(12, 0),
        install='pip install --extra-index-url https://pypi.nvidia.com "segkc-deploy[trt]"',
        magic=b"ftrt",
    ),
    "trt-rtx": Library(
        title="TensorRT for RTX",
        builder="tensorrt-rtx",
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        first=(1, 7),
        below=(2, 0),
        install='pip install "segkc-deploy[trt-rtx]"',
        magic=b"vtrt",
    ),
}


@dataclass(frozen=True)
class LogLines:
    """The last errors that the library logged; in most failures they alone hold the reason."""

    logger: Any
    lines: deque[str] = field(default_factory=deque)

    def reason(self) -> str:
        """Return the errors since the last call, in one line."""
        text = "; ".join(self.lines) or "it gave no reason"
        self.lines.clear()
        return text


def collect_log(trt: Any) -> LogLines:
    """Return a logger that keeps errors and lets everything else go by."""
    lines: deque[str] = deque(maxlen=_KEPT_LINES)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            # The bindings demand this call by name.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                lines.append(" ".join(msg.split()))

    return LogLines(Logger(), lines)
