"""The timing cache: what the builder measured on this machine, kept so that the next build need not measure again."""

import hashlib
import re
from pathlib import Path

from segkc_deploy import atomic
from segkc_deploy.cuda_probe import Gpu
from segkc_deploy.progress import console

_DIGEST_BYTES = 32


def cache_path(folder: Path, gpu: Gpu, version: str) -> Path:
    """Return where the cache of one GPU, driver and TensorRT version is: none is of use to another."""
    parts = (gpu.name, f"cc{gpu.compute_capability}", gpu.driver, f"tensorrt-{version}")
    return folder / (re.sub(r"[^\w.]+", "-", "_".join(parts)) + ".timings")


def read_cache(path: Path) -> bytes:
    """Return the cache at `path`, or b"" if there is none; a damaged or unreadable one is left aside with a note."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        _note(path, f"cannot be read ({error.strerror})")
        return b""
    digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    # TensorRT need not survive a damaged cache, so it never sees one.
    if hashlib.sha256(blob).digest() != digest:
        _note(path, "is damaged")
        return b""
    return blob


def write_cache(path: Path, blob: bytes) -> None:
    """Write the cache; a disk that refuses it costs the next build some time and this one nothing but a note."""
    try:
        atomic.write_bytes(path, hashlib.sha256(blob).digest() + blob)
    except OSError as error:
        console.print(f"{path}: the timing cache was not kept ({error.strerror})", soft_wrap=True, markup=False)


def _note(path: Path, what: str) -> None:
    console.print(f"{path}: the timing cache {what}; building without it", soft_wrap=True, markup=False)
