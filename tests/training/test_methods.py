"""The methods that SegKC is compared with, and what joins them by configuration: terms, teachers, gradients."""

import importlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_segkc import batch, learns
from tiny_data import tiny_recipe

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.data.cutmix import cutmix_boxes
from segkc_deploy.training.methods import registry
from segkc_deploy.training.methods.base import Batch, Method
from segkc_deploy.training.methods.registry import available_methods, build_method

RESNET = {"backbone": "resnet10t", "decoder_channels": 16}
MOBILENET = {"backbone": "mobilenetv4_conv_small_035", "decoder_channels": 16}


def make(name: str, senior: object = None, recipe: dict[str, object] | None = None, **settings: object) -> Method:
    torch.manual_seed(0)
    method = {"name": name, **settings}
    changes = {"senior": senior, "method": method, **(recipe or {})}
    return build_method(tiny_recipe(**changes), num_classes=3, ignore_index=255).train()


def answering(method: Method, role: str, answer: float) -> None:
    """Make the EMA network of `role` answer class 2 everywhere, with this logit against 0."""
    classifier = method.ema.get_submodule(f"{role}.decoder.classifier")
    assert isinstance(classifier, torch.nn.Conv2d)
    assert classifier.bias is not None
    classifier.weight.data.zero_()
    classifier.bias.data.copy_(torch.tensor([0.0, 0.0, answer]))


def loss_against_class_2(junior: torch.nn.Module, data: Batch) -> float:
    """The cross entropy against class 2 on the first strong view, in float64 NumPy, by its valid pixels."""
    assert data.unlabeled is not None
    images = torch.cat([data.labeled["image"], data.unlabeled["strong_1"]])
    logits = junior(images)[2:].detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    valid = ~data.unlabeled["ignored"].numpy()
    return float((-log_p[:, 2] * valid).sum() / valid.sum())


