"""The norms of one step's gradients, network by network, and clipping by the norm of all of them."""

import torch
from lightning.fabric.plugins.precision import Precision
from torch import Tensor, nn
from torch.optim import Optimizer


def measure_gradients(
    online: nn.Module, optimizer: Optimizer, precision: Precision, clip_norm: float | None
) -> dict[str, Tensor]:
    """Return the 2-norm of the gradients of each part of `online`, and clip the gradients.

    Everything stays on the device: that a norm is NaN or infinite is found out when the losses are read, before
    anything is saved (`MetricAccumulator.flush`). The update of that step needs no undoing, since what it changed is
    never written anywhere.

    Args:
        online: the networks that learn, after the backward pass of the step.
        optimizer: theirs, not wrapped.
        precision: undoes the loss scaling of FP16.
        clip_norm: the largest norm over all parts; None clips nothing.

    Returns:
        by part (`junior`, `senior`, and what is between them) a scalar of the device, before clipping.
    """
    precision.unscale_gradients(optimizer)
    gradients = {
        name: [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        for name, part in online.named_children()
    }
    norms = {
        name: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
        for name, tensors in gradients.items()
        if tensors
    }
    if clip_norm is not None:
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        torch.nn.utils.clip_grads_with_norm_(online.parameters(), clip_norm, total)
    return norms
