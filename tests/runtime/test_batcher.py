"""Dynamic batching: which images run together, and what happens to those that cannot."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import numpy as np
import pytest

from segkc_deploy.serve.batcher import Batcher, QueueFullError

SMALL, LARGE = (2, 2, 3), (4, 4, 3)


class Network:
    """Doubles images; runs only once `opened`, and keeps the shapes of its batches."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.started = threading.Event()
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append(images.shape)
        self.started.set()
        assert self.opened.wait(30)
        if images.max() == 100:
            raise ValueError("this image breaks the network")
        return {"masks": images * 2}


def image(value: int, shape: tuple[int, ...] = SMALL) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def with_batcher(network: Network, test: Callable[[Batcher], Awaitable[None]], **settings: float) -> None:
    async def main() -> None:
        batcher = Batcher(network, **{"largest": 4, "most_waiting": 8} | settings)  # type: ignore[arg-type]
        work = asyncio.create_task(batcher.work())
        await test(batcher)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    asyncio.run(main())


async def busy(batcher: Batcher, network: Network) -> asyncio.Task:
    """Let the network hold a first image, so that what comes next has to wait."""
    first = asyncio.create_task(batcher.infer(image(1)))
    await asyncio.to_thread(network.started.wait, 30)
    return first


def test_what_waits_meanwhile_runs_together_by_size_in_order():
    network = Network()

    async def test(batcher: Batcher) -> None:
        first = await busy(batcher, network)
        shapes = [SMALL, LARGE, SMALL, SMALL, SMALL, SMALL]
        later = [asyncio.create_task(batcher.infer(image(10 + i, shape))) for i, shape in enumerate(shapes)]
        await asyncio.sleep(0)
        assert batcher.waiting == 6
        network.opened.set()
        results = await asyncio.gather(first, *later)
        assert [int(result.outputs["masks"].flat[0]) for result in results] == [2, 20, 22, 24, 26, 28, 30]
        assert [result.batch for result in results] == [1, 4, 1, 4, 4, 4, 1]
        assert network.batches == [(1, *SMALL), (4, *SMALL), (1, *LARGE), (1, *SMALL)]

    with_batcher(network, test)


def test_a_delay_gathers_images_that_come_a_little_later():
    network = Network()
    network.opened.set()

    async def test(batcher: Batcher) -> None:
        early = asyncio.create_task(batcher.infer(image(1)))
        await asyncio.sleep(0.01)
        results = await asyncio.gather(early, batcher.infer(image(2)))
        assert [result.batch for result in results] == [2, 2]
        assert results[0].waited_s > results[1].waited_s

    with_batcher(network, test, delay_s=0.5)


def test_a_full_batch_waits_for_no_more():
    network = Network()
    network.opened.set()

    async def test(batcher: Batcher) -> None:
        early = asyncio.create_task(batcher.infer(image(1)))
        await asyncio.sleep(0.01)
        later = [batcher.infer(image(i, LARGE if i == 2 else SMALL)) for i in (2, 3)]
        done, _ = await asyncio.wait(
            [early, *map(asyncio.ensure_future, later)], timeout=60, return_when="FIRST_COMPLETED"
        )
        assert [task.result().batch for task in done] == [2, 2]

    with_batcher(network, test, largest=2, delay_s=3600)


def test_what_waited_while_the_network_ran_does_not_wait_again():
    network = Network()

    async def test(batcher: Batcher) -> None:
        first = await busy(batcher, network)
        second = asyncio.create_task(batcher.infer(image(2)))
        await asyncio.sleep(0)
        batcher._delay_s = 3600
        batcher._waiting[0].arrived -= 3600
        network.opened.set()
        assert (await first).batch == 1
        assert (await asyncio.wait_for(second, 60)).waited_s > 3600

    with_batcher(network, test)


def test_a_full_queue_refuses():
    network = Network()

    async def test(batcher: Batcher) -> None:
        first = await busy(batcher, network)
        waiting = [asyncio.create_task(batcher.infer(image(i))) for i in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.infer(image(9))
        network.opened.set()
        await asyncio.gather(first, *waiting)

    with_batcher(network, test, most_waiting=2)


def test_an_error_reaches_those_of_its_batch_alone_and_the_next_batch_runs():
    network = Network()

    async def test(batcher: Batcher) -> None:
        first = await busy(batcher, network)
        broken = asyncio.create_task(batcher.infer(image(100)))
        fine = asyncio.create_task(batcher.infer(image(3, LARGE)))
        await asyncio.sleep(0)
        network.opened.set()
        assert (await first).outputs["masks"].max() == 2
        with pytest.raises(ValueError, match="breaks the network"):
            await broken
        assert (await fine).outputs["masks"].max() == 6

    with_batcher(network, test)


@pytest.mark.parametrize("wrong", ["too few outputs", "no memory for the batch"])
def test_whatever_goes_wrong_the_next_batch_runs(wrong: str, monkeypatch: pytest.MonkeyPatch):
    network = Network()

    async def test(batcher: Batcher) -> None:
        first = await busy(batcher, network)
        broken = [asyncio.create_task(batcher.infer(image(value))) for value in (2, 3)]
        await asyncio.sleep(0)
        with monkeypatch.context() as changed:
            if wrong == "too few outputs":
                changed.setattr(batcher, "_run", lambda images: {"masks": images[:1]})
            else:
                changed.setattr(np, "stack", no_memory)
            network.opened.set()
            await first
            results = await asyncio.wait_for(asyncio.gather(*broken, return_exceptions=True), 60)
        assert [type(result) for result in results] == 2 * [IndexError if wrong == "too few outputs" else MemoryError]
        assert (await asyncio.wait_for(batcher.infer(image(6)), 60)).outputs["masks"].max() == 12

    with_batcher(network, test)


def no_memory(images: object) -> np.ndarray:
    raise MemoryError


def test_an_image_that_nobody_waits_for_any_more_is_not_run():
    network = Network()

    async def test(batcher: Batcher) -> None:
        first = await busy(batcher, network)
        given_up = asyncio.create_task(batcher.infer(image(5)))
        await asyncio.sleep(0)
        given_up.cancel()
        network.opened.set()
        await first
        assert (await batcher.infer(image(6))).batch == 1
        assert network.batches == [(1, *SMALL)] * 2

    with_batcher(network, test)
