"""How many processors a process may use: those it is bound to, or its container's share of them."""

from pathlib import Path

import pytest

from segkc_deploy import machine


def test_a_container_has_as_many_cores_as_its_quota(tmp_path: Path) -> None:
    assert machine._cores_of_quota(tmp_path) == 0
    (tmp_path / "cpu").mkdir()  # version 1 of control groups
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert machine._cores_of_quota(tmp_path) == 0
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    assert machine._cores_of_quota(tmp_path) == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")  # version 2
    assert machine._cores_of_quota(tmp_path) == 0
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine._cores_of_quota(tmp_path) == 1


def test_the_smaller_of_quota_and_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    for quota, cores in ((0, 64), (2, 2), (100, 64)):
        monkeypatch.setattr(machine, "_cores_of_quota", lambda folder, quota=quota: quota)
        assert machine.available_cores() == cores
