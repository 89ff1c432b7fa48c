"""How much memory this process and the GPU hold."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_MIB = 1 << 20


def host_now_mib() -> float:
    """Return the resident size of this process in MiB."""
    return psutil.Process().memory_info().rss / _MIB


def reset_host_peak() -> None:
    """Reset what `host_peak_mib` returns to the present size, on systems that can: Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def host_peak_mib() -> float:
    """Return the largest resident size that this process has had, or since `reset_host_peak`, in MiB.

    On Linux from `VmHWM`, which starts anew with the program: `ru_maxrss` would include the parent's size at the fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / _MIB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB  # bytes on macOS


def device_used_mib() -> float | None:
    """Return the memory in use on all NVIDIA GPUs in MiB, by every process, or None where no driver tells."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        return None
    used = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return float(sum(map(float, used))) if all(value.isdigit() for value in used) and used else None
