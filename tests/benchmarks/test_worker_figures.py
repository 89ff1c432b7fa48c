"""What a row's process is started with, and the memory that it reports."""

import subprocess
import sys

import pytest

from segkc_deploy.benchmarks.measure.worker_process import worker_environment

_PEAKS = """
import numpy as np
from segkc_deploy.benchmarks.measure.memory import reset_host_peak, host_now_mib, host_peak_mib

before = host_now_mib()
np.ones(64 << 17)  # 64 MiB that are freed at once
peak = host_peak_mib()
reset_host_peak()
print(before, peak, host_peak_mib())
"""


def test_threads_that_are_asked_for_are_those_of_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch would take `MKL_NUM_THREADS` before the other one."""
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    environment = worker_environment(2)
    assert (environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("2", "2")
    assert worker_environment(None)["MKL_NUM_THREADS"] == "7"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep the peak of the whole process")
def test_the_peak_can_be_reset() -> None:
    """In a process of its own, as rows are measured: one that held more before may keep what is freed."""
    before, peak, after = map(float, subprocess.check_output([sys.executable, "-c", _PEAKS], text=True).split())
    assert peak >= before + 48
    assert after < before + 48
