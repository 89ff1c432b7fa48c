"""The shipped recipes: their protocols are the published ones, and each builds its networks and takes a step."""

import json
import math
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from command_line import CommandLine

from segkc_deploy.data.partitions import partitions
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.labels import Labels
from segkc_deploy.training.job import _check_sets
from segkc_deploy.training.methods.base import Batch
from segkc_deploy.training.methods.registry import build_method, with_method_defaults
from segkc_deploy.training.published import Published, published
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.recipe_file import load_recipe, shipped_recipes
from segkc_deploy.validation import validate

METHODS = ("supervised", "fixmatch", "unimatch-v2", "cps", "cps-hetero", "segkc", "segkc-speed")
ABLATIONS = ("no-j2s", "no-s2j", "no-feature", "no-prediction", "no-gate", "no-ema")
SMALL, BASE = "vit_small_patch14_dinov2", "vit_base_patch14_dinov2"

# UniMatch V2 (arXiv 2410.10777), its configurations and code: crop, images of each kind a step, epochs.
PROTOCOLS = {"voc": (518, 16, 60), "cityscapes": (798, 8, 180), "ade20k": (518, 8, 60), "coco": (518, 16, 20)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", PROTOCOLS)
def test_the_protocol_is_the_published_one(data: str, method: str) -> None:
    recipe = load_recipe(f"{method}-dinov2-s-{data}")
    crop, batch, epochs = PROTOCOLS[data]
    assert recipe.crop_size == (crop, crop)
    assert (recipe.batch.labeled, recipe.batch.unlabeled, recipe.batch.accumulation) == (batch, batch, 1)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_steps, recipe.schedule.poly_power) == (epochs, 0, 0.9)
    optimizer = recipe.optimizer
    assert (optimizer.lr, optimizer.lr_at_batch, optimizer.decoder_lr_multiplier) == (5e-6, batch, 40)
    assert (optimizer.weight_decay, optimizer.betas, optimizer.clip_norm) == (0.01, (0.9, 0.999), None)
    assert (recipe.weak.scale, recipe.weak.flip) == ((0.5, 2.0), 0.5)
    strong = recipe.strong
    assert (strong.brightness, strong.contrast, strong.saturation, strong.hue) == (0.5, 0.5, 0.5, 0.25)
    assert (strong.jitter_probability, strong.grayscale_probability) == (0.8, 0.2)
    assert (strong.blur_probability, strong.blur_sigma) == (0.5, (0.1, 2.0))
    assert (strong.cutmix_probability, strong.cutmix_area) == (0.5, (0.02, 0.4))
    assert strong.cutmix_ratio == pytest.approx((0.3, 3.33), rel=2e-3)
    assert recipe.ema.decay == 0.996

    hard, validation = recipe.supervision, recipe.validation
    if data == "cityscapes":
        assert (hard.loss, hard.ohem_threshold, hard.ohem_min_pixels) == ("ohem", 0.7, 200_000)
        assert (validation.window, validation.stride, validation.size) == ((798, 798), (532, 532), None)
    else:
        assert hard.loss == "ce"
        assert (validation.window, validation.stride, validation.size) == (None, None, None)  # original size


@pytest.mark.parametrize("data", PROTOCOLS)
def test_each_method_has_its_networks_and_published_loss(data: str) -> None:
    seniors = {"supervised": None, "fixmatch": None, "unimatch-v2": None, "cps": SMALL}
    views = {"supervised": 0, "fixmatch": 1}
    for method in METHODS:
        recipe = with_method_defaults(load_recipe(f"{method}-dinov2-s-{data}"))
        assert (recipe.junior.backbone, recipe.junior.decoder, recipe.junior.pretrained) == (SMALL, "dpt", True)
        assert (recipe.senior.backbone if recipe.senior else None) == seniors.get(method, BASE), method
        assert recipe.method["name"] == method.removesuffix("-hetero").removesuffix("-speed")
        assert recipe.method.get("strong_views", 0) == views.get(method, 2), method
        assert recipe.method.get("confidence_threshold", 0.95) == 0.95
        weights = recipe.method.get("weights", {})
        if method in ("fixmatch", "unimatch-v2"):
            assert weights == {"supervised_junior": 0.5, "pseudo_label_junior": 0.5}  # (loss_x + loss_u) / 2
        is_speed = method == "segkc-speed"
        assert (recipe.strong.entropymix.mode == "after-cutmix") == is_speed
        assert recipe.relation.is_on == is_speed