def enlarged_by_opencv(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Enlarge images (N, 3, H, W) bilinearly to `size` (height, width)."""
    enlarged = [cv2.resize(image.permute(1, 2, 0).numpy(), size[::-1]) for image in images]
    return torch.from_numpy(np.stack(enlarged)).permute(0, 3, 1, 2)


def pasted(values: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the values of two images, (2, H, W) or (2, C, H, W), each with those of the other inside its boxes."""
    return np.where(boxes if values.ndim == 3 else boxes[:, None], values[[1, 0]], values)


def test_these_methods_are_there() -> None:
    assert available_methods() == ["cps", "fixmatch", "segkc", "supervised", "unimatch-v2"]


@pytest.mark.parametrize(
    ("name", "senior", "terms"),
    [
        ("supervised", None, {"supervised_junior"}),
        ("fixmatch", None, {"supervised_junior", "pseudo_label_junior"}),
        ("unimatch-v2", None, {"supervised_junior", "pseudo_label_junior"}),
        ("cps", MOBILENET, {"supervised_junior", "supervised_senior", "cps_junior", "cps_senior"}),
        ("cps", RESNET, {"supervised_junior", "supervised_senior", "cps_junior", "cps_senior"}),
    ],
)
def test_terms_of_each_method(name: str, senior: object, terms: set[str]) -> None:
    method = make(name, senior)
    output = method(batch(), step=0)
    assert set(output.terms) == terms
    assert all(torch.isfinite(term) for term in output.terms.values())
    assert set(method.networks()) == ({"junior", "junior_ema"} | ({"senior", "senior_ema"} if senior else set()))


def test_fixmatch_learns_its_own_averages_labels() -> None:
    """The average is made to answer class 2 everywhere: the term is the loss against class 2 on the strong view."""
    weights = {"supervised_junior": 0, "pseudo_label_junior": 1}
    recipe: dict[str, object] = {"strong": {"cutmix_probability": 0}}
    method = make("fixmatch", recipe=recipe, weights=weights, confidence_threshold=0.0)
    answering(method, "junior", 9.0)
    data = batch()
    output = method(data, 0)
    assert set(output.terms) == {"pseudo_label_junior"}
    junior = make("fixmatch").online.get_submodule("junior")
    assert output.total().item() == pytest.approx(loss_against_class_2(junior, data), rel=1e-4)
    output.total().backward()
    assert learns(method.online)
    assert not learns(method.ema)


@pytest.mark.parametrize(
    ("junior", "senior"),
    [
        ("test_vit", "vit_tiny_patch16_224"),  # as published: two ViTs of different width
        ("test_vit", "vit_small_patch8_224"),  # and of different grids
        ("mobilenetv4_conv_small_035", "test_vit"),
        ("test_vit", "resnet10t"),
    ],
)
def test_pairs_of_all_kinds_consult_each_other(junior: str, senior: str) -> None:
    recipe: dict[str, object] = {"junior": {"backbone": junior, "decoder_channels": 16}}
    method = make("segkc", {"backbone": senior, "decoder_channels": 16}, recipe, strong_views=1, gate="none")
    output = method(batch(), 0)
    output.total().backward()
    assert all(torch.isfinite(term) for term in output.terms.values())
    assert all(learns(method.online.get_submodule(role)) for role in ("junior", "senior", "consultation"))


def test_every_value_follows_the_boxes_of_cutmix() -> None:
    """With a box in every image: pseudo-labels, their confidence and padding are those of the pasted image."""
    weights = {"supervised_junior": 0, "pseudo_label_junior": 1}
    recipe: dict[str, object] = {"strong": {"cutmix_probability": 1}}
    method = make("fixmatch", recipe=recipe, weights=weights, confidence_threshold=0.36).eval()
    data = batch()
    assert data.unlabeled is not None
    torch.manual_seed(5)
    got = method(data, 0).terms["pseudo_label_junior"].item()
    torch.manual_seed(5)
    boxes = cutmix_boxes(2, (32, 64), method.recipe.strong).numpy()
    assert boxes.any(axis=(1, 2)).all()

    junior = method.online.get_submodule("junior")
    with torch.no_grad():
        weak = junior(data.unlabeled["weak"]).double().softmax(dim=1).numpy()
        strong = torch.from_numpy(pasted(data.unlabeled["strong_1"].numpy(), boxes))
        log_p = junior(strong).double().log_softmax(dim=1).numpy()
    labels, valid = pasted(weak.argmax(axis=1), boxes), ~pasted(data.unlabeled["ignored"].numpy(), boxes)
    counted = (pasted(weak.max(axis=1), boxes) >= 0.36) & valid
    assert 0.1 < counted.mean() < 0.9  # the threshold matters
    losses = -np.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    assert got == pytest.approx((losses * counted).sum() / valid.sum(), rel=1e-4)


def test_teaching_does_not_change_the_online_networks() -> None:
    """Their running means move once a step, by what they learn from, as they do when their averages teach."""
    means = []
    for labels_from_ema in (True, False):
        method = make("fixmatch", labels_from_ema=labels_from_ema)
        torch.manual_seed(1)
        method(batch(), 0)
        means.append({name: value for name, value in method.online.state_dict().items() if "running" in name})
    assert all(torch.equal(means[0][name], means[1][name]) for name in means[0])
    assert method.training
    assert method.online.training


def test_a_pair_of_one_architecture_starts_apart() -> None:
    method = make("cps", MOBILENET)
    junior, senior = (method.online.get_submodule(role).state_dict() for role in ("junior", "senior"))
    assert junior.keys() == senior.keys()
    assert any(not torch.equal(junior[name], senior[name]) for name in junior)


@pytest.mark.parametrize(("term", "learner"), [("cps_junior", "junior"), ("cps_senior", "senior")])
def test_crossed_labels_teach_one_network_alone(term: str, learner: str) -> None:
    names = ("supervised_junior", "supervised_senior", "cps_junior", "cps_senior")
    method = make(
        "cps",
        RESNET,
        confidence_threshold=0.0,
        labels_from_ema=False,
        weights={name: float(name == term) for name in names},
    )
    method(batch(), 0).total().backward()
    assert {role for role in ("junior", "senior") if learns(method.online.get_submodule(role))} == {learner}


def test_labels_may_come_from_the_online_networks() -> None:
    """Once EMA and online networks differ, so do the labels; which ones are taken shows in the loss."""
    losses = []
    for labels_from_ema in (True, False):
        method = make("fixmatch", confidence_threshold=0.0, labels_from_ema=labels_from_ema)
        for parameter in method.ema.parameters():
            parameter.data.mul_(-1.0)
        torch.manual_seed(1)
        losses.append(method(batch(), 0).terms["pseudo_label_junior"].item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(("scale", "size"), [(1.0, (32, 64)), (1.5, (64, 96)), (2.0, (64, 128))])
def test_teachers_see_enlarged_views(scale: float, size: tuple[int, int]) -> None:
    """Labels and weights keep the views' size; 1.5 times 32 is no size that the network takes, so it sees 64."""
    weights = {"supervised_junior": 0, "pseudo_label_junior": 1}
    recipe: dict[str, object] = {"strong": {"cutmix_probability": 0}}
    settings = {"weights": weights, "confidence_threshold": 0.0, "teacher_scale": scale}
    method = make("fixmatch", recipe=recipe, **settings)
    data = batch()
    assert data.unlabeled is not None
    seen: list[tuple[int, ...]] = []
    teacher = method.ema.get_submodule("junior").eval()
    with torch.no_grad():
        images = enlarged_by_opencv(data.unlabeled["weak"], size)
        labels = teacher.decode(teacher.features(images), (32, 64)).argmax(dim=1).numpy()  # type: ignore[operator]
        teacher.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))  # type: ignore[union-attr]
    got = method(data, 0).terms["pseudo_label_junior"].item()
    assert seen == [size]

    junior = make("fixmatch").online.get_submodule("junior")
    logits = junior(torch.cat([data.labeled["image"], data.unlabeled["strong_1"]]))[2:].detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    losses = -np.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    valid = ~data.unlabeled["ignored"].numpy()
    assert got == pytest.approx((losses * valid).sum() / valid.sum(), rel=1e-3)


