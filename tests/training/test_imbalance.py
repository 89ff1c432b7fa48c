"""Losses, weights and crops for rare classes, each against an independent float64 formula."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import CommandLine
from data_helpers import write_image, write_mask, write_spec
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.census import Census, count_classes
from segkc_deploy.data.check import check
from segkc_deploy.data.check_rare import rare_classes
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.set_report import SetReport, Sizes
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.data.augment import weak_view
from segkc_deploy.training.data.datasets import LabeledDataset
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.recipe import WeakAugmentation
from segkc_deploy.training.recipe_file import load_recipe, with_overrides
from segkc_deploy.training.terms.class_weights import class_weights
from segkc_deploy.training.terms.losses import cross_entropy
from segkc_deploy.training.terms.region_losses import dice_loss, lovasz_loss, weighted_cross_entropy

IGNORE = 255
RNG = np.random.default_rng(3)
LOGITS = RNG.normal(0, 2, (2, 4, 9, 7))
MASK = RNG.integers(0, 3, (2, 9, 7))  # class 3 is absent
MASK[RNG.random(MASK.shape) < 0.2] = IGNORE
PIXELS = np.moveaxis(LOGITS, 1, -1)[MASK != IGNORE]
TRUE = MASK[MASK != IGNORE]
PROBABILITY = np.exp(PIXELS) / np.exp(PIXELS).sum(axis=1, keepdims=True)
WEIGHTS = np.array([0.5, 3.0, 1.25, 9.0])
TENSORS = (torch.tensor(LOGITS, dtype=torch.float32), torch.from_numpy(MASK))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_weighted_cross_entropy_and_focal_loss(gamma: float) -> None:
    own = PROBABILITY[np.arange(len(TRUE)), TRUE]
    expected = (WEIGHTS[TRUE] * (1 - own) ** gamma * -np.log(own)).sum() / WEIGHTS[TRUE].sum()
    loss = weighted_cross_entropy(*TENSORS, IGNORE, torch.tensor(WEIGHTS, dtype=torch.float32), gamma)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_weights_of_one_are_plain_cross_entropy() -> None:
    loss = weighted_cross_entropy(*TENSORS, IGNORE, torch.ones(4))
    assert float(loss) == pytest.approx(float(cross_entropy(*TENSORS, IGNORE)), rel=1e-6)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_loss(smooth: float) -> None:
    losses = []
    for index in np.unique(TRUE):
        true = (index == TRUE).astype(np.float64)
        overlap, sizes = (PROBABILITY[:, index] * true).sum(), PROBABILITY[:, index].sum() + true.sum()
        losses.append(1 - (2 * overlap + smooth) / (sizes + smooth))
    assert float(dice_loss(*TENSORS, IGNORE, smooth)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_lovasz_loss() -> None:
    """The extension as an integral over the level sets of the errors, not by the sorted gradient."""
    losses = []
    for index in np.unique(TRUE):
        true = index == TRUE
        errors = np.abs(true - PROBABILITY[:, index])
        levels = np.unique(np.concatenate([[0.0], errors]))
        integral = 0.0
        for low, high in itertools.pairwise(levels):
            wrong = errors > low  # the set of mispredicted pixels at this level
            integral += (high - low) * wrong.sum() / (true | wrong).sum()
        losses.append(integral)
    assert float(lovasz_loss(*TENSORS, IGNORE)) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("loss", [dice_loss, lovasz_loss, lambda *given: weighted_cross_entropy(*given, torch.ones(4))])
def test_without_a_labeled_pixel_the_loss_is_zero_and_has_a_gradient(loss) -> None:
    logits = TENSORS[0].clone().requires_grad_()
    value = loss(logits, torch.full_like(TENSORS[1], IGNORE), IGNORE)
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("loss", [dice_loss, lovasz_loss])
def test_a_perfect_prediction_costs_nothing(loss) -> None:
    mask = torch.from_numpy(np.where(MASK == IGNORE, IGNORE, MASK))
    logits = 60.0 * torch.nn.functional.one_hot(mask.clamp(max=3), 4).permute(0, 3, 1, 2).float()
    assert float(loss(logits, mask, IGNORE)) == pytest.approx(0, abs=1e-6)


CENSUS = Census(np.array([[60, 20, 0, 0], [10, 0, 10, 0], [100, 0, 0, 0]], np.int64))


def test_inverse_and_median_frequency_weights() -> None:
    names = ["a", "b", "c", "d"]
    inverse = class_weights("inverse", names, CENSUS, 1000)
    np.testing.assert_allclose(inverse, [200 / (4 * 170), 200 / (4 * 20), 200 / (4 * 10), 1])
    frequencies = np.array([170 / 200, 20 / 80, 10 / 20])
    median = class_weights("median-frequency", names, CENSUS, 1000)
    np.testing.assert_allclose(median, [*(0.5 / frequencies), 1])
    assert class_weights("inverse", names, CENSUS, 3.0).max() == 3.0


def test_log_weights_are_bounded_by_themselves() -> None:
    """ENet's rule, in the unit of the most frequent class."""
    rarity = 1 / np.log(1.02 + np.array([170, 20, 10]) / 200)
    found = class_weights("log", ["a", "b", "c", "d"], CENSUS, 1000)
    np.testing.assert_allclose(found, [*(rarity / rarity[0]), 1])
    one_pixel = Census(np.array([[10**9, 1]], np.int64))
    assert class_weights("log", ["a", "b"], one_pixel, 1000).max() == pytest.approx(np.log(2.02) / np.log(1.02))


