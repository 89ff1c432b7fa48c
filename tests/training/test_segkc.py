"""The co-training step: what is computed, from what, and where gradients go."""

import numpy as np
import pytest
import torch
from tiny_data import tiny_recipe
from torch import Tensor

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.methods.base import Batch
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.methods.segkc import SegKC
from segkc_deploy.training.recipe import ScheduleConfig
from segkc_deploy.training.terms.consultation import Consultation

TERMS = {
    "supervised_junior",
    "supervised_senior",
    "cps_junior",
    "cps_senior",
    "feature_senior_to_junior",
    "prediction_senior_to_junior",
    "prediction_junior_to_senior",
}


def make(cutmix_probability: float = 0.5, **settings: object) -> SegKC:
    torch.manual_seed(0)
    method = {"name": "segkc", "strong_views": 1, "confidence_threshold": 0.0, **settings}
    recipe = tiny_recipe(method=method, strong={"cutmix_probability": cutmix_probability})
    built = build_method(recipe, num_classes=3, ignore_index=255)
    assert isinstance(built, SegKC)
    return built.train()


def batch(count: int = 2, size: tuple[int, int] = (32, 64)) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(count, 3, *size, generator=generator) for _ in range(4)]
    mask = torch.randint(0, 3, (count, *size), generator=generator)
    ignored = torch.zeros(count, *size, dtype=torch.bool)
    ignored[:, -4:] = True
    unlabeled = {"weak": images[1], "strong_1": images[2], "strong_2": images[3], "ignored": ignored}
    return Batch({"image": images[0], "mask": mask}, unlabeled)


def learns(network: torch.nn.Module) -> bool:
    return any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.parameters())


def only(*names: str) -> dict[str, float]:
    return {name: 1.0 if name in names else 0.0 for name in TERMS}


def test_every_term_is_computed_and_named() -> None:
    output = make()(batch(), step=0)
    assert set(output.terms) == TERMS
    assert all(torch.isfinite(term) for term in output.terms.values())
    expected = sum(output.weights[name] * term.item() for name, term in output.terms.items())
    assert output.total().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_term_of_weight_zero_is_left_out(name: str) -> None:
    assert set(make(weights={name: 0})(batch(), 0).terms) == TERMS - {name}


@pytest.mark.parametrize(
    ("term", "learning"),
    [
        ("supervised_junior", {"junior"}),
        ("cps_junior", {"junior"}),
        ("feature_senior_to_junior", {"junior"}),
        ("prediction_senior_to_junior", {"junior"}),
        ("supervised_senior", {"senior"}),
        ("cps_senior", {"senior"}),
        ("prediction_junior_to_senior", {"senior"}),
    ],
)
def test_each_term_teaches_one_network_alone(term: str, learning: set[str]) -> None:
    method = make(weights=only(term), consultation_dropout=0.0)
    method.online.consultation.gates.data.fill_(0.5)  # advice flows, and still no gradient back to the junior
    method(batch(), 0).total().backward()
    assert {role for role in ("junior", "senior") if learns(getattr(method.online, role))} == learning
    assert not learns(method.ema)


def test_pseudo_labels_are_crossed_and_come_from_the_ema_networks() -> None:
    """With the EMA senior made to answer class 2 everywhere, the junior's term is the loss against class 2."""
    method = make(cutmix_probability=0.0, feature_junior_to_senior=False, weights=only("cps_junior"))
    classifier = method.ema.senior.decoder.classifier
    assert classifier.bias is not None
    classifier.weight.data.zero_()
    classifier.bias.data.copy_(torch.tensor([0.0, 0.0, 9.0]))
    data = batch()
    assert data.unlabeled is not None
    term = method(data, 0).terms["cps_junior"].item()

    fresh = make(feature_junior_to_senior=False, weights=only("cps_junior"))
    images = torch.cat([data.labeled["image"], data.unlabeled["strong_1"]])
    logits = fresh.online.junior(images)[2:].detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    valid = ~data.unlabeled["ignored"].numpy()
    assert term == pytest.approx((-log_p[:, 2] * valid).sum() / valid.sum(), rel=1e-4)


