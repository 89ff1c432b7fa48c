"""Settings of the whole test suite."""

import os
import tempfile

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
