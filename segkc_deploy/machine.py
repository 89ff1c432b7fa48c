"""What this machine is, for manifests and reports: a figure without it says little."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "opencv-python", "onnxruntime-gpu", "onnxruntime", "torch", "tensorrt")

_NVIDIA_SMI_TIMEOUT_S = 20

#: What decides how fast networks are on a CPU, as Linux calls it, with the name that people use.
_CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}


def describe_machine() -> dict[str, Any]:
    """Return the machine as JSON values.

    Keys: `cpu` (model), `cpu_features` (such as AVX2 and VNNI, since a virtual CPU often hides its model; empty where
    they are not known), `cores` (that this process may use), `ram_gib`, `os`, `python`, `packages` (name to version, of
    those installed; none is imported) and `gpus` (a list of `name`, `driver`, `memory_mib`; empty without nvidia-smi).
    """
    return {
        "cpu": _cpu_model(),
        "cpu_features": _cpu_features(),
        "cores": available_cores(),
        "ram_gib": _ram_gib(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
        "gpus": _gpus(),
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    _, flags = cpu_flags()
    return list(dict.fromkeys(name for flag, name in _CPU_FEATURES.items() if flag in flags))


def cpu_flags() -> tuple[str, frozenset[str]]:
    """Return the line of Linux that names what the CPU can do, `flags` (x86) or `Features` (Arm), and its words.

    Both are empty where they are not known.
    """
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.is_file() else ():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return key.strip(), frozenset(value.split())
    return "", frozenset()


def cpu_text(machine: Mapping[str, Any]) -> str:
    """Return the CPU of `describe_machine` in words.

    Results of older versions do not name its features, and a comparison of machines whose differ has them as a text.
    """
    features = machine.get("cpu_features")
    return (
        f"{machine['cpu']} ({', '.join(features)})" if features and isinstance(features, list) else str(machine["cpu"])
    )


def available_cores() -> int:
    """Return how many processors this process may use: those it is bound to, or fewer by its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, _cores_of_quota(Path("/sys/fs/cgroup")) or bound)


def _cores_of_quota(cgroup: Path) -> int:
    """Return how many cores a container may use (`docker --cpus`), rounded up; 0 without a limit."""
    if (limit := cgroup / "cpu.max").is_file():
        quota, period = limit.read_text().split()
    elif (limit := cgroup / "cpu" / "cpu.cfs_quota_us").is_file():
        quota, period = limit.read_text().strip(), (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
    else:
        return 0
    return -(-int(quota) // int(period)) if quota.isdecimal() else 0


def available_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or less where its cgroup limits it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [machine]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text().strip() if Path(path).is_file() else ""
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def _ram_gib() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _gpus() -> list[dict[str, Any]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.stdout.splitlines()]
    return [
        {"name": row[0], "driver": row[1], "memory_mib": int(row[2]) if row[2].isdigit() else None}
        for row in rows
        if len(row) == 3
    ]
