"""The networks of a run as ranking needs them: logits of both, and a feature that tells look-alikes."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError
from segkc_deploy.labels import Labels
from segkc_deploy.preprocess import resize_image
from segkc_deploy.training.models.device import choose_device
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.network_file import load_network
from segkc_deploy.training.prediction import input_size, to_float_images
from segkc_deploy.training.run_directory import RunDirectory, read_config


class RunNetworks:
    """The junior of a run and, where the run has one, its senior, by the validation protocol of its recipe.

    Raises:
        RunDirectoryError: this is no run, or it has no junior yet.
        ConfigError: there is no such device, or the two networks know different classes.
    """

    def __init__(self, run: Path, device: str) -> None:
        directory = RunDirectory(run)
        recipe, self.data = read_config(directory)
        self._size = recipe.validation.size
        self._device = choose_device(device)
        junior, self.card = load_network(directory.network("junior"))
        self._junior: Segmenter = junior.to(self._device)
        self._senior: Segmenter | None = None
        if directory.network("senior").is_file():
            senior, card = load_network(directory.network("senior"))
            if card.labels.names != self.card.labels.names:
                raise ConfigError(f"{run}: junior and senior know different classes; keep the two of one training")
            self._senior = senior.to(self._device)
        self._pooled: list[Tensor] = []
        (self._senior or self._junior).backbone.register_forward_hook(self._pool)

    @property
    def labels(self) -> Labels:
        return self.card.labels

    @property
    def has_senior(self) -> bool:
        return self._senior is not None

    @torch.inference_mode()
    def logits(self, image: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Return the logits of junior and senior, (C, H, W) each, of an image, uint8 (H, W, 3), at its own size."""
        self._pooled.clear()
        return self._logits(self._junior, image), None if self._senior is None else self._logits(self._senior, image)

    def feature(self) -> np.ndarray:
        """Return the feature (D,), float32 of unit length, of the image that `logits` saw last.

        The coarsest feature map of the senior, or of the junior where it is alone, averaged over the image.
        """
        pooled = torch.stack(self._pooled).mean(dim=0)
        feature: np.ndarray = nn.functional.normalize(pooled, dim=0).cpu().numpy()
        return feature

    def _pool(self, _module: nn.Module, _inputs: object, maps: list[Tensor]) -> None:
        """A network that sees an image through a window sees it in several parts: all of them count."""
        self._pooled.append(maps[-1].float().mean(dim=(0, 2, 3)))

    def _logits(self, network: Segmenter, image: np.ndarray) -> Tensor:
        own_size = image.shape[:2]
        resized = resize_image(image, input_size(own_size, network.size_multiple, self._size))
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None].to(self._device)
        logits = network(to_float_images(tensor))
        return (logits if tuple(logits.shape[2:]) == own_size else network.upsample(logits, own_size))[0]