def test_given_weights_go_by_order_or_by_name() -> None:
    names = ["a", "b", "c"]
    assert class_weights([1, 2, 3.5], names, None, 1).tolist() == [1, 2, 3.5]
    assert class_weights({"b": 4}, names, None, 1).tolist() == [1, 4, 1]
    assert class_weights("none", names, None, 1).tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match="2 weights for 3 classes"):
        class_weights([1, 2], names, None, 1)
    with pytest.raises(ConfigError, match="'e' is no class; there are a, b, c"):
        class_weights({"e": 4}, names, None, 1)


def test_weights_go_with_ce_and_focal_only() -> None:
    with pytest.raises(ValueError, match="class_weights go with loss ce or focal"):
        tiny_recipe(supervision={"loss": "ohem", "class_weights": "inverse"})


def _sets(root: Path) -> ImageSets:
    for index in range(4):
        write_image(root / f"images/{index}.png", seed=index, height=64, width=96)
        mask = np.zeros((64, 96), np.uint8)
        mask[:, 40:] = 1
        if index == 3:
            mask[50:52, 90:92] = 2
        write_mask(root / f"masks/{index}.png", mask)
    path = write_spec(root, "classes: [a, b, rare]\nlabeled: {images: images, masks: masks}\n")
    return load_data_spec(path).resolve()


def test_classes_are_counted_by_image(tmp_path: Path) -> None:
    census = count_classes((sets := _sets(tmp_path)).labeled, sets)
    assert census.pixels.tolist() == [[2560, 3584, 0]] * 3 + [[2560, 3580, 4]]
    assert census.rare(0.01) == [2]
    assert census.rare(0.5) == [0, 2]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rare_class_crops_hold_a_rare_class_as_often_as_asked(tmp_path: Path, share: float) -> None:
    recipe = tiny_recipe(crop_size=(16, 16), weak={"scale": (1.0, 1.0), "rare_class_crops": share})
    sets = _sets(tmp_path)
    dataset = LabeledDataset(sets, recipe, count_classes(sets.labeled, sets))
    holds = [bool((dataset.example(draw)["mask"] == 2).any()) for draw in range(200)]
    assert np.mean(holds) == pytest.approx(share, abs=0.1)
    again = dataset.example(7)
    assert torch.equal(again["image"], dataset.example(7)["image"])


def test_crops_of_rare_classes_need_a_rare_class(command: CommandLine, tmp_path: Path) -> None:
    """Refused before anything is written; where there is one, the log names it."""
    data = write_tiny_data(tmp_path / "data")
    sets = load_data_spec(data).resolve()
    census = count_classes(sets.labeled, sets)
    rarest = int(census.shares.argmin())
    share = census.shares[rarest]
    assert 0 < share < min(np.delete(census.shares, rarest))
    for limit in (share / 2, share * 1.01):
        weak = {"rare_class_crops": 0.5, "rare_class_share": float(limit)}
        recipe = write_recipe(tmp_path / "r.yaml", tiny_recipe(weak=weak, schedule={"steps": 1}))
        finished = command("train", "--data", data, "--recipe", recipe, "--out", tmp_path / "run", "--device", "cpu")
        assert finished.code == (2 if limit < share else 0)
        if limit < share:
            assert f"the rarest, {sets.labels.names[rarest]}, has {share:.1%} of the labeled pixels" in finished.err
            assert not (tmp_path / "run").exists()
    images = np.count_nonzero(census.pixels[:, rarest])
    line = f"rare classes, for 50% of the labeled crops: {sets.labels.names[rarest]} (in {images} images)"
    assert line in (tmp_path / "run" / "train.log").read_text()