def test_complementary_dropout_reaches_the_views_alone() -> None:
    method = make("unimatch-v2")
    images = torch.rand(2 + 2 * 3, 3, 32, 64)
    features = method.online.features(images)  # type: ignore[operator]
    perturbed = method.perturbed(features, 2, 3)  # type: ignore[operator]
    for before, after in zip(features["junior"], perturbed["junior"], strict=True):
        assert torch.equal(before[:2], after[:2])
        assert torch.equal(before[6:], after[6:])  # the third view
        one, two = before[2:4], before[4:6]
        torch.testing.assert_close(after[2:4] * two + after[4:6] * one, 2 * one * two)  # factors f and 2 - f
        assert not torch.equal(before[2:6], after[2:6])


SPEED: dict[str, object] = {
    "relation": {"feature": 1.0, "logit": 0.5, "grid": 8},
    "strong": {"entropymix": {"mode": "after-cutmix", "grid": 4}},
}


@pytest.mark.parametrize(
    ("name", "senior"), [("fixmatch", None), ("unimatch-v2", None), ("cps", RESNET), ("segkc", RESNET)]
)
def test_speed_joins_every_method_by_configuration(name: str, senior: object) -> None:
    plain, joined = make(name, senior, strong_views=2), make(name, senior, recipe=SPEED, strong_views=2)
    roles = ("junior", "senior") if senior else ("junior",)
    more = {f"relation_{level}_{role}" for level in ("feature", "logit") for role in roles}
    output = joined(batch(), 0)
    assert set(output.terms) == set(plain(batch(), 0).terms) | more
    assert all(output.weights[term] == (1.0 if "feature" in term else 0.5) for term in more)
    torch.stack([output.terms[term] for term in more]).sum().backward()
    assert all(learns(joined.online.get_submodule(role)) for role in roles)
    assert not learns(joined.ema)


def test_the_relation_of_identical_views_is_no_loss() -> None:
    """Without color changes or mixing, and with equal online and EMA networks, both views give one prediction."""
    recipe: dict[str, object] = {"relation": {"feature": 1, "logit": 1}, "strong": {"cutmix_probability": 0}}
    method = make("fixmatch", recipe=recipe).eval()
    data = batch()
    assert data.unlabeled is not None
    data.unlabeled["strong_1"] = data.unlabeled["weak"]
    terms = method(data, 0).terms
    assert terms["relation_feature_junior"].item() == pytest.approx(0, abs=1e-9)
    assert terms["relation_logit_junior"].item() == pytest.approx(0, abs=1e-9)


