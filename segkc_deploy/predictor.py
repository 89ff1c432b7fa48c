"""From images to masks with an artifact: the Python interface of the runtime."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, overload

import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ArtifactError, ConfigError, DataError
from segkc_deploy.labels import Labels
from segkc_deploy.manifest import Contract, Manifest, read_manifest
from segkc_deploy.preprocess import resize_image, resize_mask
from segkc_deploy.runners.base import Runner

#: A uint8 RGB array (H, W, 3), or the path of an image file.
Image = np.ndarray | str | os.PathLike[str]

_KNOWN_ENGINES = ("onnx",)


def load(path: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> "Predictor":
    """Load an artifact and make it ready to predict.

    Args:
        path: the artifact; its manifest stands beside it as `<artifact>.json`.
        device: `auto` (CUDA where it can be had, else the CPU), `cpu` or `cuda`.
        threads: CPU threads of one inference; the engine's own choice if None.

    Raises:
        ArtifactError: the artifact or its manifest is missing, damaged, or made for an engine that is not known.
        ConfigError: the device cannot be had.
    """
    path = Path(path)
    manifest = read_manifest(path)
    runner = _runner(path, manifest.engine, device, threads)
    runner.activate()
    return Predictor(runner, manifest.labels, manifest.contract, manifest)


class Predictor:
    """Turns images into masks. A context manager: leaving it frees the network.

    `predict` does everything; `preprocess`, `infer` and `postprocess` are its three parts.

    Args:
        runner: an activated runner; it is deactivated with the predictor.
        labels: the classes whose ids the masks hold.
        contract: what the network takes and gives.
        manifest: what is known about the artifact, where there is one.
    """

    def __init__(self, runner: Runner, labels: Labels, contract: Contract, manifest: Manifest | None = None) -> None:
        self._runner = runner
        self.labels = labels
        self.contract = contract
        self.manifest = manifest

    @property
    def description(self) -> str:
        """What runs the network: `onnxruntime 1.31.1 CPUExecutionProvider`."""
        return self._runner.description

    def batch_size(self, wanted: int) -> int:
        """Return how many images run at once: the artifact's own number where it is fixed, else `wanted`.

        Raises:
            ConfigError: `wanted` is less than 1.
        """
        if wanted < 1:
            raise ConfigError(f"a batch of {wanted} images is not possible; use 1 or more")
        return self.contract.batch if self.contract.batch > 0 else wanted

    @overload  # mypy minds that a str is also a sequence
    def predict(self, images: Image, batch_size: int = ...) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Sequence[Image], batch_size: int = ...) -> list[np.ndarray]: ...
    def predict(self, images: Image | Sequence[Image], batch_size: int = 8) -> np.ndarray | list[np.ndarray]:
        """Return the mask of an image, or the list of masks of a list of images.

        Args:
            images: a uint8 RGB array (H, W, 3), the path of an image file, or a list of these; sizes may differ.
            batch_size: how many images run at once; an artifact with a fixed batch keeps to its own.

        Returns:
            uint8 (H, W) class ids at the image's own size, for each image.

        Raises:
            DataError: an array is not a uint8 RGB image, or a file cannot be read as one.
        """
        if isinstance(images, np.ndarray | str | os.PathLike):
            return self.predict([images])[0]
        step = self.batch_size(batch_size)
        masks: list[np.ndarray] = []
        for start in range(0, len(images), step):
            arrays = [_as_array(image, start + offset) for offset, image in enumerate(images[start : start + step])]
            outputs = self.infer(self.preprocess(arrays))
            masks += self.postprocess(outputs, [array.shape[:2] for array in arrays])
        return masks

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Resize images, each uint8 (H, W, 3) RGB, to the network's input: uint8 (N, height, width, 3)."""
        return np.stack([resize_image(image, self.contract.size) for image in images])

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run the network on `batch`, uint8 (N, height, width, 3), and return its outputs by name.

        A batch smaller than the artifact's fixed one is filled up, and the filling cut off again.
        """
        missing = max(self.contract.batch - len(batch), 0)
        if missing == 0:
            return self._runner.infer(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        return {name: output[: len(batch)] for name, output in self._runner.infer(filled).items()}

    def postprocess(self, outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Return one mask for each of `sizes` (height, width), uint8 class ids, from the network's outputs."""
        return [resize_mask(mask, size) for mask, size in zip(outputs["masks"], sizes, strict=True)]

    def close(self) -> None:
        """Free the network."""
        self._runner.deactivate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _runner(path: Path, engine: str, device: str, threads: int | None) -> Runner:
    if engine == "onnx":
        from segkc_deploy.runners.onnx_runtime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(path, device, threads)
    raise ArtifactError(
        f"{path}: made for the engine {engine!r}; this version runs {', '.join(_KNOWN_ENGINES)}; export for that"
    )


def _as_array(image: Image, position: int) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(Path(image))
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0:
        return image
    hint = ""
    if image.ndim == 4:
        hint = "; pass a batch as a list of images"
    elif np.issubdtype(image.dtype, np.floating):
        hint = "; scale it to 0-255 and convert it with .astype(numpy.uint8)"
    elif image.ndim == 2:
        hint = "; repeat a gray image over three channels"
    raise DataError(
        f"image {position} is a {image.dtype} array of shape {image.shape}; pass uint8 RGB (height, width, 3){hint}"
    )
