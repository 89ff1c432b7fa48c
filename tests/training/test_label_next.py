"""`label-next`: what the command ranks, its lists as data specs, and its page."""

import base64
import csv
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from command_line import CommandLine
from label_next_formulas import expected_scores
from tiny_data import tiny_recipe, write_recipe, write_tiny_data
from torch import Tensor

from segkc_deploy.data.images import read_image
from segkc_deploy.data.list_file import write_list
from segkc_deploy.data.samples import Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.training.evaluation.prediction import mask_predictor
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.label_next.contact_sheet import _heat_map
from segkc_deploy.training.label_next.lists import ListForm
from segkc_deploy.training.label_next.networks import RunNetworks
from segkc_deploy.training.recipe import ValidationConfig
from segkc_deploy.training.train import train_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder / "tiny.yaml", tiny_recipe(schedule={"steps": 2}))
    return train_run(data, str(recipe), folder / "run", device="cpu").path


@pytest.fixture(scope="module")
def supervised(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supervised")
    tiny = tiny_recipe(senior=None, method={"name": "supervised"}, schedule={"steps": 1})
    recipe = write_recipe(folder / "tiny.yaml", tiny)
    return train_run(data, str(recipe), folder / "run", device="cpu").path


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def lines(out: Path, name: str = "label-next.txt") -> list[str]:
    return (out / name).read_text().splitlines()


def whole(networks: RunNetworks, image: np.ndarray) -> list[Tensor]:
    """The class probabilities of junior and senior, (C, H, W) each."""
    return [torch.cat(parts, dim=1) for parts in zip(*networks.probabilities(image), strict=True)]


def test_the_command_ranks_the_unlabeled_images(command: CommandLine, run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "next"
    finished = command("label-next", run, "--count", 3, "--out", out, "--device", "cpu")
    assert finished.code == 0, finished.err
    assert finished.out.startswith("3 of 6 unlabeled images, by disagreement × entropy, spread over different-looking")
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "label-next.txt", "labeled.txt", "scores.csv"]

    table = rows(out)
    assert sorted(row["id"] for row in table) == [f"{index:03}" for index in range(6)]
    assert [float(row["score"]) for row in table] == sorted((float(row["score"]) for row in table), reverse=True)
    for row in table:
        assert float(row["score"]) == pytest.approx(float(row["disagreement"]) * float(row["entropy_mean"]), abs=2e-6)
        shares = [float(value) for name, value in row.items() if name.startswith("share ")]
        assert len(shares) == 3 and sum(shares) == pytest.approx(1, abs=1e-5)
    chosen = sorted((row for row in table if row["chosen"]), key=lambda row: int(row["chosen"]))
    assert [row["chosen"] for row in chosen] == ["1", "2", "3"]
    assert chosen[0] == table[0]
    assert lines(out) == [f"images/extra/{row['id']}.png masks/train/images/extra/{row['id']}.png" for row in chosen]
    assert lines(out, "labeled.txt") == ["000", "001", "002", "003", *lines(out)]
    assert f"put `ids: {out / 'labeled.txt'}` under `labeled` in {data}" in finished.out.splitlines()[-1]


def test_the_scores_are_those_of_both_networks_at_the_images_own_size(
    run: Path, data: Path, command: CommandLine, tmp_path: Path
) -> None:
    command("label-next", run, "--count", 1, "--out", tmp_path, "--by", "disagreement", "--device", "cpu")
    networks = RunNetworks(run, "cpu")
    for row in rows(tmp_path):
        image = cv2.imread(row["image"])[..., ::-1]
        junior, senior = (values.double().numpy() for values in whole(networks, np.ascontiguousarray(image)))
        assert junior.shape == senior.shape == (3, 48, 64)
        for name, values in expected_scores(junior, senior).items():
            assert float(row[name]) == pytest.approx(values.mean(), abs=3e-6)
        assert row["score"] == row["disagreement"]
        assert float(row["share box"]) == pytest.approx((junior.argmax(axis=0) == 1).mean(), abs=1e-6)


@pytest.mark.parametrize(
    "protocol", [{}, {"size": [64, 96]}, {"window": [32, 32], "stride": [16, 32]}], ids=["own size", "size", "window"]
)
def test_masks_are_those_that_evaluation_scores(
    run: Path, data: Path, tmp_path: Path, protocol: dict[str, object]
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["recipe"]["validation"] = {"every": 2} | protocol
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    networks = RunNetworks(other, "cpu")
    image = read_image(load_data_spec(data).resolve().unlabeled[0].image)
    for role, probabilities in zip(("junior", "senior"), whole(networks, image), strict=True):
        network, _ = load_network(run / f"{role}.safetensors")
        predict = mask_predictor(network, torch.device("cpu"), ValidationConfig.model_validate({"every": 2} | protocol))
        np.testing.assert_allclose(probabilities.sum(dim=0).numpy(), 1, atol=1e-5)
        np.testing.assert_array_equal(probabilities.argmax(dim=0).numpy(), predict(image))
    assert networks.feature().shape == (512,)
    assert np.linalg.norm(networks.feature()) == pytest.approx(1)


def test_the_feature_is_the_seniors_pooled_one(run: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    networks = RunNetworks(run, "cpu")
    whole(networks, image[:, ::-1].copy())
    whole(networks, image)
    senior, _ = load_network(run / "senior.safetensors")
    with torch.inference_mode():
        maps = senior.features(torch.from_numpy(image.transpose(2, 0, 1))[None].float() / 255)
    pooled = maps[-1][0].double().numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(networks.feature(), pooled / np.linalg.norm(pooled), atol=1e-6)


def test_every_window_counts_in_the_feature(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["recipe"]["validation"] = {"every": 2, "window": [32, 32], "stride": [16, 32]}
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    image[:, 32:] //= 8
    networks = RunNetworks(other, "cpu")
    whole(networks, image)
    senior, _ = load_network(run / "senior.safetensors")
    windows = [image[top : top + 32, left : left + 32] for top in (0, 16) for left in (0, 32)]
    with torch.inference_mode():
        values = torch.from_numpy(np.stack(windows).transpose(0, 3, 1, 2)).float() / 255
        pooled = senior.features(values)[-1].double().numpy().mean(axis=(0, 2, 3))
    np.testing.assert_allclose(networks.feature(), pooled / np.linalg.norm(pooled), atol=1e-6)


def test_networks_whose_windows_differ_are_compared_row_by_row() -> None:
    """Parts of 3, 1 and 4 rows beside parts of 2, 6 and 0."""
    junior, senior = torch.rand(2, 5, 8, 7)
    networks = object.__new__(RunNetworks)
    networks._pooled = []
    networks._junior = lambda image: iter(junior.split([3, 1, 4], dim=1))
    networks._senior = lambda image: iter(senior.split([2, 6, 0], dim=1))
    parts = list(networks.probabilities(np.zeros((8, 7, 3), np.uint8)))
    assert [(one.shape, other.shape) for one, other in parts] == [((5, rows, 7),) * 2 for rows in (2, 1, 1, 4)]
    for expected, got in zip((junior, senior), zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(got, dim=1), expected)


def test_a_second_run_writes_the_same_bytes(command: CommandLine, run: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        command("label-next", run, "--count", 4, "--out", tmp_path / name, "--device", "cpu")
    for file in ("index.html", "label-next.txt", "labeled.txt", "scores.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_copies_of_one_image_are_not_chosen_together(command: CommandLine, run: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(2)
    for name in ("a", "b", "c"):
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8), (64, 48))
        for copy in range(3):
            cv2.imwrite(str(photos / f"{name}{copy}.png"), image)
    for diversity, chosen in ((1, {"a0", "b0", "c0"}), (0, None)):
        out = tmp_path / f"next{diversity}"
        command("label-next", run, "--images", photos, "--count", 3, "--diversity", diversity, "--out", out)
        ids = {row["id"] for row in rows(out) if row["chosen"]}
        assert ids == chosen if chosen else len({name[0] for name in ids}) == 1


def test_a_run_without_a_senior_ranks_by_entropy_and_says_so(
    command: CommandLine, supervised: Path, tmp_path: Path
) -> None:
    finished = command("label-next", supervised, "--count", 2, "--out", tmp_path / "next", "--device", "cpu")
    assert finished.code == 0, finished.err
    assert "by entropy" in finished.out and "no senior" in finished.out
    table = rows(tmp_path / "next")
    assert all(row["score"] == row["entropy_junior"] for row in table)
    assert "disagreement" not in table[0]
    page = (tmp_path / "next" / "index.html").read_text()
    assert "no senior" in page and page.count("<img ") == 2 * 3
    refusal = command.refused("label-next", supervised, "--by", "both", "--out", tmp_path / "other")
    assert "has no senior" in refusal and "--by entropy" in refusal


def test_true_masks_tell_how_well_the_scores_do(command: CommandLine, run: Path, data: Path, tmp_path: Path) -> None:
    """The validation images serve as unlabeled ones: their masks are known."""
    root = data.parent
    spec = tmp_path / "data.yaml"
    spec.write_text(
        yaml.safe_dump(
            {"root": str(root), "classes": ["background", "box", "disk"], "unlabeled": {"images": "images/val"}}
        )
    )
    out = tmp_path / "next"
    finished = command(
        "label-next",
        run,
        "--data",
        spec,
        "--count",
        2,
        "--masks",
        root / "masks" / "val",
        "--out",
        out,
        "--device",
        "cpu",
    )
    assert finished.code == 0, finished.err
    assert "3 images" in finished.out and "entropy_junior" in finished.out
    networks = RunNetworks(run, "cpu")
    for row in rows(out):
        truth = cv2.imread(str(root / "masks" / "val" / f"{row['id']}.png"), cv2.IMREAD_UNCHANGED)
        prediction = whole(networks, cv2.imread(row["image"])[..., ::-1].copy())[0].argmax(dim=0).numpy()
        assert float(row["pixel_error"]) == pytest.approx(100 * (prediction != truth).mean(), abs=1e-4)
        hits = [
            ((prediction == i) & (truth == i)).sum() / max(((prediction == i) | (truth == i)).sum(), 1)
            for i in range(3)
        ]
        assert float(row["miou_error"]) == pytest.approx(100 - 100 * np.mean(hits), abs=1e-4)
    content = json.loads((out / "comparison.json").read_text())
    assert content["highest"] == [row["id"] for row in rows(out)[:2]]
    assert content["chosen"] == [row["id"] for row in sorted(rows(out), key=lambda row: row["chosen"]) if row["chosen"]]


def test_tasks_hold_both_networks_masks_of_the_chosen_images(command: CommandLine, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "next"
    tools = ("--tasks", "fiftyone", "--tasks", "cvat", "--tasks", "label-studio")
    finished = command("label-next", run, "--count", 2, "--out", out, "--device", "cpu", *tools)
    assert finished.code == 0, finished.err
    assert [line.split(":")[0] for line in finished.out.splitlines()[-4:-1]] == ["FiftyOne", "CVAT", "Label Studio"]
    chosen = sorted((row for row in rows(out) if row["chosen"]), key=lambda row: int(row["chosen"]))
    samples = json.loads((out / "fiftyone" / "samples.json").read_text())["samples"]
    assert [str((out / "fiftyone" / sample["filepath"]).resolve()) for sample in samples] == [
        row["image"] for row in chosen
    ]
    networks = RunNetworks(run, "cpu")
    for row, sample in zip(chosen, samples, strict=True):
        assert sample["label_next_score"] == pytest.approx(float(row["score"]), abs=1e-6)
        probabilities = whole(networks, read_image(Path(row["image"])))
        for role, values in zip(("junior", "senior"), probabilities, strict=True):
            mask = cv2.imread(str(out / "fiftyone" / sample[role]["mask_path"]), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(mask, values.argmax(dim=0).numpy())
            assert sample[f"{role}_confidence"] == pytest.approx(values.max(dim=0).values.mean().item())
    tasks = json.loads((out / "label-studio" / "tasks.json").read_text())
    assert [[one["model_version"] for one in task["predictions"]] for task in tasks] == [["senior", "junior"]] * 2


def test_an_unknown_labeling_tool_is_named(command: CommandLine, run: Path, tmp_path: Path) -> None:
    assert "did you mean 'cvat'" in command.refused("label-next", run, "--out", tmp_path / "x", "--tasks", "cvt")


# The lists as data specs read them


def test_the_lists_lead_a_data_spec_to_images_and_masks(
    command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "next"
    command("label-next", run, "--count", 2, "--out", out, "--device", "cpu")
    chosen = [row for row in rows(out) if row["chosen"]]
    labeled_now = yaml.safe_load(data.read_text())
    labeled_now["labeled"]["ids"] = str(out / "labeled.txt")
    labeled_now["root"] = str(data.parent)
    spec = tmp_path / "data.yaml"
    spec.write_text(yaml.safe_dump(labeled_now))

    without_masks = load_data_spec(spec).resolve(allow_missing_masks=True)
    assert len(without_masks.labeled) == 6
    assert {str(sample.image) for sample in without_masks.labeled} >= {row["image"] for row in chosen}
    assert len(without_masks.unlabeled) == 4
    masks = [data.parent / line.split()[1] for line in lines(out)]
    try:
        for mask in masks:
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(mask), np.zeros((48, 64), np.uint8))
        resolved = load_data_spec(spec).resolve()
        assert {sample.mask for sample in resolved.labeled[-2:]} == set(masks)
    finally:
        for mask in masks:
            mask.unlink(missing_ok=True)


@pytest.mark.parametrize("way", [{"fraction": "1/2"}, {"ids": "few.txt"}])
def test_images_of_the_labeled_folder_are_named_by_id(
    command: CommandLine, run: Path, tmp_path: Path, way: dict[str, str]
) -> None:
    """As with the layouts: the rest of the training folder is the unlabeled set, and the masks' folder is known."""
    data = write_tiny_data(tmp_path / "data")
    (tmp_path / "data" / "few.txt").write_text("000\n002\n")
    content = yaml.safe_load(data.read_text())
    del content["unlabeled"]
    content["labeled"] |= way
    data.write_text(yaml.safe_dump(content))
    before = load_data_spec(data).resolve()
    assert (len(before.labeled), len(before.unlabeled)) == (2, 2)

    out = tmp_path / "next"
    finished = command("label-next", run, "--data", data, "--count", 1, "--out", out, "--device", "cpu")
    assert f"in place of its {next(iter(way))}" in finished.out
    assert f"{tmp_path / 'data' / 'masks' / 'train' / lines(out)[0]}.png" in finished.out
    assert lines(out, "labeled.txt") == [*(sample.id for sample in before.labeled), *lines(out)]
    content["labeled"] = {"images": "images/train", "masks": "masks/train", "ids": str(out / "labeled.txt")}
    data.write_text(yaml.safe_dump(content))
    after = load_data_spec(data).resolve()
    assert {sample.id for sample in after.labeled} == {sample.id for sample in before.labeled} | set(lines(out))
    assert len(after.unlabeled) == 1


def test_a_list_names_images_of_any_folder(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for folder in ("images", "masks", "more"):
        (root / folder).mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    spec_file = tmp_path / "data.yaml"
    spec_file.write_text("root: set\nclasses: [a, b]\nlabeled: {images: images, masks: masks}\n")
    form = ListForm.of_spec(load_data_spec(spec_file))
    names = ["images/x y.png", "images/x #1.png", "more/1.jpg", "../outside/2.jpg", "../outside/3 4.jpg", "more/#2.jpg"]
    images = [Path(os.path.normpath(root / name)) for name in names]
    for image in images:
        cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    samples = [Sample(image.stem, image) for image in images]
    assert [form.line(sample) for sample in samples] == [
        "x y",
        "x #1",
        "more/1.jpg masks/more/1.png",
        "../outside/2.jpg masks/outside/2.png",
        "../outside/3 4.jpg\tmasks/outside/3 4.png",
        "more/#2.jpg\tmasks/more/#2.png",
    ]
    write_list(tmp_path / "list.txt", map(form.line, samples))
    spec_file.write_text("root: set\nclasses: [a, b]\nlabeled: {images: images, masks: masks, ids: list.txt}\n")
    for sample in samples:
        mask = form.mask(sample)
        mask.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(mask), np.zeros((8, 8), np.uint8))
    read = load_data_spec(spec_file).resolve().labeled
    assert [sample.image.resolve() for sample in read] == images
    assert [sample.mask and sample.mask.resolve() for sample in read] == [form.mask(sample) for sample in samples]


@pytest.mark.parametrize("way", ["masks", "export"])
def test_a_round_with_an_annotation_file_leads_to_its_masks_and_to_new_ones(
    command: CommandLine, run: Path, tmp_path: Path, way: str
) -> None:
    data = write_tiny_data(tmp_path / "data")
    root = data.parent
    content = yaml.safe_load(data.read_text())
    content["unlabeled"] = {"images": "images/train"}
    for name in ("002", "003"):
        (root / "masks/train" / f"{name}.png").unlink()
    annotations = root / "annotations.json"
    content["labeled"] |= {"masks": "annotations.json"}
    data.write_text(yaml.safe_dump(content))
    write_coco_boxes(annotations, ["000", "001"])
    assert [sample.id for sample in load_data_spec(data).resolve().labeled] == ["000", "001"]

    out = tmp_path / "next"
    finished = command("label-next", run, "--data", data, "--count", 2, "--out", out, "--device", "cpu")
    assert finished.code == 0, finished.err
    assert f"or add it to {annotations}, put" in finished.out
    new = [f"images/train/{name}.png masks/images/train/{name}.png" for name in ("002", "003")]
    assert [*lines(out, "labeled.txt")[:2], *sorted(lines(out, "labeled.txt")[2:])] == ["000", "001", *new]

    content["labeled"]["ids"] = str(out / "labeled.txt")
    data.write_text(yaml.safe_dump(content))
    masks = [root / "masks/images/train" / f"{name}.png" for name in ("002", "003")]
    if way == "export":
        write_coco_boxes(annotations, ["000", "001", "002", "003"])
        masks = [annotations, annotations]
    for mask in masks if way == "masks" else ():
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), np.zeros((48, 64), np.uint8))
    labeled = sorted(load_data_spec(data).resolve().labeled, key=lambda sample: sample.id)
    assert [sample.id for sample in labeled] == ["000", "001", "002", "003"]
    assert [sample.mask for sample in labeled] == [annotations, annotations, *masks]


def write_coco_boxes(path: Path, names: list[str]) -> None:
    """A COCO file in which each image has a square of the second class."""
    square = [[8, 8, 24, 8, 24, 24, 8, 24]]
    one = {"category_id": 1, "segmentation": square, "area": 256, "bbox": [8, 8, 16, 16], "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": f"{name}.png", "width": 64, "height": 48} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, **one} for i in range(len(names))],
        "categories": [{"id": 1, "name": "square"}],
    }
    path.write_text(json.dumps(content))


# The page


class Page(HTMLParser):
    """What a page loads and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(values)
        elif tag not in ("meta", "rect"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_everything(command: CommandLine, run: Path, tmp_path: Path) -> None:
    command("label-next", run, "--count", 2, "--out", tmp_path, "--device", "cpu")
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.images) == 2 * 4
    assert all(image["alt"] for image in page.images)
    assert all(link.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:|//\w", re.sub(r'src="[^"]*"', "", text))
    pictures = [_decoded(image["src"] or "") for image in page.images]
    assert {picture.shape for picture in pictures} == {(48, 64, 3)}
    chosen = [row["id"] for row in rows(tmp_path) if row["chosen"] == "1"]
    assert re.search(rf"1 · {chosen[0]}</h3>", text)
    assert "prefers-color-scheme: dark" in text and "@media print" in text and "max-width: 620px" in text


def test_the_page_shows_masks_in_their_colors(command: CommandLine, run: Path, tmp_path: Path) -> None:
    command("label-next", run, "--count", 1, "--out", tmp_path, "--device", "cpu")
    (row,) = [row for row in rows(tmp_path) if row["chosen"]]
    networks = RunNetworks(run, "cpu")
    junior, senior = whole(networks, cv2.imread(row["image"])[..., ::-1].copy())
    pictures = [_decoded(image["src"] or "") for image in Page((tmp_path / "index.html").read_text()).images]
    palette = np.array(networks.labels.palette)
    for probabilities, picture in ((junior, pictures[1]), (senior, pictures[2])):
        np.testing.assert_array_equal(picture, palette[probabilities.argmax(dim=0).numpy()])
    differ = (junior.argmax(dim=0) != senior.argmax(dim=0)).numpy()
    agreeing, differing = cv2.applyColorMap(np.array([[0, 255]], np.uint8), cv2.COLORMAP_INFERNO)[0, :, ::-1]
    np.testing.assert_array_equal(pictures[3], np.where(differ[..., None], differing, agreeing))
    assert differ.mean() == pytest.approx(float(row["disagreement"]), abs=1e-6)
    assert differing.min() > 150 and agreeing.max() < 10  # bright and dark
    assert "<figcaption>disagreement: bright where they differ</figcaption>" in (tmp_path / "index.html").read_text()


def test_a_smaller_picture_shows_the_share_of_the_pixels_that_differ() -> None:
    differ = np.zeros((40, 60), np.float32)
    differ[:, ::2] = 1  # every second pixel
    differ[:20] = 1
    picture = _heat_map(differ, (20, 30))
    agreeing, half, differing = cv2.applyColorMap(np.array([[0, 128, 255]], np.uint8), cv2.COLORMAP_INFERNO)[0, :, ::-1]
    assert (picture[:10] == differing).all() and (picture[10:] == half).all()
    assert agreeing.sum() < half.sum() < differing.sum()


def _decoded(uri: str) -> np.ndarray:
    encoded = base64.b64decode(uri.partition("base64,")[2], validate=True)
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_names_are_escaped(command: CommandLine, run: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "<b>&.png"), np.full((32, 32, 3), 90, np.uint8))
    command("label-next", run, "--images", photos, "--count", 1, "--out", tmp_path / "next", "--device", "cpu")
    text = (tmp_path / "next" / "index.html").read_text()
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text


# Folders of new images, and mistakes


def test_a_folder_is_ranked_without_any_data_spec(command: CommandLine, run: Path, data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    moved.mkdir()
    for name in ("junior.safetensors", "senior.safetensors"):
        (moved / name).write_bytes((run / name).read_bytes())
    config = yaml.safe_load((run / "config.yaml").read_text())
    (moved / "config.yaml").write_text(yaml.safe_dump(config | {"data": "/gone/data.yaml"}))
    assert "/gone/data.yaml" in (refusal := command.refused("label-next", moved, "--out", tmp_path / "x"))
    assert "--data" in refusal
    photos = data.parent / "images" / "extra"
    out = tmp_path / "next"
    finished = command("label-next", moved, "--images", photos, "--count", 2, "--out", out, "--device", "cpu")
    assert finished.code == 0, finished.err
    assert set(lines(out)) <= {f"{index:03}" for index in range(6)} and len(lines(out)) == 2
    assert not (out / "labeled.txt").exists()
    assert str(out / "label-next.txt") in finished.out.splitlines()[-1]


def test_a_folder_is_ranked_without_what_is_labeled(
    command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    images = data.parent / "images"
    command("label-next", run, "--images", images, "--count", 1, "--out", tmp_path / "next", "--device", "cpu")
    assert {row["id"] for row in rows(tmp_path / "next")} == {f"extra/{index:03}" for index in range(6)}
    refusal = command.refused("label-next", run, "--images", images / "train", "--out", tmp_path / "other")
    assert str(images / "train") in refusal and "labeled" in refusal


def test_an_unreadable_image_is_named_and_left_out(command: CommandLine, run: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a", "c"):
        cv2.imwrite(str(photos / f"{name}.png"), np.full((40, 40, 3), 90, np.uint8))
    (photos / "b.jpg").write_bytes(b"no image")
    arguments = ("label-next", run, "--images", photos, "--device", "cpu", "--out")
    finished = command(*arguments, tmp_path / "next", "--count", 3)
    assert finished.code == 2
    assert "left out" in finished.err and str(photos / "b.jpg") in finished.err
    assert "1 of 3 images could not be read" in finished.err
    assert {row["id"] for row in rows(tmp_path / "next")} == {"a", "c"} and len(lines(tmp_path / "next")) == 2
    for name in ("a", "c"):
        (photos / f"{name}.png").write_bytes(b"")
    finished = command(*arguments, tmp_path / "none", "--count", 3)
    assert finished.code == 2 and "none of the 3 images could be read" in finished.err


def test_mistakes_are_told_in_one_line(command: CommandLine, run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "next"
    assert "there are 6 images" in command.refused("label-next", run, "--count", 7, "--out", out)
    assert "not a run directory" in command.refused("label-next", tmp_path, "--out", out)
    untrained = tmp_path / "untrained"
    untrained.mkdir()
    (untrained / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    assert "has no junior" in command.refused("label-next", untrained, "--out", out)
    (tmp_path / "empty").mkdir()
    assert "holds no image" in command.refused("label-next", run, "--images", tmp_path / "empty", "--out", out)
    assert "no folder" in command.refused("label-next", run, "--images", tmp_path / "nowhere", "--out", out)
    assert "no mask" in command.refused("label-next", run, "--count", 1, "--masks", tmp_path / "empty", "--out", out)
    everything_labeled = tmp_path / "data.yaml"
    content = yaml.safe_load(data.read_text()) | {"root": str(data.parent), "unlabeled": {"images": []}}
    everything_labeled.write_text(yaml.safe_dump(content))
    refusal = command.refused("label-next", run, "--data", everything_labeled, "--out", out)
    assert str(everything_labeled) in refusal and "no image is unlabeled" in refusal
    content = content | {"classes": ["a", "b", "c"], "unlabeled": {"images": "images/extra"}}
    everything_labeled.write_text(yaml.safe_dump(content))
    masks = data.parent / "masks" / "train"
    refusal = command.refused(
        "label-next", run, "--data", everything_labeled, "--count", 1, "--masks", masks, "--out", out
    )
    assert "other classes" in refusal
    assert not out.exists()


def test_a_full_folder_is_refused_unless_told(command: CommandLine, run: Path, tmp_path: Path) -> None:
    for name in ("note.txt", "comparison.json"):
        (tmp_path / name).write_text("of an earlier call, or mine")
    arguments = ("label-next", run, "--count", 1, "--out", tmp_path, "--device", "cpu")
    assert "--overwrite" in command.refused(*arguments)
    assert "comparison.json: is there, and no earlier call wrote it" in command.refused(*arguments, "--overwrite")
    assert {path.name for path in tmp_path.iterdir()} == {"note.txt", "comparison.json"}
    (tmp_path / "scores.csv").write_text("id,image,chosen,score,entropy\n")  # of an earlier call
    assert command(*arguments, "--overwrite").code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"note.txt", "index.html", "label-next.txt", "labeled.txt", "scores.csv"}