def _method_settings(name: str) -> dict[str, object]:
    method = dict(with_method_defaults(load_recipe(name)).method)
    return {key: value for key, value in method.items() if key != "weights"} | method["weights"]


@pytest.mark.parametrize(
    ("ablation", "changed"),
    [
        ("no-j2s", {"feature_junior_to_senior": False, "prediction_junior_to_senior": 0}),
        ("no-s2j", {"feature_senior_to_junior": 0, "prediction_senior_to_junior": 0}),
        ("no-feature", {"feature_junior_to_senior": False, "feature_senior_to_junior": 0}),
        ("no-prediction", {"prediction_junior_to_senior": 0, "prediction_senior_to_junior": 0}),
        ("no-gate", {"gate": "none"}),
        ("no-ema", {"labels_from_ema": False}),
    ],
)
def test_an_ablation_switches_one_thing_off(ablation: str, changed: dict[str, object]) -> None:
    whole = _method_settings("segkc-dinov2-s-voc")
    assert all(whole[key] != value for key, value in changed.items())
    assert _method_settings(f"segkc-{ablation}-dinov2-s-voc") == whole | changed


def test_every_recipe_that_is_asked_for_ships_and_no_other_for_a_data_set() -> None:
    wanted = {f"{method}-dinov2-s-{data}" for method in METHODS for data in PROTOCOLS}
    wanted |= {f"segkc-{name}-dinov2-s-voc" for name in ABLATIONS} | {"segkc-convnext-t-voc", "segkc-resnet50-voc"}
    assert {name for name in shipped_recipes() if name.endswith(tuple(PROTOCOLS))} == wanted
    assert {"own-data-8gb", "own-data-16gb", "own-data-24gb", "segkc-dinov2-s"} <= set(shipped_recipes())


