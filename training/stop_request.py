"""Signals that ask a training to stop: it finishes its step, saves, and can be resumed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, `kill`, and what SLURM sends before the time limit with `--signal=USR1@60`.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether a signal has asked the training to stop.

    Attributes:
        name: of the signal, such as SIGTERM; empty until one arrives.
    """

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.name = signal.Signals(number).name


@contextmanager
def stop_request(repeated_interrupt_stops: bool = True) -> Iterator[StopRequest]:
    """Collect the signals that ask to stop, instead of being ended by them.

    Args:
        repeated_interrupt_stops: whether a second Ctrl-C ends the training at once, without saving.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may change handlers
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if request and repeated_interrupt_stops:
            raise KeyboardInterrupt
        request.receive(number, frame)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, interrupt if number == signal.SIGINT else request.receive)
    try:
        yield request
    finally:
        for number, handler in before.items():
            # A signal that is repeated until its process ends must not interrupt that end.
            signal.signal(number, signal.SIG_IGN if request and not repeated_interrupt_stops else handler)
