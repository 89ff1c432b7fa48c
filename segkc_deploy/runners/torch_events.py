"""How long PyTorch takes on the GPU, for the runners that use it."""

from typing import Any


class TorchTimer:
    """Measures how long the GPU takes from `start` to `stop`, both put on PyTorch's current stream as events.

    Args:
        torch: the module, which only those import who need it.
    """

    def __init__(self, torch: Any) -> None:
        self._started = torch.cuda.Event(enable_timing=True)
        self._stopped = torch.cuda.Event(enable_timing=True)

    def start(self) -> None:
        self._started.record()

    def stop(self) -> None:
        self._stopped.record()

    def elapsed_ms(self) -> float:
        """Wait for `stop` and return the time between both."""
        self._stopped.synchronize()
        return float(self._started.elapsed_time(self._stopped))