@pytest.mark.parametrize("name", ["own-data-8gb", "own-data-16gb", "own-data-24gb"])
def test_own_data_needs_no_epochs_and_splits_its_batch(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.precision == "bf16"
    assert recipe.schedule.steps
    assert recipe.batch.accumulation > 1
    assert recipe.batch.unlabeled // recipe.batch.accumulation >= 2  # CutMix mixes two images of a pass
    assert all(side % 14 == 0 for side in recipe.crop_size)


# --- One step each

#: timm's networks for tests: the same kinds as the real ones, with some ten thousand weights.
_TINY = {"vit": "test_vit", "convnext": "test_convnext"} | dict.fromkeys(
    ("resnet", "mobilenetv4", "tf_efficientnet_lite"), "test_resnet"
)


def _reduced(name: str, keep_backbones: bool, side: int) -> Recipe:
    recipe = load_recipe(name)
    overrides = [f"crop_size=[{side}, {side}]", "batch.labeled=2", "batch.unlabeled=2", "batch.accumulation=1"]
    for role, spec in (("junior", recipe.junior), ("senior", recipe.senior)):
        if spec is not None:
            overrides.append(f"{role}.pretrained=false")
            kind = next(kind for kind in _TINY if spec.backbone.startswith(kind))
            overrides += [] if keep_backbones else [f"{role}.backbone={_TINY[kind]}"]
    return load_recipe(name, overrides)


def _random_batch(recipe: Recipe, classes: int, views: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = (2, 3, *recipe.crop_size)
    mask = torch.randint(0, classes, (2, *recipe.crop_size), generator=generator)
    names = ("weak", *(f"strong_{number}" for number in range(1, views + 1)))
    unlabeled = {name: torch.rand(images, generator=generator) for name in names}
    ignored = torch.zeros(2, *recipe.crop_size, dtype=torch.bool)
    return Batch(
        {"image": torch.rand(images, generator=generator), "mask": mask},
        unlabeled | {"ignored": ignored} if views else None,
    )


def _takes_a_step(recipe: Recipe) -> None:
    torch.manual_seed(0)
    method = build_method(recipe, num_classes=3, ignore_index=255).train()
    before = {name: network.state_dict() for name, network in method.networks().items()}
    before = {name: {key: value.clone() for key, value in state.items()} for name, state in before.items()}
    optimizer = torch.optim.AdamW(method.online.parameters(), lr=1e-3)
    total = method(_random_batch(recipe, 3, method.strong_views), 0).total()
    assert math.isfinite(total.item())
    total.backward()
    optimizer.step()
    method.update_ema(0)
    assert set(before) == {
        role + copy for role in ("junior", "senior") if getattr(recipe, role) for copy in ("", "_ema")
    }
    for name, network in method.networks().items():
        changed = [key for key, value in network.state_dict().items() if not torch.equal(value, before[name][key])]
        assert any(key.startswith("backbone") for key in changed), name
        assert any(key.startswith("decoder") for key in changed), name


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_takes_a_step(name: str) -> None:
    _takes_a_step(_reduced(name, keep_backbones=False, side=64))


def test_a_recipe_with_its_own_networks_takes_a_step() -> None:
    _takes_a_step(_reduced("unimatch-v2-dinov2-s-voc", keep_backbones=True, side=56))


# --- Published numbers


def test_published_numbers_are_the_table_s() -> None:
    table = {  # method, source: numbers by partition; typed from the papers' tables once more
        ("voc", "SegKC", 24.8): [None, None, 87.1, 89.2, 89.8],
        ("voc", "UniMatch V2", 24.8): [79.0, 85.5, 85.9, 86.7, 87.8],
        ("voc", "UniMatch V2", 97.5): [86.3, 87.9, 88.9, 90.0, 90.8],
        ("voc", "UniMatch", None): [75.2, 77.2, 78.8, 79.9, 81.2],
        ("voc", "AllSpark", None): [76.1, 78.4, 79.8, 80.8, 82.1],
        ("voc", "SPEED", None): [75.16, None, None, None, None],
        ("cityscapes", "SegKC", 24.8): [None, 81.2, 82.4, 83.4, 83.6],
        ("cityscapes", "UniMatch V2", 24.8): [None, 80.6, 81.9, 82.4, 82.6],
        ("cityscapes", "UniMatch V2", 97.5): [None, 83.6, 84.3, 84.5, 85.1],
        ("cityscapes", "UniMatch", None): [None, 76.6, 77.9, 79.2, 79.5],
        ("cityscapes", "AllSpark", None): [None, 78.3, 79.2, 80.6, 81.4],
        ("cityscapes", "SPEED", None): [None, 76.98, None, None, None],
        ("ade20k", "UniMatch V2", 97.5): [38.7, 45.0, 46.7, 49.8],
        ("ade20k", "UniMatch", None): [21.6, 28.1, 31.5, 34.6],
        ("coco", "UniMatch V2", 97.5): [47.9, 55.8, 58.7, 60.4, 63.3],
        ("coco", "UniMatch", None): [31.9, 38.9, 44.4, 48.2, 49.8],
        ("coco", "AllSpark", None): [34.1, 41.7, 45.5, 49.6, None],
    }
    found = {}
    for key, data_set in published().data_sets.items():
        names = data_set.partitions[: 5 if key != "ade20k" else 4]
        for row in data_set.rows:
            found[(key, row.method, row.params_m)] = [row.miou.get(name) for name in names]
    assert found == table
    (second_hand,) = [row for row in published().data_sets["cityscapes"].rows if row.method == "SegKC"]
    assert "secondary" in second_hand.note


def test_published_partitions_are_those_that_ship() -> None:
    for data_set in published().data_sets.values():
        shipped = list(partitions(data_set.layout))
        assert not shipped or data_set.partitions == shipped


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"source": "nobody"}, "data_sets.voc: A names the source 'nobody', which is missing"),
        ({"miou": {"1/3": 50.0}}, "data_sets.voc: A has the unknown partition '1/3'"),
        ({"miou": {"92": 0.5, "183": 101}}, "less than or equal to 100"),
    ],
)
def test_a_slip_in_published_numbers_is_told(change: dict[str, object], expected: str) -> None:
    row = {"method": "A", "networks": "N", "source": "s", "miou": {"92": 50.0}} | change
    voc = {"title": "VOC", "layout": "voc", "partitions": ["92", "183"], "rows": [row]}
    sources = {"s": {"title": "S", "url": "https://x.org"}}
    with pytest.raises(ConfigError, match=expected):
        validate(Published, {"sources": sources, "data_sets": {"voc": voc}}, "published.yaml")


