"""A short run of `fuzz_inputs.py`, which reads mutated files: no fault but a `UserError` of one line."""

from pathlib import Path

import pytest
from fuzz_inputs import Cost, fuzz

from segkc_deploy.data.pixel_limit import VARIABLE


@pytest.mark.filterwarnings("ignore")  # Pillow's and tifffile's own words about damaged files
@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_files_are_read_or_refused(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(2**20))
    faults = list(fuzz(250, seed, tmp_path, Cost()))
    assert [fault for fault in faults if not fault.what.startswith("took ")] == []
