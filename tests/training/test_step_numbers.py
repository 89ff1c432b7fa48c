"""The numbers of a whole step against NumPy in float64: what each term is given, besides what it computes."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from test_methods import RESNET, make, pasted
from test_segkc import batch, only

from segkc_deploy.training.data.cutmix import cutmix_boxes
from segkc_deploy.training.methods.base import Batch, Method

IGNORED = 255
NO_MIXING: dict[str, object] = {"strong": {"cutmix_probability": 0}}


def partly_labeled() -> Batch:
    """A batch whose labeled masks have a part that is not labeled, which no term may learn from."""
    data = batch()
    data.labeled["mask"][0, :, :40] = IGNORED
    data.labeled["mask"][1, 8:20] = IGNORED
    return data


def counted(data: Batch) -> np.ndarray:
    """Return which pixels of the labeled images, followed by the first views, count."""
    assert data.unlabeled is not None
    return np.concatenate([data.labeled["mask"].numpy() != IGNORED, ~data.unlabeled["ignored"].numpy()])


def seen(data: Batch) -> torch.Tensor:
    """Return the images that the online networks see in a step without mixing."""
    assert data.unlabeled is not None
    return torch.cat([data.labeled["image"], data.unlabeled["strong_1"]])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def pooled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Average (N, ..., H, W) over blocks of equal size to (N, ..., *size)."""
    *front, height, width = values.shape
    blocks = values.reshape(*front, size[0], height // size[0], size[1], width // size[1])
    return np.asarray(blocks.mean(axis=(-3, -1)))


def resized(features: torch.Tensor, size: Sequence[int]) -> np.ndarray:
    """Resize (N, C, h, w) as `torch.nn.Upsample` does."""
    return np.asarray(torch.nn.Upsample(tuple(size), mode="bilinear")(features.double()).numpy())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_predictions_are_distilled_from_what_is_labeled_or_no_padding(temperature: float) -> None:
    names = ("prediction_senior_to_junior", "prediction_junior_to_senior")
    settings = {"strong_views": 1, "consultation_dropout": 0.0, "temperature": temperature, "weights": only(*names)}
    data = partly_labeled()
    got = make("segkc", RESNET, NO_MIXING, **settings)(data, 0).terms
    fresh = make("segkc", RESNET, NO_MIXING, **settings).online
    images = seen(data)
    with torch.no_grad():
        logits = fresh.logits(fresh.features(images), images.shape[2:])  # type: ignore[operator]
    soft = {role: log_softmax(logits[role].double().numpy() / temperature) for role in ("junior", "senior")}
    valid = counted(data)
    for source, role in (("senior", "junior"), ("junior", "senior")):
        divergences = (np.exp(soft[source]) * (soft[source] - soft[role])).sum(axis=1)
        expected = temperature**2 * divergences[valid].mean()
        assert got[f"prediction_{source}_to_{role}"].item() == pytest.approx(expected, rel=1e-4)


def test_features_are_distilled_from_what_is_labeled_or_no_padding() -> None:
    settings = {"strong_views": 1, "weights": only("feature_senior_to_junior")}
    data = partly_labeled()
    got = make("segkc", RESNET, NO_MIXING, **settings)(data, 0).terms["feature_senior_to_junior"].item()
    fresh = make("segkc", RESNET, NO_MIXING, **settings).online
    with torch.no_grad():
        features = fresh.features(seen(data))  # type: ignore[operator]
    expected = 0.0
    for level, projection in enumerate(fresh.get_submodule("consultation.projections").children()):
        assert isinstance(projection, torch.nn.Conv2d) and projection.bias is not None
        weight, bias = (
            projection.weight[:, :, 0, 0].detach().double().numpy(),
            projection.bias.detach().double().numpy(),
        )
        own = np.einsum("oi,nihw->nohw", weight, features["junior"][level].double().numpy()) + bias[:, None, None]
        target = resized(features["senior"][level], own.shape[2:])
        cosines = (own * target).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(target, axis=1)
        cells = pooled(counted(data).astype(float), own.shape[2:]) > 0.5
        assert not cells.all()
        expected += (1 - cosines)[cells].mean()
    assert got == pytest.approx(expected, rel=1e-4)


def weak_logits(method: Method, role: str, data: Batch) -> np.ndarray:
    """Return what the average of `role` says on the weak views."""
    assert data.unlabeled is not None
    with torch.no_grad():
        return np.asarray(method.networks()[f"{role}_ema"](data.unlabeled["weak"]).double().numpy())


@pytest.mark.parametrize("name", ["fixmatch", "cps", "segkc"])
def test_labels_are_made_from_aligned_probabilities(name: str) -> None:
    """The gates of a fresh senior are closed, so its average teaches as it is scored."""
    method = make(name, None if name == "fixmatch" else RESNET, strong_views=1, align_distribution=True)
    data = batch()
    data.labeled["mask"][:] = 1
    method(data, 0)
    output = method._teacher_output(data.unlabeled["weak"])  # type: ignore[index, operator]
    assert data.unlabeled is not None
    valid = ~data.unlabeled["ignored"].numpy()
    changed = 0
    for role in set(method.teacher_of.values()):  # type: ignore[operator]
        probability = np.exp(log_softmax(weak_logits(method, role, data)))
        predicted = probability.transpose(0, 2, 3, 1)[valid].mean(axis=0)
        aligned = probability * np.clip(np.array([0, 1, 0]) / predicted, 0.5, 2)[:, None, None]
        aligned /= aligned.sum(axis=1, keepdims=True)
        found = output.labels[role]
        np.testing.assert_allclose(found.confidence.numpy(), aligned.max(axis=1), rtol=1e-4)
        assert (found.classes.numpy() == aligned.argmax(axis=1)).mean() > 0.999  # a tie may end either way
        changed += (probability.argmax(axis=1) != aligned.argmax(axis=1)).sum()
    assert changed > 100


def test_the_usual_confidence_is_that_of_pixels_that_are_no_padding() -> None:
    method = make("fixmatch", strong_views=1, confidence_threshold="soft")
    data = batch()
    method(data, 0)
    assert data.unlabeled is not None
    probability = np.exp(log_softmax(weak_logits(method, "junior", data)))
    valid = ~data.unlabeled["ignored"].numpy()
    labels, confidence = probability.argmax(axis=1), probability.max(axis=1)
    given = np.unique(labels[valid])
    assert len(given) > 1
    for index in given:
        of_class = confidence[valid & (labels == index)]
        rule = method.label_weights["junior"]  # type: ignore[index]
        assert rule.mean[index].item() == pytest.approx(of_class.mean(), rel=1e-5)
        assert rule.variance[index].item() == pytest.approx(of_class.var(), rel=1e-3)
        with_padding = confidence[labels == index].mean()
        assert abs(of_class.mean() - with_padding) > 1e-4 * with_padding  # else this would not tell them apart


def test_relations_are_those_of_the_pasted_views() -> None:
    recipe: dict[str, object] = {"relation": {"feature": 0, "logit": 1, "grid": 8}, "strong": {"cutmix_probability": 1}}
    method = make("fixmatch", recipe=recipe, strong_views=1).eval()
    data = batch()
    assert data.unlabeled is not None
    torch.manual_seed(5)
    got = method(data, 0).terms["relation_logit_junior"].item()
    torch.manual_seed(5)
    boxes = cutmix_boxes(2, (32, 64), method.recipe.strong).numpy()

    def gram(probability: np.ndarray) -> np.ndarray:
        cells = pooled(probability, (8, 8)).reshape(2, 3, 64)
        cells /= np.linalg.norm(cells, axis=1, keepdims=True)
        return np.einsum("nci,ncj->nij", cells, cells)

    strong = torch.from_numpy(pasted(data.unlabeled["strong_1"].numpy(), boxes))
    with torch.no_grad():
        logits = method.networks()["junior"](strong).double().numpy()
    weak = pasted(np.exp(log_softmax(weak_logits(method, "junior", data))), boxes)
    cells = pooled((~pasted(data.unlabeled["ignored"].numpy(), boxes)).astype(float), (8, 8)).reshape(2, 64) > 0.5
    pairs = cells[:, :, None] & cells[:, None, :]
    assert not pairs.all()
    expected = np.square(gram(np.exp(log_softmax(logits))) - gram(weak))[pairs].mean()
    assert got == pytest.approx(expected, rel=1e-2)


def test_averages_follow_running_statistics_too() -> None:
    method = make("segkc", RESNET, strong_views=1)
    average, online = (module.junior.state_dict() for module in (method.ema, method.online))  # type: ignore[union-attr, operator]
    name = next(key for key in average if key.endswith("running_mean"))
    before = average[name].double().numpy().copy()
    online[name].add_(1.0)
    method.update_ema(step=3)  # min(1 - 1/4, 0.996)
    np.testing.assert_allclose(average[name].numpy(), 0.75 * before + 0.25 * online[name].double().numpy(), rtol=1e-6)
