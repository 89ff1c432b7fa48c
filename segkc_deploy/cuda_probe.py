"""What the NVIDIA driver says of this machine, asked before any library that could crash without one is loaded."""

import ctypes
import os
from dataclasses import dataclass
from typing import Any

from segkc_deploy.errors import ConfigError

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """The GPU that CUDA counts first.

    Attributes:
        name: such as `NVIDIA GeForce RTX 4090`.
        compute_capability: such as `8.9`.
        driver: the driver's version, such as `580.65.06`; where only CUDA's is known, such as `CUDA 13.0`.
    """

    name: str
    compute_capability: str
    driver: str


def cuda_obstacle() -> str:
    """Return why CUDA cannot be used here and what to do about it, or "" if it can."""
    driver = _load(_cuda_name())
    if driver is None:
        return f"there is no NVIDIA driver ({_cuda_name()} was not found); install it"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    return ""


def find_gpu() -> Gpu:
    """Return the first GPU.

    Raises:
        ConfigError: there is no driver or no GPU; the message says which.
    """
    if obstacle := cuda_obstacle():
        raise ConfigError(f"a GPU is needed, but {obstacle}")
    driver = _load(_cuda_name())
    device, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    if failed:
        raise ConfigError(f"the NVIDIA driver does not describe its GPU (CUDA error {failed}); check nvidia-smi")
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", _driver_version(driver))


def _driver_version(driver: Any) -> str:
    management = _load("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
    text = ctypes.create_string_buffer(96)
    if management is not None and management.nvmlInit_v2() == 0:
        found = management.nvmlSystemGetDriverVersion(text, len(text)) == 0
        management.nvmlShutdown()
        if found:
            return text.value.decode(errors="replace")
    # Jetson boards have no such library.
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _cuda_name() -> str:
    return "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


def _load(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