# --- The command


def test_the_list_fits_100_columns_and_has_a_line_for_each_recipe(command: CommandLine) -> None:
    finished = command("recipes")
    assert (finished.code, finished.err) == (0, "")
    head, *lines = finished.out.splitlines()
    assert head.split() == ["name", "method", "networks", "data", "crop", "batch", "schedule"]
    assert [line.split()[0] for line in lines] == shipped_recipes()
    assert max(map(len, finished.out.splitlines())) <= 100
    by_name = {line.split()[0]: line.split()[1:] for line in lines}
    assert by_name["segkc-dinov2-s-cityscapes"] == [
        "segkc", "dinov2-s+dinov2-b", "cityscapes", "798", "8+8", "180", "epochs",
    ]  # fmt: skip
    assert by_name["own-data-8gb"] == ["segkc", "dinov2-s+dinov2-b", "any", "308", "8+8", "10k", "steps"]
    assert by_name["own-data-cpu"] == ["segkc", "lite0+lite2", "any", "192", "4+4", "1k", "steps"]
    assert by_name["supervised-cpu"] == ["supervised", "mnv4-s-050", "any", "192x256", "4+4", "900", "steps"]


def test_one_recipe_is_shown_as_a_file_that_gives_the_same_recipe(command: CommandLine, tmp_path: Path) -> None:
    finished = command("recipes", "segkc-dinov2-s-cityscapes")
    assert finished.code == 0
    (tmp_path / "mine.yaml").write_text(finished.out, encoding="utf-8")
    again = load_recipe(str(tmp_path / "mine.yaml"))
    assert again == with_method_defaults(load_recipe("segkc-dinov2-s-cityscapes"))
    rows = [line.split() for line in finished.out.splitlines() if line.startswith("#   ")]
    assert rows[0] == ["#", "1/16", "1/8", "1/4", "1/2"]
    assert rows[1][:6] == ["#", "SegKC", "24.8M", "81.2", "82.4", "83.4"]
    assert "arXiv 2503.10693, from a secondary source" in finished.out
    assert "1/30" not in finished.out  # nothing is published there
    assert "# No published number" in command("recipes", "segkc-cpu").out


def test_json_holds_recipes_and_rows(command: CommandLine) -> None:
    listed = json.loads(command("recipes", "--json").out)
    assert [one["recipe"]["name"] for one in listed] == shipped_recipes()
    one = json.loads(command("recipes", "segkc-no-gate-dinov2-s-voc", "--json").out)
    assert one["data_set"] == "voc"
    assert one["recipe"]["method"]["gate"] == "none"
    assert one["compare_with"][0]["miou"] == {"366": 87.1, "732": 89.2, "1464": 89.8}
    assert one["compare_with"][0]["source"]["url"] == "https://arxiv.org/abs/2503.10693"
    assert yaml.safe_load(command("recipes", "segkc-cpu").out)["name"] == "segkc-cpu"


def test_an_unknown_recipe_is_one_line(command: CommandLine) -> None:
    assert "did you mean 'segkc-dinov2-s-voc'?" in command.refused("recipes", "segkc-dinov2-s-vok")


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("own-data")])
def test_what_the_error_for_missing_unlabeled_images_names_trains_on_the_labels_alone(name: str) -> None:
    labels = Labels(names=("a", "b"), palette=((0, 0, 0), (1, 1, 1)))
    sets = ImageSets(MaskCoding(labels), labeled=(Sample("1", Path("1.png"), Path("1.png")),))
    with pytest.raises(DataError, match="no unlabeled images") as refused:
        _check_sets(sets, Path("data.yaml"), needs_unlabeled=True)
    arguments = shlex.split(str(refused.value).rpartition("alone: ")[2])
    assert arguments[::2] == ["-o", "-o"]
    recipe = load_recipe(name, arguments[1::2])
    assert (recipe.senior, recipe.method) == (None, {"name": "supervised"})