def test_a_crop_that_is_to_hold_a_class_does_so_at_every_border() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((40, 50, 3), np.uint8)
    for row, column in ((0, 0), (0, 49), (39, 0), (39, 49), (20, 25)):
        mask = np.zeros((40, 50), np.uint8)
        mask[row, column] = 2
        for _ in range(20):
            _, crop = weak_view(image, mask, (16, 24), 255, WeakAugmentation(scale=(1.0, 1.0)), rng, 2)
            assert crop.shape == (16, 24)
            assert (crop == 2).any()


def test_the_method_adds_up_what_the_recipe_names() -> None:
    supervision = {"loss": "focal", "focal_gamma": 1.5, "dice": 0.7, "lovasz": 0.3}
    method = build_method(tiny_recipe(supervision=supervision), 4, IGNORE)
    weights = torch.tensor(WEIGHTS, dtype=torch.float32)
    method.set_class_weights(weights)
    expected = weighted_cross_entropy(*TENSORS, IGNORE, weights, 1.5)
    expected = expected + 0.7 * dice_loss(*TENSORS, IGNORE) + 0.3 * lovasz_loss(*TENSORS, IGNORE)
    assert float(method.supervised_loss(*TENSORS)) == pytest.approx(float(expected), rel=1e-6)
    assert "class_weights" not in method.state_dict()


def test_check_warns_of_a_rare_class_and_names_the_settings(tmp_path: Path) -> None:
    (finding,) = [one for one in check(_sets(tmp_path), workers=1).findings if one.kind == "rare-class"]
    assert finding.level == "warning"
    assert "rare (0.02%)" in finding.message
    recipe = tiny_recipe()
    weights = ("supervision.class_weights=log", "supervision.largest_class_weight=5")
    for setting in (*weights, "supervision.dice=1", "weak.rare_class_crops=0.5"):
        assert f"-o {setting}" in finding.message
        recipe = with_overrides(recipe, [setting], "check")
    # Four pixels of 96 x 64 ones are a small object.
    for setting in ("weak.scale=[1,3]", "validation.size=[128,192]"):
        assert f"-o {setting}" in finding.message
        recipe = with_overrides(recipe, [setting], "check")
    assert recipe.validation.size == (128, 192)


@pytest.mark.parametrize("recipe", ["own-data-cpu", "own-data-8gb", "segkc-cpu"])
def test_the_settings_that_check_names_go_with_the_recipes_for_own_images(tmp_path: Path, recipe: str) -> None:
    (finding,) = [one for one in check(_sets(tmp_path), workers=1).findings if one.kind == "rare-class"]
    settings = re.findall(r"-o (\S+\w\]?)", finding.message)
    assert len(settings) == 6
    changed = load_recipe(recipe, [*settings, "weak.flip=0"])
    assert (changed.supervision.dice, changed.weak.scale, changed.validation.size) == (1, (1, 3), (128, 192))


def test_a_rare_class_of_large_objects_needs_no_larger_images() -> None:
    sizes = Sizes((1000, 1000), (1000, 1000), (1000, 1000), 1)
    report = SetReport("labeled", 100, 100, sizes, (99_000_000, 400_000), (100, 2), 0)
    message = rare_classes(report, ("a", "b"))
    assert "b (0.40%)" in message
    assert "validation.size" not in message


def test_no_input_is_named_that_no_gpu_takes() -> None:
    sizes = {side: Sizes((side, side), (side, side), (side, side), 1) for side in (1024, 3000)}
    pixels = {side: (side * side - 100, 100) for side in sizes}
    told = {
        side: rare_classes(SetReport("labeled", 1, 1, sizes[side], pixels[side], (1, 1), 0), ("ground", "crack"))
        for side in sizes
    }
    assert "-o weak.scale=[1,3] -o validation.size=[2048,2048]" in told[1024]
    assert "crack" in told[3000] and "validation.size" not in told[3000]
    assert not rare_classes(SetReport("labeled", 0, 0, None, (0, 0), (0, 0), 0), ("a", "b"))
