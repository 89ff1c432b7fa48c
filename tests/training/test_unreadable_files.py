"""Image and mask files that turn out damaged in the middle of a training are replaced, counted and limited."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.census import count_classes
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.training.data.datasets import Draws, LabeledDataset, UnlabeledDataset, draw_loader
from segkc_deploy.training.data.skipped_files import SkippedFiles
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.summary import summary
from segkc_deploy.training.train import train_run

#: One small network, so that a training takes a second.
RECIPE = {"senior": None, "method": {"name": "fixmatch", "strong_views": 1}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "data")


@pytest.fixture
def sets(data: Path) -> ImageSets:
    return load_data_spec(data).resolve()


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return str(write_recipe(tmp_path / "tiny.yaml", tiny_recipe(**RECIPE)))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def tensors(run: Path) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("junior.safetensors", "checkpoints/last.safetensors"):
        found |= {f"{name}: {key}": value for key, value in load_file(run / name).items()}
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # of PyTorch, on machines of one core
@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_image_of_the_epoch_takes_its_place(sets: ImageSets, workers: int) -> None:
    dataset = UnlabeledDataset(sets, tiny_recipe(), 1)
    before = [dataset.example(draw) for draw in range(6)]
    damage(dataset.sample_of(2).image)
    loaded = list(draw_loader(dataset, Draws(2, range(3)), workers, pin_memory=False))
    weak = torch.cat([batch.tensors["weak"] for batch in loaded])
    assert all(torch.equal(weak[draw], before[draw]["weak"]) for draw in (0, 1, 3, 4, 5))
    assert torch.equal(weak[2], dataset.example(2, attempt=1)["weak"])
    assert [len(batch.skipped) for batch in loaded] == [0, 1, 0]
    assert loaded[1].skipped[0].startswith(f"{dataset.sample_of(2).image}: not a readable image")


def test_a_mask_is_replaced_with_its_image_and_unknown_ids_are_not(sets: ImageSets) -> None:
    dataset = LabeledDataset(sets, tiny_recipe())
    mask = dataset.sample_of(1).mask
    assert mask is not None
    good = mask.read_bytes()
    damage(mask)
    replaced = dataset[1]
    assert torch.equal(replaced.tensors["image"], dataset.example(1, attempt=1)["image"])
    assert replaced.skipped[0].startswith(f"{mask}: not a readable mask")
    mask.write_bytes(good)
    other = LabeledDataset(
        ImageSets(dataclasses.replace(sets.coding, label_mapping={1: 77}), sets.labeled), tiny_recipe()
    )
    loaded = other[1]
    assert isinstance(loaded.tensors, DataError)
    assert "neither a class" in str(loaded.tensors)


def test_a_set_without_a_readable_image_is_refused(sets: ImageSets) -> None:
    for sample in sets.unlabeled:
        damage(sample.image)
    loaded = UnlabeledDataset(sets, tiny_recipe(), 1)[0]
    assert len(loaded.skipped) == len(sets.unlabeled)
    assert isinstance(loaded.tensors, DataError)


@pytest.mark.parametrize("limit", [3, 10])
@pytest.mark.parametrize("kept", range(4))
def test_a_draw_for_a_rare_class_tries_every_other_image_too(sets: ImageSets, kept: int, limit: int) -> None:
    recipe = tiny_recipe(unreadable_files=limit, weak={"rare_class_crops": 1.0, "rare_class_share": 0.99})
    census = count_classes(sets.labeled, sets)
    dataset = LabeledDataset(sets, recipe, census)
    before = [dataset.example(draw) for draw in range(4)]
    for draw in range(4):
        assert torch.equal(dataset[draw].tensors["image"], before[draw]["image"])
    for index, sample in enumerate(sets.labeled):
        if index != kept:
            damage(sample.image)
    for draw in range(8):
        loaded = dataset[draw]
        assert isinstance(loaded.tensors, dict), loaded.tensors
        if loaded.skipped:  # by the same images as before there was one attempt more
            tried = [dataset.sample_of(draw, attempt) for attempt in range(1, 5)]
            assert len(loaded.skipped) == 1 + tried.index(sets.labeled[kept])


def test_each_file_counts_once_whichever_rank_met_it() -> None:
    ranks = [SkippedFiles(2), SkippedFiles(2)]
    for skipped, messages in zip(ranks, (["a: x", "b: x"], ["b: x"]), strict=True):
        skipped.add(messages)
        skipped.add(messages)
    together = [["a: x", "b: x"], ["b: x"]]
    assert [skipped.collect(lambda own: together) for skipped in ranks] == [["a: x", "b: x"]] * 2
    assert ranks[0].collect(lambda own: [own, []]) == []
    with pytest.raises(DataError, match=r"^c: x; 3 unreadable .* files so far, .* -o unreadable_files=6$"):
        ranks[1].add(["c: x"])
    alone = [SkippedFiles(2, ["a: x"]), SkippedFiles(2, ["a: x"])]
    for skipped, message in zip(alone, ("b: x", "c: x"), strict=True):
        skipped.add([message])
        with pytest.raises(DataError, match="3 unreadable"):
            skipped.collect(lambda own: [["b: x"], ["c: x"]])


def test_a_run_lists_what_it_skipped_and_resumes_bit_by_bit(
    data: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [data.parent / "images" / name for name in ("train/001.png", "extra/002.png")]
    for image in images:
        damage(image)
    whole = train_run(data, recipe, tmp_path / "whole", device="cpu")
    assert {message.split(": ")[0] for message in whole.skipped} == set(map(str, images))
    told = summary(whole)
    start = told.index("warning: 2 files could not be read; other images took their place:")
    assert [line.strip() for line in told[start + 1 : start + 3]] == list(whole.skipped)
    log = (tmp_path / "whole" / "train.log").read_text()
    assert all(log.count(message) == 1 for message in whole.skipped)

    step = Trainer._train_step

    def dying(self: Trainer, number: int, *arguments: object) -> int:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_train_step", dying)
        train_run(data, recipe, tmp_path / "killed", ["workers=2"], device="cpu")
    resumed = train_run(None, None, tmp_path / "killed", resume=True, device="cpu")
    assert resumed.skipped == whole.skipped
    expected, got = tensors(tmp_path / "whole"), tensors(tmp_path / "killed")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_more_than_the_limit_stops_a_run_which_then_resumes(data: Path, recipe: str, tmp_path: Path) -> None:
    for index in range(3):
        damage(data.parent / "images" / "extra" / f"00{index}.png")
    overrides = ["unreadable_files=2", "checkpoint_every=1", "schedule.steps=6"]
    with pytest.raises(DataError, match=r"3 unreadable .* unreadable_files = 2 .*--resume -o unreadable_files=6"):
        train_run(data, recipe, tmp_path / "run", overrides, device="cpu")
    resumed = train_run(None, None, tmp_path / "run", ["unreadable_files=6"], resume=True, device="cpu")
    assert len(resumed.skipped) == 3
    overrides = ["unreadable_files=0", "checkpoint_every=100", "validation.every=100"]
    with pytest.raises(DataError, match=r"restore the file, or start anew with --overwrite -o unreadable_files=2$"):
        train_run(data, recipe, tmp_path / "early", overrides, device="cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {"supervision": {"class_weights": "inverse"}},
        {"supervision": {"class_weights": "median-frequency"}},
        {"weak": {"rare_class_crops": 0.5, "rare_class_share": 0.5}},
    ],
    ids=["inverse", "median-frequency", "rare crops"],
)
def test_a_damaged_mask_does_not_keep_classes_from_being_counted(
    data: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    recipe = str(write_recipe(tmp_path / "tiny.yaml", tiny_recipe(**RECIPE, **settings)))
    masks = sorted((data.parent / "masks/train").iterdir())
    damage(masks[1])
    result = train_run(data, recipe, tmp_path / "run", device="cpu")
    assert [message.split(": ")[0] for message in result.skipped] == [str(masks[1])]
    for mask in masks:
        if mask != masks[1]:
            damage(mask)
    with pytest.raises(DataError, match=r"not a readable mask.*no image can take its place"):
        train_run(data, recipe, tmp_path / "other", device="cpu")


def test_counting_classes_refuses_unknown_ids(sets: ImageSets) -> None:
    damage(sets.labeled[0].mask)
    assert count_classes(sets.labeled, sets).pixels[0].tolist() == [0, 0, 0]
    other = dataclasses.replace(sets, coding=dataclasses.replace(sets.coding, label_mapping={1: 77}))
    with pytest.raises(DataError, match="neither a class"):
        count_classes(other.labeled, other)
