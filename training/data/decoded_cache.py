"""Decoded images and masks in memory-mapped files, so that a training decodes each once and not in every epoch.

An entry is a safetensors file that holds the pixels, the checksum of these, and the state and the checksum of the file
that they were decoded from. It counts as long as that file is what it was.
"""

import errno
import fcntl
import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np
from safetensors.numpy import save

from segkc_deploy import __version__, atomic
from segkc_deploy.data.images import read_half_size, read_image
from segkc_deploy.data.mask_files import is_mask_image
from segkc_deploy.data.masks import read_mask, require_size_of_image
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.errors import ConfigError
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.training.recipe import CacheConfig
from segkc_deploy.user_cache import cache_folder

SUFFIX = ".safetensors"

#: The clocks of file systems tick every few milliseconds, some every two seconds: a file that was changed more recently
#: may change again without a later time.
_SETTLED_NS = 2_000_000_000
_LONGEST_HEADER = 2**16
_TYPES = {"U8": np.uint8, "U16": np.uint16}
#: Another version of these may decode a file to other pixels.
_DECODERS = ("pillow", "pillow-heif", "tifffile", "imagecodecs")
#: What the pixels of `half_size_image` depend on besides their file.
HALF_SIZE_KIND = "image, half its size"


class SourceState(NamedTuple):
    """What the file system says of a file; a change of its content changes `changed_ns`, which no program can set."""

    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Return the state of a file, or None where there is none."""
        try:
            found = path.stat()
        except (OSError, ValueError):  # a path with a null byte is a ValueError
            return None
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _Entry(NamedTuple):
    pixels: np.ndarray
    state: SourceState
    digest: str


class DecodedCache:
    """Decoded files below a folder, at most `limit` bytes of them; several processes and trainings may share it.

    What does not fit is decoded each time it is used, as without a cache. The pixels are the same either way.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._decoders = "".join(f"{name} {version}, " for name, version in _versions())
        self._verified: dict[str, tuple[int, int]] = {}

    @classmethod
    def of(cls, config: CacheConfig) -> Self | None:
        """Return the cache that a recipe asks for, None where it asks for none."""
        if config.size_gib == 0:
            return None
        folder = Path(config.folder).expanduser() if config.folder else cache_folder("decoded")
        return cls(folder.absolute(), int(config.size_gib * 2**30))

    def image(self, path: Path, pixels: PixelFormat) -> np.ndarray:
        """Return what `read_image` does."""
        return self.read(path, image_kind(pixels), lambda: read_image(path, pixels))

    def half_size_image(self, path: Path) -> np.ndarray:
        """Return what `read_half_size` does."""
        return self.read(path, HALF_SIZE_KIND, lambda: read_half_size(path))

    def mask(self, sample: Sample, coding: MaskCoding) -> np.ndarray:
        """Return what `read_mask` does; masks drawn from annotation files are not kept."""
        assert sample.mask is not None
        if not is_mask_image(sample.mask):
            return read_mask(sample, coding)
        return self.read(sample.mask, mask_kind(coding), lambda: read_mask(sample, coding))

    def sample(self, sample: Sample, sets: ImageSets) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what `read_sample` does."""
        image = self.image(sample.image, sets.pixels)
        if sample.mask is None:
            return image, None
        mask = self.mask(sample, sets.coding)
        require_size_of_image(sample, image.shape[:2], mask)
        return image, mask

    def read(self, source: Path, kind: str, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the pixels that `decode` makes of `source`, memory-mapped where they are kept.

        Args:
            source: the file.
            kind: what, besides the file, the pixels depend on.
            decode: makes the pixels, uint8 or uint16; may raise, and is called only where it is needed.

        Raises:
            ConfigError: the cache cannot be written to.
        """
        path = self.entry(source, kind)
        state = SourceState.of(source)
        kept = self._kept(path)
        if kept is not None and kept.state == state:
            return kept.pixels
        if state is None:
            return decode()  # its error names the file
        # Copied or touched, but with the content of before.
        pixels = kept.pixels if kept is not None and kept.digest == _digest(source) else decode()
        self._keep(path, source, state, pixels)
        return pixels

    def entry(self, source: Path, kind: str) -> Path:
        """Return where the pixels of a file are kept."""
        name = "\n".join((str(source.absolute()), kind, self._decoders)).encode(errors="surrogateescape")
        return self.folder / (hashlib.blake2b(name, digest_size=16).hexdigest() + SUFFIX)

    def _kept(self, path: Path) -> _Entry | None:
        """Return an entry, or None where there is none or it is damaged.

        Its checksum is compared when this process meets its file first, which marks it as used.
        """
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, _LONGEST_HEADER)))
                tensor, facts = header["pixels"], header["__metadata__"]
                # The library would copy the pixels; they lie where its format says, behind the header. Who changes them
                # changes a copy.
                mapped = np.memmap(file, _TYPES[tensor["dtype"]], "c", 8 + length, tuple(tensor["shape"]))
                found = os.fstat(file.fileno())
            entry = _Entry(mapped.view(np.ndarray), SourceState(*json.loads(facts["state"])), facts["source"])
            checksum = str(facts["crc32"])
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return None
        identity = found.st_ino, found.st_mtime_ns
        if self._verified.get(path.name) != identity:
            if checksum != _checksum(entry.pixels):
                return None
            with suppress(OSError):  # the entry has just given way
                os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))  # what gives way is chosen by the time of access
            self._verified[path.name] = identity
        return entry

    def _keep(self, path: Path, source: Path, state: SourceState, pixels: np.ndarray) -> None:
        """Write an entry, unless there is no room or another process writes one: no draw waits for the cache."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(wait=False) as locked:
                if not locked or time.time_ns() - state.changed_ns < _SETTLED_NS:
                    return
                used = self.used() - _size(path)
                if used + pixels.nbytes + _LONGEST_HEADER > self.limit:
                    return
                facts = {"state": json.dumps(state), "source": _digest(source), "crc32": _checksum(pixels)}
                if SourceState.of(source) != state:
                    return  # it changed while it was decoded
                content = save({"pixels": np.ascontiguousarray(pixels)}, facts)
                atomic.write_bytes(path, content)
                self.set_used(used + len(content))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            fix = "make room, or continue with --resume -o cache.size_gib=0" if full else "name another cache.folder"
            raise ConfigError(f"{error.filename or path}: {error.strerror}; {fix}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all processes from writing entries."""
        with self._locked(wait=True):
            yield

    @contextmanager
    def _locked(self, wait: bool) -> Iterator[bool]:
        with (self.folder / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def used(self) -> int:
        """Return the bytes of all entries; the caller holds the lock."""
        try:
            return int((self.folder / ".used").read_text())
        except (OSError, ValueError):
            return sum(entry.stat().st_size for entry in self.folder.glob(f"[!.]*{SUFFIX}"))

    def set_used(self, count: int) -> None:
        """Note the bytes of all entries; the caller holds the lock."""
        with atomic.naming(self.folder / ".used"):
            (self.folder / ".used").write_text(str(count))


def image_kind(pixels: PixelFormat) -> str:
    """Return what an image's pixels depend on besides its file."""
    return f"image, {pixels}"


def mask_kind(coding: MaskCoding) -> str:
    """Return what a mask's class ids depend on besides its file."""
    return f"mask, {coding}"


def _versions() -> Iterator[tuple[str, str]]:
    yield from (("segkc-deploy", __version__), ("opencv", cv2.__version__))  # there are several packages of OpenCV
    for name in _DECODERS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _checksum(pixels: np.ndarray) -> str:
    form = zlib.crc32(f"{pixels.dtype} {pixels.shape}".encode())
    return f"{zlib.crc32(np.ascontiguousarray(pixels).data, form):08x}"


def _digest(source: Path) -> str:
    """Return the checksum of a file, or nothing where it cannot be read: to decode it will tell why."""
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
