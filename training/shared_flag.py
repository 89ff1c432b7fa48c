"""A flag that the ranks of a training share without waiting for their devices."""

import torch
from torch import Tensor

from segkc_deploy.training.terms.sum_of_ranks import sum_of_ranks


class SharedFlag:
    """Whether some rank had set its flag, known one call late: what was sent with the call before.

    The host of a GPU is about a step ahead of it. To read this call's answer would be to wait until the GPU has done
    all that was enqueued, and to read the last one's with `item` too, since that copies after everything else.

    Args:
        device: of this rank.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sent: tuple[Tensor, torch.cuda.Event | None] | None = None

    def exchange(self, flag: bool) -> bool:
        """Send this rank's flag, and return whether any rank's was set at the call before; the same on all ranks.

        A collective operation: each rank has to call it equally often.
        """
        before, self._sent = self._sent, self._send(flag)
        if before is None:
            return False
        total, copied = before
        if copied is not None:
            copied.synchronize()
        return bool(total > 0)

    def _send(self, flag: bool) -> tuple[Tensor, torch.cuda.Event | None]:
        # Filled on the device: a tensor that is made of a number is copied there, for which the host waits too.
        total = sum_of_ranks(torch.full((), float(flag), device=self.device)).to("cpu", non_blocking=True)
        if self.device.type != "cuda":
            return total, None
        copied = torch.cuda.Event()
        copied.record()
        return total, copied
