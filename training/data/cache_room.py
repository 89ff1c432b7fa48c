"""Room in the decoded cache before a training: what is old gives way, and what fits is said."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segkc_deploy.data.images import read_bytes, read_header
from segkc_deploy.data.mask_files import is_mask_image
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.training.data.decoded_cache import HALF_SIZE_KIND, SUFFIX, DecodedCache, image_kind, mask_kind

#: Decoded sizes beyond these would change the estimate hardly at all.
_MOST_HEADERS = 100
#: An unfinished file of this age is no longer being written.
_ABANDONED_S = 3600


class _Kept(NamedTuple):
    path: Path
    size: int
    used_at: float


def make_room(cache: DecodedCache, sets: ImageSets) -> str:
    """Remove entries until the images of `sets` have room, and return in words how many of them do.

    Entries of other images give way first, and those first that no training has used for longest. The sizes of the
    decoded images are estimated from the headers of 100 files.

    Raises:
        ConfigError: the folder cannot be written to, or its disk has no room for as much as the limit.
    """
    sources = list(_sources(sets))
    own = {cache.entry(path, kind) for path, kind, _ in sources}
    own |= {cache.entry(path, HALF_SIZE_KIND) for path, _, _ in sources}
    needed = _decoded_bytes(sources)
    try:
        cache.folder.mkdir(parents=True, exist_ok=True)
        with cache.locked():
            _remove_unfinished(cache.folder)
            kept = _by_use(cache.folder)
            mine = [entry for entry in kept if entry.path in own]
            others = [entry for entry in kept if entry.path not in own]
            left = _trimmed(others, cache.limit - min(needed, cache.limit))
            present = _trimmed(mine, cache.limit - left)
            cache.set_used(left + present)
        free = shutil.disk_usage(cache.folder).free
    except OSError as error:
        raise ConfigError(f"{error.filename or cache.folder}: {error.strerror}; name another cache.folder") from None
    grows = min(needed, cache.limit - left) - present
    if grows > free:
        raise ConfigError(
            f"{cache.folder}: {_gib(free)} are free, and the decoded images need {_gib(grows)}; lower cache.size_gib"
            f" ({cache.limit / 2**30:g}), or name a cache.folder on another disk"
        )
    return _in_words(cache, needed)


def _sources(sets: ImageSets) -> Iterator[tuple[Path, str, int]]:
    """Yield every file that the cache may hold, with what else its pixels depend on, and the bytes of a pixel."""
    image, mask = image_kind(sets.pixels), mask_kind(sets.coding)
    depth = sets.pixels.bands * sets.pixels.bits // 8
    for sample in (*sets.labeled, *sets.unlabeled, *sets.val):
        yield sample.image, image, depth
        if sample.mask is not None and is_mask_image(sample.mask):
            yield sample.mask, mask, 1


def _decoded_bytes(sources: Sequence[tuple[Path, str, int]]) -> int:
    places = np.linspace(0, len(sources) - 1, min(len(sources), _MOST_HEADERS)).round().astype(int)
    sizes = []
    for place in places:
        path, _, depth = sources[place]
        try:
            _, (height, width) = read_header(read_bytes(path, "file"), path)
        except DataError:
            continue  # the training reports it when its turn comes
        sizes.append(height * width * depth)
    return round(len(sources) * float(np.mean(sizes))) if sizes else 0


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob(f".*{SUFFIX}"):
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            path.unlink(missing_ok=True)


def _by_use(folder: Path) -> list[_Kept]:
    """Return the entries, the one first that has not been used for longest."""
    found = []
    for path in folder.glob(f"[!.]*{SUFFIX}"):
        state = path.stat()
        found.append(_Kept(path, state.st_size, state.st_atime))
    return sorted(found, key=lambda entry: entry.used_at)


def _trimmed(entries: Sequence[_Kept], limit: int) -> int:
    """Remove the first entries until the rest has `limit` bytes at most; return the bytes that are left."""
    left = sum(entry.size for entry in entries)
    for entry in entries:
        if left <= limit:
            break
        entry.path.unlink(missing_ok=True)
        left -= entry.size
    return left


def _in_words(cache: DecodedCache, needed: int) -> str:
    setting = f"cache.size_gib={cache.limit / 2**30:g}"
    if needed <= cache.limit:
        return f"decoded cache: {cache.folder}, about {_gib(needed)} of {setting}"
    share = cache.limit / needed
    return (
        f"decoded cache: {cache.folder} has room for about {share:.0%} of the images ({setting}; all of them need"
        f" {_gib(needed)}). The rest are decoded each time they are used"
    )


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count < 10 * 2**30 else f"{count / 2**30:.0f} GiB"
