"""The decoded cache: the pixels of before, whatever happens to the files and to the cache."""

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.images import read_image
from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.pixel_format import RGB
from segkc_deploy.training.data import decoded_cache
from segkc_deploy.training.data.cache_room import make_room
from segkc_deploy.training.data.datasets import Draws, LabeledDataset, UnlabeledDataset, draw_loader
from segkc_deploy.training.data.decoded_cache import SUFFIX, DecodedCache
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.train import train_run


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test has just written may be kept."""
    monkeypatch.setattr(decoded_cache, "_SETTLED_NS", 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "data")


@pytest.fixture
def sets(data: Path) -> ImageSets:
    return load_data_spec(data).resolve()


@pytest.fixture
def cache(tmp_path: Path) -> DecodedCache:
    return DecodedCache(tmp_path / "cache", 2**30)


def with_cache(folder: Path, size_gib: float = 1.0) -> Recipe:
    return tiny_recipe(cache={"size_gib": size_gib, "folder": str(folder)})


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"[!.]*{SUFFIX}"))


def never() -> np.ndarray:
    raise AssertionError("decoded again")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # of PyTorch, on machines of one core
@pytest.mark.parametrize("workers", [0, 2])
def test_draws_are_those_without_a_cache_and_nothing_is_decoded_twice(
    sets: ImageSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    for kind, extra in ((LabeledDataset, ()), (UnlabeledDataset, (1,))):
        plain = list(draw_loader(kind(sets, tiny_recipe(), *extra), Draws(2, range(6)), 0, False))
        for decodes in (True, False):
            if not decodes:
                monkeypatch.setattr(decoded_cache, "read_image", lambda path, pixels: never())
                monkeypatch.setattr(decoded_cache, "read_mask", lambda sample, coding: never())
            # Of two workers at once the one that does not get the lock keeps nothing, so one alone loads what is left.
            for processes in (workers, 0) if decodes else (workers,):
                recipe = with_cache(tmp_path / "cache")
                found = list(draw_loader(kind(sets, recipe, *extra), Draws(2, range(6)), processes, False))
            for own, other in zip(plain, found, strict=True):
                assert isinstance(own.tensors, dict) and isinstance(other.tensors, dict)
                assert all(torch.equal(own.tensors[name], other.tensors[name]) for name in own.tensors)
        monkeypatch.undo()
        monkeypatch.setattr(decoded_cache, "_SETTLED_NS", 0)
    assert len(entries(tmp_path / "cache")) == 2 * len(sets.labeled) + len(sets.unlabeled)
    assert not list((tmp_path / "cache").glob(f".*{SUFFIX}"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 3, 7, 16])
def test_any_number_of_bands_of_8_or_16_bits(cache: DecodedCache, tmp_path: Path, bands: int, dtype: type) -> None:
    source = tmp_path / "image"
    source.write_text("encoded")
    pixels = np.random.default_rng(bands).integers(0, np.iinfo(dtype).max, (11, 13, bands), dtype, endpoint=True)
    np.testing.assert_array_equal(cache.read(source, "image", lambda: pixels), pixels)
    kept = cache.read(source, "image", never)
    assert kept.dtype == dtype and type(kept) is np.ndarray and isinstance(kept.base, np.memmap)
    np.testing.assert_array_equal(kept, pixels)
    kept[:] = 0  # a copy's
    np.testing.assert_array_equal(cache.read(source, "image", never), pixels)


def test_a_file_that_changed_is_decoded_anew(cache: DecodedCache, sets: ImageSets) -> None:
    first, second = sets.unlabeled[0].image, sets.unlabeled[1].image
    before = cache.image(first, RGB)
    state = first.stat()
    content = second.read_bytes()
    first.write_bytes(content + bytes(max(state.st_size - len(content), 0)))  # what follows a PNG's end is ignored
    os.utime(first, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = cache.image(first, RGB)
    np.testing.assert_array_equal(after, read_image(first))
    assert (after != before).any()
    assert len(entries(cache.folder)) == 1


def test_a_file_that_changes_while_it_is_decoded_is_not_kept(cache: DecodedCache, tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.write_text("before")
    before, after = (np.full((4, 5, 3), value, np.uint8) for value in (1, 2))

    def decode() -> np.ndarray:
        source.write_text("later")
        return before

    cache.read(source, "image", decode)
    np.testing.assert_array_equal(cache.read(source, "image", lambda: after), after)


def test_a_file_with_the_content_of_before_is_not(cache: DecodedCache, sets: ImageSets) -> None:
    path = sets.unlabeled[0].image
    before = cache.image(path, RGB)
    path.touch()
    for _ in range(2):  # by its content, then by its new state
        np.testing.assert_array_equal(cache.read(path, decoded_cache.image_kind(RGB), never), before)


def test_a_mask_belongs_to_what_its_values_mean(cache: DecodedCache, sets: ImageSets) -> None:
    sample = sets.labeled[0]
    _, mask = cache.sample(sample, sets)
    other = ImageSets(dataclasses.replace(sets.coding, label_mapping={1: 2, 2: 1}), sets.labeled)
    _, swapped = cache.sample(sample, other)
    np.testing.assert_array_equal(mask, read_sample(sample, sets)[1])
    np.testing.assert_array_equal(swapped, read_sample(sample, other)[1])
    assert len(entries(cache.folder)) == 3


def test_mistakes_in_files_are_reported_as_without_a_cache(cache: DecodedCache, sets: ImageSets) -> None:
    cache.sample(sets.labeled[0], sets)
    sets.labeled[0].image.write_bytes(b"no image")
    with pytest.raises(DataError, match="not a readable image"):
        cache.sample(sets.labeled[0], sets)
    sets.labeled[1].image.unlink()
    with pytest.raises(DataError, match="no such image"):
        cache.sample(sets.labeled[1], sets)
    mixed = dataclasses.replace(sets.labeled[2], mask=sets.val[0].mask)
    assert mixed.mask is not None
    mixed.mask.write_bytes(b"P5")
    with pytest.raises(DataError, match="not a readable mask"):
        cache.sample(mixed, sets)


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "foreign"])
def test_a_damaged_entry_is_made_again(cache: DecodedCache, sets: ImageSets, damage: str) -> None:
    path = sets.unlabeled[0].image
    whole = np.array(cache.image(path, RGB))
    (entry,) = entries(cache.folder)
    good = entry.read_bytes()
    bad = {
        "flipped": good[:-7] + bytes([good[-7] ^ 1]) + good[-6:],
        "short": good[:-5],
        "empty": b"",
        "foreign": b"\xff" * 64,
    }[damage]
    entry.write_bytes(bad)
    np.testing.assert_array_equal(DecodedCache(cache.folder, cache.limit).image(path, RGB), whole)
    again = DecodedCache(cache.folder, cache.limit).read(path, decoded_cache.image_kind(RGB), never)
    np.testing.assert_array_equal(again, whole)
    np.testing.assert_array_equal(load_file(entry)["pixels"], whole)


def test_the_limit_holds_and_the_rest_is_decoded(cache: DecodedCache, sets: ImageSets) -> None:
    small = DecodedCache(cache.folder, 2**16 + 3 * 10_000)
    for _ in range(2):
        for sample in sets.unlabeled:
            np.testing.assert_array_equal(small.image(sample.image, RGB), read_image(sample.image))
    kept = entries(cache.folder)
    assert 0 < len(kept) < len(sets.unlabeled)
    assert sum(path.stat().st_size for path in kept) <= small.limit
    assert int((cache.folder / ".used").read_text()) == sum(path.stat().st_size for path in kept)


def test_a_file_that_may_still_change_is_not_kept(
    cache: DecodedCache, sets: ImageSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_cache, "_SETTLED_NS", 3_600_000_000_000)
    cache.image(sets.unlabeled[0].image, RGB)
    assert not entries(cache.folder)


def test_no_draw_waits_while_another_process_writes(cache: DecodedCache, sets: ImageSets) -> None:
    cache.folder.mkdir()
    with DecodedCache(cache.folder, cache.limit).locked():
        np.testing.assert_array_equal(cache.image(sets.unlabeled[0].image, RGB), read_image(sets.unlabeled[0].image))
        assert not entries(cache.folder)
    cache.image(sets.unlabeled[0].image, RGB)
    assert len(entries(cache.folder)) == 1


def test_what_was_not_used_for_longest_gives_way(cache: DecodedCache, sets: ImageSets, tmp_path: Path) -> None:
    others = load_data_spec(write_tiny_data(tmp_path / "others", unlabeled=5)).resolve()
    for age, sample in enumerate(others.unlabeled):
        cache.image(sample.image, RGB)
        os.utime(cache.entry(sample.image, decoded_cache.image_kind(RGB)), (age, age))
    unfinished = [cache.folder / f".a-{name}{SUFFIX}" for name in ("abandoned", "fresh")]
    for path in unfinished:
        path.write_bytes(b"")
    os.utime(unfinished[0], (time.time() - 7200,) * 2)
    one = entries(cache.folder)[0].stat().st_size
    needed = sum(read_image(sample.image).nbytes for sample in (*sets.labeled, *sets.unlabeled, *sets.val))
    needed += sum(48 * 64 for _ in (*sets.labeled, *sets.val))
    said = make_room(DecodedCache(cache.folder, needed + 2 * one + 10), sets)
    assert said.startswith(f"decoded cache: {cache.folder}, about 0.00 GiB of cache.size_gib=")
    left = [cache.entry(sample.image, decoded_cache.image_kind(RGB)).exists() for sample in others.unlabeled]
    assert left == [False, False, False, True, True]
    assert [path.exists() for path in unfinished] == [False, True]
    half = make_room(DecodedCache(cache.folder, needed // 2), sets)
    assert "has room for about 50% of the images" in half
    assert half.endswith("The rest are decoded each time they are used")
    assert not entries(cache.folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of 40 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount file systems")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named(sets: ImageSets, small_disk: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{small_disk}: .* are free, .*lower cache.size_gib \(1\)"):
        make_room(DecodedCache(small_disk, 2**30), sets)
    dataset = UnlabeledDataset(sets, with_cache(small_disk), 1)
    loaded = [dataset[draw].tensors for draw in range(6)]
    failed = [tensors for tensors in loaded if not isinstance(tensors, dict)]
    assert 0 < len(failed) < 6
    assert isinstance(failed[0], ConfigError)
    assert str(failed[0]).startswith(f"{small_disk}/")
    assert str(failed[0]).endswith("No space left on device; make room, or continue with --resume -o cache.size_gib=0")
    assert not list(small_disk.glob(f".*{SUFFIX}"))


def test_a_training_is_the_same_with_a_cache(data: Path, tmp_path: Path) -> None:
    recipe = str(write_recipe(tmp_path / "tiny.yaml", tiny_recipe(senior=None, method={"name": "supervised"})))
    plain = train_run(data, recipe, tmp_path / "plain", device="cpu")
    cache = ["cache.size_gib=0.5", f"cache.folder={tmp_path / 'cache'}"]
    cached = train_run(data, recipe, tmp_path / "cached", cache, device="cpu")
    assert cached.miou == plain.miou
    expected, got = (load_file(run.path / "junior.safetensors") for run in (plain, cached))
    assert all(np.array_equal(expected[name], got[name]) for name in expected)
    assert f"decoded cache: {tmp_path / 'cache'}, about" in (cached.path / "train.log").read_text()
    val = [sample.image for sample in load_data_spec(data).resolve().val]
    kept = DecodedCache(tmp_path / "cache", 1)
    # Two threads read them, and one that finds the other writing keeps nothing.
    assert any(kept.entry(path, decoded_cache.image_kind(RGB)).exists() for path in val)
    resumed = train_run(None, None, cached.path, ["cache.size_gib=0"], resume=True, device="cpu")
    assert resumed.miou == plain.miou
