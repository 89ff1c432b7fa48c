"""Settings of the whole test suite."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

# Tiny networks gain nothing from threads, and on a busy machine threads that wait for each other cost minutes.
# Set before torch and OpenMP are loaded; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is cached for a user between runs, such as TensorRT's timings, is not this user's.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="segkc-deploy-tests-")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line, run in this process."""
    return CommandLine(monkeypatch, capfd)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data spec of the tiny data set. Shared: tests that change a set write their own."""
    from tiny_data import write_tiny_data

    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a pair that was trained on `data` for twelve steps. Shared: nothing writes into it."""
    from tiny_data import tiny_recipe, write_recipe

    from segkc_deploy.training.train import train_run

    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder / "tiny.yaml", tiny_recipe())
    return train_run(data, str(recipe), folder / "run", ["schedule.steps=12"], device="cpu").path


@pytest.fixture(scope="session")
def traced_graphs() -> dict[str, Any]:
    """ONNX graphs by the network and the size they were traced for; filled by `graphs_traced_once`."""
    return {}


@pytest.fixture
def graphs_traced_once(traced_graphs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports in this process trace a network, which takes most of their time, only when it is another one or changed.

    For tests of what comes after tracing: the first of them traces, the others take a copy.
    """
    import hashlib
    from copy import deepcopy

    from segkc_deploy.export import export_run

    trace = export_run.base_graph

    def traced(graph: Any, size: tuple[int, int], free_size: bool = False) -> Any:
        digest = hashlib.sha256(f"{graph} {size} {free_size}".encode())
        for name, tensor in (*graph.named_parameters(), *graph.named_buffers()):
            digest.update(name.encode() + tensor.detach().numpy().tobytes())
        key = digest.hexdigest()
        if key not in traced_graphs:
            traced_graphs[key] = trace(graph, size, free_size)
        return deepcopy(traced_graphs[key])

    monkeypatch.setattr(export_run, "base_graph", traced)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser; not for the session, since its event loop would run in all later tests."""
    from browser_page import started_browser

    with started_browser() as browser:
        yield browser
