"""Recipes: the shipped ones are valid and say what was published; overrides are typed."""

from pathlib import Path

import pytest

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.methods.registry import available_methods, method_class
from segkc_deploy.training.recipe_file import load_recipe, shipped_recipes
from segkc_deploy.training.schedule import learning_rate_factor
from segkc_deploy.validation import validate


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert recipe.method["name"] in available_methods()
    validate(method_class(recipe).Config, recipe.method, name)


def test_the_published_protocol_is_kept() -> None:
    recipe = load_recipe("segkc-dinov2-s")
    assert recipe.junior.backbone == "vit_small_patch14_dinov2"
    assert recipe.senior is not None
    assert recipe.senior.backbone == "vit_base_patch14_dinov2"
    assert recipe.crop_size == (518, 518)
    assert (recipe.batch.labeled, recipe.batch.unlabeled, recipe.schedule.epochs) == (16, 16, 60)
    optimizer = recipe.optimizer
    assert (optimizer.lr, optimizer.decoder_lr_multiplier, optimizer.weight_decay) == (5e-6, 40, 0.01)
    assert (optimizer.betas, recipe.schedule.poly_power, recipe.ema.decay) == ((0.9, 0.999), 0.9, 0.996)
    assert (recipe.weak.scale, recipe.weak.flip) == ((0.5, 2.0), 0.5)
    strong = recipe.strong
    assert (strong.brightness, strong.contrast, strong.saturation, strong.hue) == (0.5, 0.5, 0.5, 0.25)
    assert (strong.jitter_probability, strong.grayscale_probability, strong.blur_probability) == (0.8, 0.2, 0.5)
    assert (strong.blur_sigma, strong.cutmix_probability, strong.cutmix_area) == ((0.1, 2.0), 0.5, (0.02, 0.4))
    assert strong.cutmix_ratio == pytest.approx((0.3, 3.33), rel=2e-3)
    assert recipe.method["confidence_threshold"] == 0.95


@pytest.mark.parametrize(("text", "expected"), [("1e-4", 1e-4), ("0.5", 0.5), ("3", 3)])
def test_overrides_are_numbers_in_any_notation(text: str, expected: float) -> None:
    assert load_recipe("segkc-dinov2-s", [f"optimizer.lr={text}"]).optimizer.lr == expected


def test_overrides_reach_sections_that_the_file_leaves_out(tmp_path: Path) -> None:
    assert load_recipe("segkc-dinov2-s", ["weak.flip=0"]).weak.flip == 0
    assert load_recipe("segkc-dinov2-s", ["crop_size=[280, 420]"]).crop_size == (280, 420)
    with pytest.raises(ConfigError, match="'name' is a value, not a section"):
        load_recipe("segkc-dinov2-s", ["name.first=x"])


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    factors = [learning_rate_factor(step, 100, 10, 0.9) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx((1 - 9 / 100) ** 0.9)
    assert factors[50] == pytest.approx(0.5**0.9)
    assert factors[99] == pytest.approx(0.01**0.9)


def test_a_base_is_changed_section_by_section(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: segkc-cpu\nname: mine\nmethod: {weights: {cps_senior: 0.25}}\nema: {decay: 0.5}\n")
    (tmp_path / "heir.yaml").write_text("base: mine.yaml\nname: heir\nschedule: {steps: 7}\n")
    heir, base = load_recipe(str(tmp_path / "heir.yaml")), load_recipe("segkc-cpu")
    assert (heir.name, heir.ema.decay, heir.schedule.steps) == ("heir", 0.5, 7)
    assert heir.method == base.method | {"weights": {"cps_senior": 0.25}}
    assert (heir.optimizer, heir.senior) == (base.optimizer, base.senior)


def test_another_method_inherits_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: segkc-cpu\nname: mine\nsenior: null\nmethod: {name: supervised}\n")
    recipe = load_recipe(str(path))
    assert (recipe.method, recipe.senior) == ({"name": "supervised"}, None)


def test_bases_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: mine.yaml\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is the base of itself"):
        load_recipe(str(path))
    (tmp_path / "sub").mkdir()
    path.write_text("base: sub/other.yaml\n")
    (tmp_path / "sub" / "other.yaml").write_text("base: ../mine.yaml\n")
    with pytest.raises(ConfigError, match="is the base of itself"):
        load_recipe(str(path))
    path.write_text("base: [a]\n")
    with pytest.raises(ConfigError, match="base should be a recipe's name"):
        load_recipe(str(path))
    path.write_text("base: segkc-cpuu\n")
    with pytest.raises(ConfigError, match="did you mean 'segkc-cpu'"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=.inf", "optimizer.lr"),
        ("relation.feature=.nan", "relation.feature"),
        ("strong.cutmix_area=[0.5, 3]", "shares of the image's area"),
        ("strong.blur_sigma=[0.1, .inf]", "blur_sigma"),
    ],
)
def test_numbers_that_no_training_can_take(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("segkc-dinov2-s", [override])


def test_a_bare_off_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: segkc-cpu\nname: mine\nstrong: {entropymix: {mode: off}}\n")
    assert load_recipe(str(path)).strong.entropymix.mode == "off"
    assert load_recipe("segkc-cpu", ["strong.entropymix.mode=off"]).strong.entropymix.mode == "off"


@pytest.mark.parametrize(
    ("schedule", "decay"),
    [("steps: 5", 0), ("steps: 100", 0.9), ("steps: 1000", 0.99), ("steps: 10000", 0.996), ("epochs: 60", 0.996)],
)
def test_the_ema_averages_over_a_tenth_of_the_schedule(tmp_path: Path, schedule: str, decay: float) -> None:
    path = tmp_path / "mine.yaml"
    other = "epochs" if "steps" in schedule else "steps"
    path.write_text(f"base: own-data-cpu\nname: mine\nschedule: {{{schedule}, {other}: null}}\n")
    assert load_recipe(str(path)).ema_decay == pytest.approx(decay)
    assert load_recipe(str(path), ["ema.decay=0.5"]).ema_decay == 0.5
