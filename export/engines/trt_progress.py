"""A build that shows how far it is and that Ctrl-C stops: TensorRT's progress monitor, and a thread for the build."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from segkc_deploy.progress import progress

_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass
class _Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0


class BuildProgress:
    """How far a build is, from the phases within phases that the builder reports; and the wish to stop it.

    The builder may call from several threads of its own. `share` (0-1) never falls, although a builder may start the
    same phase again.
    """

    def __init__(self, tell: Callable[[float, str], None]) -> None:
        self._tell = tell
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.share = 0.0

    def cancel(self) -> None:
        """Stop the build at the end of its present step."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        return self._stop.is_set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that phase `name` begins, of `steps` steps, within a step of phase `parent`."""
        with self._lock:
            self._phases[name] = _Phase(name, parent, max(steps, 1))

    def step(self, name: str, step: int) -> bool:
        """Note that step number `step` of a phase is done; False asks the builder to stop."""
        with self._lock:
            if phase := self._phases.get(name):
                phase.done = step + 1
                self._report(name)
        return not self.cancelled

    def finish(self, name: str) -> None:
        """Note that a phase is over; it may come before the last of its steps."""
        with self._lock:
            self._phases.pop(name, None)

    def _report(self, name: str) -> None:
        within = 0.0
        phase: _Phase | None = self._phases[name]
        while phase is not None:
            within = min((phase.done + within) / phase.steps, 1.0)
            phase = self._phases.get(phase.parent) if phase.parent else None
        self.share = max(self.share, within)
        self._tell(self.share, "stopping after this step" if self.cancelled else name)


def build_with_progress(trt: Any, builder: Any, network: Any, config: Any, description: str) -> Any:
    """Return the serialized plan, or None where the builder failed.

    The build runs in a thread of its own: only the main thread hears Ctrl-C, and inside the builder it would not.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the builder has come to rest.
    """
    with progress(description) as tell:
        build = BuildProgress(tell)
        # The configuration does not keep the monitor alive in every version.
        monitor = _monitor(trt, build)
        config.progress_monitor = monitor
        with _on_ctrl_c(build.cancel), ThreadPoolExecutor(max_workers=1) as executor:
            future = executor.submit(builder.build_serialized_network, network, config)
            while not future.done():
                wait([future], timeout=_SECONDS_BETWEEN_LOOKS)
    if build.cancelled:
        raise KeyboardInterrupt
    return future.result()


@contextmanager
def _on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` at Ctrl-C, where an exception could come at a point that leaves the build running."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C reaches the main thread, which waits for this one
        return
    previous = signal.signal(signal.SIGINT, lambda number, frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _monitor(trt: Any, progress: BuildProgress) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            # The bindings demand this call by name.
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
