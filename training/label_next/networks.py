"""The networks of a run as ranking needs them: what both make of an image, and a feature that tells look-alikes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError
from segkc_deploy.labels import Labels
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.training.evaluation.prediction import probability_predictor, protocol_in_words
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.files.run_directory import RunDirectory, read_config
from segkc_deploy.training.models.device import choose_device
from segkc_deploy.training.size_trial import require_image_sizes


class RunNetworks:
    """The junior of a run and, where the run has one, its senior, by the validation protocol of its recipe.

    Attributes:
        metadata: what the junior's file says of itself.
        data: where the run's data spec was; None where it was imported without one.
        protocol: how the networks see an image, in words.

    Raises:
        RunDirectoryError: this is no run, or it has no junior yet.
        ConfigError: there is no such device, or the networks know different classes or cannot take the recipe's window.
    """

    def __init__(self, run: Path, device: str) -> None:
        directory = RunDirectory(run)
        self._run = run
        self._recipe, self.data = read_config(directory)
        chosen = choose_device(device)
        largest, self.metadata = load_network(directory.network("junior"))
        self._networks = [largest]
        self.protocol = protocol_in_words(self._recipe.validation, largest.size_multiple)
        self._junior = probability_predictor(largest.to(chosen), chosen, self._recipe.validation)
        self._senior: Callable[[np.ndarray], Iterator[Tensor]] | None = None
        if directory.network("senior").is_file():
            largest, metadata = load_network(directory.network("senior"))
            if metadata.labels.names != self.metadata.labels.names:
                raise ConfigError(f"{run}: junior and senior know different classes; keep the two of one training")
            self._senior = probability_predictor(largest.to(chosen), chosen, self._recipe.validation)
            self._networks.append(largest)
        self._pooled: list[Tensor] = []
        largest.backbone.register_forward_hook(self._pool)

    @property
    def labels(self) -> Labels:
        return self.metadata.labels

    @property
    def pixels(self) -> PixelFormat:
        """What images the networks take."""
        return self.metadata.network.pixels

    @property
    def has_senior(self) -> bool:
        return self._senior is not None

    def require_sizes(self, images: Iterable[Path]) -> None:
        """Raise ConfigError, naming the image and what helps, where a network cannot take the size of one."""
        paths = list(images)
        for network in self._networks:
            require_image_sizes(network, self._recipe, paths, self._run)

    def probabilities(self, image: np.ndarray) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the class probabilities of junior and senior, (C, rows, W) each, of an image, uint8 (H, W, 3).

        They come in parts of the same rows, from the top to the bottom: all classes of a whole image can be large.
        """
        self._pooled.clear()
        if self._senior is None:
            yield from ((junior, None) for junior in self._junior(image))
        else:
            yield from _side_by_side(self._junior(image), self._senior(image))

    def feature(self) -> np.ndarray:
        """Return the feature (D,), float32 of unit length, of the image that `probabilities` saw last, in all parts.

        The coarsest feature map of the senior, or of the junior where it is alone, averaged over the image.
        """
        pooled = torch.stack(self._pooled).mean(dim=0)
        feature: np.ndarray = nn.functional.normalize(pooled, dim=0).cpu().numpy()
        return feature

    def _pool(self, _module: nn.Module, _inputs: object, maps: list[Tensor]) -> None:
        """A network that sees an image through a window sees it in several parts: all of them count."""
        self._pooled.append(maps[-1].float().mean(dim=(0, 2, 3)))


def _side_by_side(first: Iterator[Tensor], second: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut the parts (C, rows, W) of one image by two networks, whose windows may differ, to the same rows."""
    other = torch.empty(0, 0, 0)
    for one in first:
        while one.shape[1] > 0:
            other = other if other.shape[1] > 0 else next(second)
            rows = min(one.shape[1], other.shape[1])
            yield one[:, :rows], other[:, :rows]
            one, other = one[:, rows:], other[:, rows:]
