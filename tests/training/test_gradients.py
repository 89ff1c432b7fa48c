"""Norms of gradients, clipping, and steps whose gradients are not finite."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.plugins.precision import MixedPrecision, Precision
from safetensors.torch import load_file
from tiny_data import tiny_recipe, write_recipe
from torch import Tensor, nn

from segkc_deploy.errors import NonFiniteLossError
from segkc_deploy.training.gradients import measure_gradients
from segkc_deploy.training.methods import weak_to_strong
from segkc_deploy.training.methods.base import StepOutput
from segkc_deploy.training.metric_accumulator import MetricAccumulator
from segkc_deploy.training.train import train_run


def networks() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"junior": nn.Linear(3, 2), "senior": nn.Linear(3, 4), "unused": nn.Linear(2, 2)})


def loss_of(online: nn.ModuleDict, scale: float = 1.0) -> Tensor:
    images = torch.linspace(-1, 1, 12).view(4, 3)
    return scale * (online["junior"](images).square().sum() + online["senior"](images).square().sum())


def test_norms_are_those_of_numpy_and_clipping_scales_all_parts_alike() -> None:
    online = networks()
    optimizer = torch.optim.AdamW(online.parameters())
    loss_of(online).backward()
    before = {
        name: parameter.grad.numpy().copy() for name, parameter in online.named_parameters() if "unused" not in name
    }
    expected = {
        part: math.sqrt(
            sum(float((value.astype(np.float64) ** 2).sum()) for name, value in before.items() if part in name)
        )
        for part in ("junior", "senior")
    }
    total = math.hypot(*expected.values())
    for clip_norm, factor in ((None, 1.0), (2 * total, 1.0), (total / 4, 0.25)):
        for name, value in before.items():
            online.get_parameter(name).grad = torch.from_numpy(value.copy())
        norms = measure_gradients(online, optimizer, Precision(), clip_norm)
        assert {part: norm.item() for part, norm in norms.items()} == pytest.approx(expected)
        for name, value in before.items():
            np.testing.assert_allclose(online.get_parameter(name).grad.numpy(), factor * value, rtol=1e-5)


def test_loss_scaling_skips_a_step_that_overflows() -> None:
    online = networks()
    optimizer = torch.optim.AdamW(online.parameters())
    precision = MixedPrecision("16-mixed", "cpu")
    window = MetricAccumulator(skips_overflows=True)
    for step, scale in enumerate((1.0, 1e38, 1.0), start=1):
        loss = loss_of(online, scale)
        precision.backward(loss, None)
        window.add(
            step, StepOutput({"supervised_junior": torch.tensor(1.0)}, {"supervised_junior": 1.0}), torch.tensor(1.0)
        )
        window.add_gradients(step, measure_gradients(online, optimizer, precision, None))
        before = [parameter.clone() for parameter in online.parameters()]
        precision.optimizer_step(optimizer)
        optimizer.zero_grad()
        changed = any(not torch.equal(old, new) for old, new in zip(before, online.parameters(), strict=True))
        assert changed == (step != 2)
    values = window.flush(lambda: "none yet", lambda table: table[None])
    assert values["skipped_steps"] == 1
    assert 0 < values["gradient_norm"] < 1e3


def window_of(norms: list[float], skips_overflows: bool) -> MetricAccumulator:
    window = MetricAccumulator(skips_overflows)
    for step, norm in enumerate(norms, start=1):
        terms = {"supervised_junior": torch.tensor(0.25), "cps_senior": torch.tensor(0.5)}
        window.add(step, StepOutput(terms, dict.fromkeys(terms, 1.0)), torch.tensor(0.75))
        window.add_gradients(step, {"junior": torch.tensor(3.0), "senior": torch.tensor(norm)})
    return window


def test_without_loss_scaling_the_first_bad_gradient_is_named_with_its_losses() -> None:
    def flush(window: MetricAccumulator) -> dict[str, float]:
        return window.flush(lambda: "here", lambda table: table[None])

    assert flush(window_of([4.0, 4.0], False))["gradient_norm"] == pytest.approx(5)
    with pytest.raises(
        NonFiniteLossError,
        match=r"step 2: the gradients of senior are inf; its losses: supervised_junior 0\.25, cps_senior 0\.5; "
        r"last good checkpoint: here; .* lower optimizer\.lr",
    ):
        flush(window_of([4.0, math.inf, math.nan], False))
    assert flush(window_of([math.inf] * 30, True))["skipped_steps"] == 30
    with pytest.raises(NonFiniteLossError, match="step 31: the gradients of senior are nan for the 31st step in a row"):
        flush(window_of([math.nan] * 31, True))


class _BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, math.nan)


def test_a_run_stops_at_a_gradient_that_is_not_finite_and_keeps_what_was_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    loss = weak_to_strong.pseudo_label_loss

    def poisoned(logits: Tensor, *arguments: object, **named: object) -> Tensor:
        bad = next(calls) == 2
        return loss(_BadGradient.apply(logits) if bad else logits, *arguments, **named)  # type: ignore[no-untyped-call,arg-type]

    recipe = tiny_recipe(senior=None, method={"name": "fixmatch", "strong_views": 1}, checkpoint_every=2, log_every=4)
    path = write_recipe(tmp_path / "tiny.yaml", recipe)
    monkeypatch.setattr(weak_to_strong, "pseudo_label_loss", poisoned)
    with pytest.raises(
        NonFiniteLossError, match=r"step 3: the gradients of junior are nan.*last\.safetensors \(step 2\)"
    ):
        train_run(data, str(path), tmp_path / "run", device="cpu")
    checkpoint = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.values() if tensor.is_floating_point())
