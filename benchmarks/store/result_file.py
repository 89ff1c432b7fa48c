"""Reading a stored `benchmark.json`."""

import json
from pathlib import Path

from pydantic import ValidationError

from segkc_deploy.benchmarks.schema import FORMAT, BenchmarkResult
from segkc_deploy.benchmarks.store.old_format import OLD_FORMAT, upgrade
from segkc_deploy.errors import ConfigError


def read_result(path: Path) -> BenchmarkResult:
    """Return the result that a benchmark stored at `path`, in this format or in the one before it.

    Raises:
        ConfigError: the file is missing or is not a benchmark's result.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `segkc-deploy benchmark` writes it as benchmark.json") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name the benchmark.json in it") from None
    try:
        stored = json.loads(content, parse_constant=_refused)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict) or "format" not in stored:
        raise ConfigError(f"{path}: not a benchmark.json; `segkc-deploy benchmark` writes one")
    if stored["format"] == OLD_FORMAT:
        try:
            stored = upgrade(stored) | {"format": FORMAT}
        except (AttributeError, TypeError):  # a list or a number where an object belongs
            raise ConfigError(f"{path}: not a valid benchmark.json; measure again") from None
    if stored["format"] != FORMAT:
        raise ConfigError(f"{path}: format {stored['format']!r}, but this version reads {FORMAT!r}; measure again")
    try:
        return BenchmarkResult.model_validate(stored)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: not a valid benchmark.json: {where}: {first['msg']}; measure again") from None


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