def test_the_averages_predictions_may_be_distilled() -> None:
    """With the senior's average made to answer class 2 surely, the junior's distance is its loss against class 2."""
    only = dict.fromkeys(
        (
            "supervised_junior",
            "supervised_senior",
            "cps_junior",
            "cps_senior",
            "feature_senior_to_junior",
            "prediction_junior_to_senior",
        ),
        0.0,
    )
    weights = {**only, "prediction_senior_to_junior": 1.0}
    recipe: dict[str, object] = {"strong": {"cutmix_probability": 0}}
    with pytest.raises(ConfigError, match="prediction_target ema needs labels_from_ema"):
        make("segkc", RESNET, recipe=recipe, strong_views=1, prediction_target="ema", labels_from_ema=False)
    method = make("segkc", RESNET, recipe=recipe, strong_views=1, prediction_target="ema", weights=weights)
    answering(method, "senior", 60.0)
    data = batch()
    output = method(data, 0)
    junior = make("segkc", RESNET, strong_views=1).online.get_submodule("junior")
    expected = loss_against_class_2(junior, data)
    assert output.terms["prediction_senior_to_junior"].item() == pytest.approx(expected, rel=1e-4)
    output.total().backward()
    assert not learns(method.online.get_submodule("senior"))


def test_gates_may_be_left_out() -> None:
    method = make("segkc", RESNET, strong_views=1, gate="none")
    assert not any("gates" in name for name, _ in method.online.named_parameters())
    assert method(batch(), 0).monitors["gate_1"].item() == 1


def test_ramps_scale_pseudo_labels_and_exchange_apart() -> None:
    recipe: dict[str, object] = {"relation": {"feature": 1.0}}
    output = make("segkc", RESNET, recipe=recipe, strong_views=1, ramp_steps=4, unlabeled_ramp_steps=10)(batch(), 0)
    assert output.weights["cps_junior"] == pytest.approx(0.5 / 10)
    assert output.weights["relation_feature_junior"] == pytest.approx(1 / 4)
    assert output.weights["prediction_senior_to_junior"] == pytest.approx(0.5 / 4)
    assert output.weights["supervised_junior"] == 0.5


@pytest.mark.parametrize(
    ("name", "recipe", "settings", "message"),
    [
        ("fixmatch", SPEED, {"strong_views": 1}, "set method.strong_views=2"),
        ("supervised", SPEED, {}, "method supervised does not use"),
        (
            "fixmatch",
            {"batch": {"labeled": 2, "unlabeled": 2, "accumulation": 2}},
            {},
            "CutMix needs 2 unlabeled images",
        ),
        ("fixmatch", {}, {"confidence_threshold": [0.5, 0.6]}, "2 values, not one for each of the 3 classes"),
        ("fixmatch", {}, {"confidence_threshold": 1.5}, "method: confidence_threshold"),
        ("unimatch-v2", {}, {"strong_views": 1}, "method: strong_views"),
        (
            "unimatch-v2",
            {"strong": {"entropymix": {"mode": "after-cutmix", "keep_views": False}}},
            {},
            "keep_views=true",
        ),
        ("fixmatch", {"senior": RESNET}, {}, "method fixmatch trains the junior alone; leave the senior out"),
        ("cps", {}, {}, "method cps trains two networks; add a section `senior:`"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(
    name: str, recipe: dict[str, object], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match="recipe tiny") as raised:
        make(name, recipe=recipe, **settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_guide_to_a_new_method_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    (tmp_path / "mean_teacher.py").write_text(code)
    package = importlib.import_module("segkc_deploy.training.methods")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "available_methods", lambda: ["mean-teacher"])
    output = make("mean-teacher")(batch(), 0)
    assert set(output.terms) == {"supervised_junior", "consistency"}
    assert output.weights["consistency"] == 1.0
