"""The table of engines: every name leads to its classes, and everything else reads it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from segkc_deploy.engines import ENGINES, EngineEntry, find_entry, import_class, number_formats
from segkc_deploy.errors import ConfigError
from segkc_deploy.runners.base import Runner

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = pytest.mark.parametrize("entry", ENGINES.values(), ids=ENGINES)


@ENTRIES
def test_an_entry_names_a_runner_and_a_builder(entry: EngineEntry) -> None:
    from segkc_deploy.export.engines.base import Engine
    from segkc_deploy.export.engines.registry import find_engine

    runner, builder = import_class(entry.runner), find_engine(entry.name)
    assert issubclass(runner, Runner) and runner.for_artifact.__func__ is not Runner.for_artifact.__func__  # type: ignore[attr-defined]
    assert isinstance(builder, Engine)
    assert (builder.name, builder.suffix, builder.precisions) == (entry.name, entry.suffix, entry.precisions)


@ENTRIES
def test_the_extra_and_the_page_exist(entry: EngineEntry) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not entry.extra or entry.extra in extras
    assert not entry.page or (ROOT / "docs" / entry.page).is_file()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("trt", "trt"), ("tensorrt", "trt"), ("engine", "trt"), ("tensorrt-rtx", "trt-rtx"), ("onnxruntime", "onnx")],
)
def test_aliases(name: str, meant: str) -> None:
    assert find_entry(name).name == meant


def test_an_unknown_engine_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean openvino"):
        find_entry("openvno")
    with pytest.raises(ConfigError, match=", ".join(ENGINES)):
        find_entry("zzz")


def test_reading_the_table_imports_no_engine() -> None:
    packages = {name.replace("-", "_") for entry in ENGINES.values() for name in entry.packages}
    packages |= {"numpy", "pydantic"}
    code = f"import sys, segkc_deploy.engines; print(*({packages!r} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == []


def test_a_precisions_formats_begin_with_that_of_the_products() -> None:
    assert number_formats("fp16") == ("fp16",)
    assert number_formats("int8-bf16") == ("int8", "bf16")
