"""Sums over all devices of a training, for statistics that are those of a whole batch on every one of them."""

import torch
from torch import Tensor


def sum_of_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of every rank's `tensor`, without gradient; where there is one process, `tensor` itself.

    A collective operation: each rank has to call it equally often, also where it has nothing to add but zeros.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total
