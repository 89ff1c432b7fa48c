"""What a row's process is started with, and the memory that it reports."""

import sys

import numpy as np
import pytest

from segkc_deploy.benchmarks.measure.memory import forget_host_peak, host_now_mib, host_peak_mib
from segkc_deploy.benchmarks.measure.worker_process import worker_environment


def test_threads_that_are_asked_for_are_those_of_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch would take `MKL_NUM_THREADS` before the other one."""
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    environment = worker_environment(2)
    assert (environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("2", "2")
    assert worker_environment(None)["MKL_NUM_THREADS"] == "7"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep the peak of the whole process")
def test_a_peak_that_is_forgotten_counts_no_more() -> None:
    before = host_now_mib()
    np.ones(64 << 17)  # 64 MiB that are freed at once
    assert host_peak_mib() >= before + 48
    forget_host_peak()
    assert host_peak_mib() < before + 48
