"""Folders with what pip does not install, which a test needs and CONTRIBUTING.md says how to prepare."""

import os
from pathlib import Path

import pytest


def prepared_folder(variable: str, content: str) -> Path:
    """Return the folder that an environment variable names; skip the test where it names none."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder with {content}")
    return Path(folder)
