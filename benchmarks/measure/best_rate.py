"""The best rate of a matrix product or a copy: the fastest of many repetitions, at the size that suits best."""

import time
from collections.abc import Callable
from dataclasses import dataclass

#: Sides of the matrices: doubled from the first on, until one product takes `_LONG_S`.
SMALLEST = 512
_LONG_S = 0.02
_LEAST_RUNS = 3

#: Makes matrices of a side and returns what multiplies them once and gives the seconds that it took.
MakeProduct = Callable[[int], Callable[[], float]]


@dataclass(frozen=True)
class Rate:
    """1e9 operations or bytes per second, and how they were measured."""

    giga_per_s: float
    how: str


def best_product(make: MakeProduct, library: str, seconds: float, largest: int) -> Rate:
    """Return the most operations per second, 2 n³ for a product of n×n matrices, for sides up to `largest`.

    `seconds` is the time for one size, of which at least three products are timed after one that is not.
    """
    best, side = Rate(0.0, library), SMALLEST
    while True:
        fastest = fastest_of(make(side), seconds)
        rate = 2 * side**3 / fastest / 1e9
        if rate > best.giga_per_s:
            best = Rate(rate, f"{library}, {side}×{side}")
        if fastest >= _LONG_S or 2 * side > largest:
            return best
        side *= 2


def fastest_of(run: Callable[[], float], seconds: float) -> float:
    """Return the least seconds that `run` tells of its runs, the first left out."""
    run()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < _LEAST_RUNS or time.perf_counter() - began < seconds:
        times.append(run())
    return min(times)


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Return what calls `run` and gives the seconds that it took on the host's clock."""

    def once() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return once
