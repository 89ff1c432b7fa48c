"""How much tensors take at once when each lives from the step that makes it to the last one that reads it."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One operation: what it reads and what it writes, by identity; an unknown identity takes no memory."""

    reads: Collection[Hashable]
    writes: Collection[Hashable]


def most_live(
    steps: Sequence[Step],
    sizes: Mapping[Hashable, int],
    given: Collection[Hashable] = (),
    kept: Collection[Hashable] = (),
) -> int:
    """Return the largest sum of the sizes of what lives during one step.

    Args:
        steps: in the order in which they run.
        sizes: bytes of each tensor.
        given: there before the first step, such as the input; freed after the last step that reads it.
        kept: never freed, such as the outputs.
    """
    last = {name: index for index, step in enumerate(steps) for name in (*step.reads, *step.writes)}
    last |= dict.fromkeys(kept, len(steps))
    alive = set(given) & sizes.keys()
    total = most = sum(sizes[name] for name in alive)
    unread = alive - last.keys()
    alive -= unread
    total -= sum(sizes[name] for name in unread)
    for index, step in enumerate(steps):
        made = (set(step.writes) & sizes.keys()) - alive
        alive |= made
        total += sum(sizes[name] for name in made)
        most = max(most, total)
        dead = {name for name in (*step.reads, *step.writes) if name in alive and last[name] == index}
        alive -= dead
        total -= sum(sizes[name] for name in dead)
    return most