def test_the_confidence_threshold_masks_the_loss() -> None:
    output = make(confidence_threshold=0.99)(batch(), 0)
    assert output.terms["cps_junior"].item() == 0
    assert output.monitors["mask_ratio_junior"].item() == 0
    assert make(confidence_threshold=0.0)(batch(), 0).monitors["mask_ratio_junior"].item() == 1


def test_the_senior_starts_undisturbed_and_runs_alone() -> None:
    method = make().eval()
    images = batch().labeled["image"]
    fused = method.online.logits(method.online.features(images), images.shape[2:])["senior"]
    torch.testing.assert_close(fused, method.online.senior(images), rtol=0, atol=0)
    method.online.consultation.gates.data.fill_(0.5)
    changed = method.online.logits(method.online.features(images), images.shape[2:])["senior"]
    assert (changed - fused).abs().max() > 1e-3


def test_advice_is_the_gated_aligned_junior_feature() -> None:
    torch.manual_seed(0)
    consultation = Consultation([3], [4], dropout=0.0, learned_gates=True)
    consultation.gates.data.fill_(0.25)
    junior, senior = torch.randn(2, 3, 5, 5), torch.randn(2, 4, 5, 5)
    (fused,) = consultation.fuse_into_senior([senior], [junior])
    weight = consultation.alignments[0].weight.detach().double().numpy()[:, :, 0, 0]
    bias = consultation.alignments[0].bias.detach().double().numpy()
    aligned = np.einsum("oi,nihw->nohw", weight, junior.double().numpy()) + bias[None, :, None, None]
    np.testing.assert_allclose(fused.detach().numpy(), senior.numpy() + 0.25 * aligned, rtol=1e-5, atol=1e-6)


def test_consultation_dropout_acts_on_whole_images_in_training_alone() -> None:
    torch.manual_seed(0)
    consultation = Consultation([3], [3], dropout=0.5, learned_gates=True)
    consultation.gates.data.fill_(1.0)
    features = torch.randn(64, 3, 2, 2)

    def advice() -> Tensor:
        return consultation.fuse_into_senior([features], [features])[0] - features

    dropped = (advice() == 0).all(dim=(1, 2, 3))
    assert 16 < int(dropped.sum()) < 48
    consultation.eval()
    assert not (advice() == 0).all(dim=(1, 2, 3)).any()


def test_the_ramp_scales_consultation_terms_alone() -> None:
    weights = make(ramp_steps=10)(batch(), step=0).weights
    assert weights["feature_senior_to_junior"] == pytest.approx(0.1 * 0.1)
    assert weights["supervised_junior"] == 0.5


def test_the_ramp_is_a_tenth_of_the_schedule_by_default() -> None:
    method = make()
    method.recipe = method.recipe.model_copy(update={"schedule": ScheduleConfig(steps=50)})
    assert [method.ramp(step) for step in (0, 1, 4, 30)] == [0.2, 0.4, 1, 1]
    method.recipe = method.recipe.model_copy(update={"schedule": ScheduleConfig(epochs=2)})
    assert method.ramp(0) == 1


def test_gates_and_projections_stay_out_of_the_networks() -> None:
    method = make()
    for network in method.networks().values():
        assert not any("gate" in name or "projection" in name for name in network.state_dict())


def test_the_average_follows_its_formula() -> None:
    method = make()
    average, online = (next(module.junior.decoder.classifier.parameters()) for module in (method.ema, method.online))
    before = average.detach().double().numpy().copy()
    online.data.add_(1.0)
    method.update_ema(step=3)  # min(1 - 1/4, 0.996)
    expected = 0.75 * before + 0.25 * online.detach().double().numpy()
    np.testing.assert_allclose(average.detach().numpy(), expected, rtol=1e-6)


def test_a_pair_needs_a_senior() -> None:
    with pytest.raises(ConfigError, match="add a section `senior:`"):
        build_method(tiny_recipe(senior=None), 3, 255)


def test_unknown_methods_are_named_with_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'segkc'"):
        build_method(tiny_recipe(method={"name": "segck"}), 3, 255)
    with pytest.raises(ConfigError, match="confidence_threshold"):
        build_method(tiny_recipe(method={"name": "segkc", "confidense_threshold": 0.5}), 3, 255)
