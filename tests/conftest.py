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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser; not for the session, since its event loop would run in all later tests."""
    from browser_page import started_browser

    with started_browser() as browser:
        yield browser
