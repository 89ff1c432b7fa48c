"""Dynamic batching: images that wait at the same time go through the network together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

Outputs = dict[str, np.ndarray]


class QueueFullError(Exception):
    """More images wait for the network than may."""


@dataclass(frozen=True)
class BatchedOutputs:
    """The network's outputs for one image, without the batch axis, and how they came about.

    Attributes:
        outputs: by name, such as `masks` (height, width) at the network's size.
        waited_s, ran_s: seconds in the queue, and seconds that the batch took.
        batch: how many images the batch had.
    """

    outputs: Outputs
    waited_s: float
    ran_s: float
    batch: int


@dataclass
class _Job:
    image: np.ndarray
    result: "asyncio.Future[BatchedOutputs]"
    arrived: float = field(default_factory=time.perf_counter)


class Batcher:
    """Gives one network, which runs in a thread of its own, batches of the images that wait.

    While a batch runs, images arrive; the next batch takes those of them that have the size of the first, in order of
    arrival. Without a delay a lone image never waits for others. For one event loop, in which `work` runs as a task.

    Args:
        run: the network, from uint8 (N, H, W, 3) to its outputs by name, each (N, …).
        largest: most images of a batch.
        most_waiting: most images that wait.
        delay_s: how long the first image of a batch waits for others while the batch is not full.
    """

    def __init__(
        self, run: Callable[[np.ndarray], Outputs], largest: int, most_waiting: int, delay_s: float = 0.0
    ) -> None:
        self._run = run
        self._largest = largest
        self._most_waiting = most_waiting
        self._delay_s = delay_s
        self._waiting: deque[_Job] = deque()
        self._arrival = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many images wait for the network."""
        return len(self._waiting)

    async def infer(self, image: np.ndarray) -> BatchedOutputs:
        """Return the network's outputs for one image; see `infer_all`."""
        (outputs,) = await self.infer_all([image])
        return outputs

    async def infer_all(self, images: Sequence[np.ndarray]) -> list[BatchedOutputs]:
        """Return the network's outputs for each of `images`, uint8 (H, W, 3) at the network's size.

        Images whose caller is cancelled while they wait are not run.

        Raises:
            QueueFullError: with these images too many would wait; none of them does.
            Exception: whatever the network raises.
        """
        if len(self._waiting) + len(images) > self._most_waiting:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        jobs = [_Job(image, loop.create_future()) for image in images]
        self._waiting.extend(jobs)
        self._arrival.set()
        if len(jobs) == 1:  # the usual case, without a task for it
            return [await jobs[0].result]
        return await asyncio.gather(*(job.result for job in jobs))

    async def work(self) -> None:
        """Run batches until cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix="network") as thread:
            while True:
                self._arrival.clear()
                if not self._waiting:
                    await self._arrival.wait()
                if self._delay_s:
                    await self._gather()
                if jobs := self._next_batch():
                    await self._run_batch(thread, jobs)

    async def _gather(self) -> None:
        """Wait until a batch is full, or its first image has waited for as long as it may."""
        while (left := self._seconds_left()) > 0:
            self._arrival.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrival.wait()
            except TimeoutError:
                return

    def _seconds_left(self) -> float:
        """Return how long the next batch may still wait for images; 0 where it is full, or nobody waits for it."""
        waiting = [job for job in self._waiting if not job.result.done()]
        if not waiting or sum(job.image.shape == waiting[0].image.shape for job in waiting) >= self._largest:
            return 0
        return waiting[0].arrived + self._delay_s - time.perf_counter()

    def _next_batch(self) -> list[_Job]:
        """Take the oldest image and those of its size out of the queue, leaving out what nobody waits for any more."""
        jobs: list[_Job] = []
        left: deque[_Job] = deque()
        for job in self._waiting:
            if job.result.done():
                continue
            if len(jobs) < self._largest and (not jobs or job.image.shape == jobs[0].image.shape):
                jobs.append(job)
            else:
                left.append(job)
        self._waiting = left
        return jobs

    async def _run_batch(self, thread: ThreadPoolExecutor, jobs: list[_Job]) -> None:
        started = time.perf_counter()
        # All of it in the thread, whose future takes whatever goes wrong: nothing may end the task that runs batches.
        running = asyncio.get_running_loop().run_in_executor(thread, self._outputs, [job.image for job in jobs])
        await asyncio.wait([running])
        ran_s = time.perf_counter() - started
        error = running.exception()
        for position, job in enumerate(jobs):
            if job.result.done():  # its caller gave up while the batch ran
                continue
            if error is not None:
                job.result.set_exception(error)
                continue
            outputs = running.result()[position]
            job.result.set_result(BatchedOutputs(outputs, started - job.arrived, ran_s, len(jobs)))

    def _outputs(self, images: list[np.ndarray]) -> list[Outputs]:
        """Return the network's outputs for each image."""
        batch = self._run(images[0][None] if len(images) == 1 else np.stack(images))
        return [{name: values[position] for name, values in batch.items()} for position in range(len(images))]
