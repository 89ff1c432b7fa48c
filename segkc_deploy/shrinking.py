"""Say when images lose detail because they are shrunk to the network's size."""

from collections.abc import Callable
from pathlib import Path

from segkc_deploy.manifest import Contract
from segkc_deploy.preprocess import network_size
from segkc_deploy.progress import console

#: A side that becomes this many times smaller is worth a line: objects of a few pixels are then gone.
SHRINK_NOTICE = 3.0


def print_notice(text: str) -> None:
    """Print a line in yellow on stderr."""
    console.print(text, style="yellow", markup=False, soft_wrap=True)


class ShrinkNotice:
    """Prints one line about the first image that is shrunk by more than a ratio.

    Args:
        contract: what the network takes.
        ratio: how many times smaller a side may become.
        say: what prints the line.
    """

    def __init__(self, contract: Contract, ratio: float, say: Callable[[str], None] = print_notice) -> None:
        self._say = say
        self._contract = contract
        self._ratio = ratio
        self._said = False

    def look_at(self, path: Path, size: tuple[int, int]) -> None:
        """Say it where the image of `size` (height, width) is the first one."""
        if self._said:
            return
        network = network_size(self._contract, size)
        ratio = max(own / side for own, side in zip(size, network, strict=True))
        if ratio > self._ratio:
            self._said = True
            self._say(
                f"{path}: its {size[1]}x{size[0]} pixels are shrunk to the network's {network[1]}x{network[0]};"
                " --tile predicts large images at full resolution (further such images are not named)"
            )
