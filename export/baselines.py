"""The ways in which a network is usually run, as baselines: PyTorch eager and compiled, and a plain ONNX export.

All do what most scripts do around a segmentation network: resize, scale to floating point, transpose, run, upsample
the logits to the image's size, take the argmax. Mean and standard deviation are inside our networks, which spares the
usual paths a pass over the pixels.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

from segkc_deploy.errors import ConfigError
from segkc_deploy.pixel_format import PixelFormat, by_band_group
from segkc_deploy.runners.aoti_runner import quiet_torch
from segkc_deploy.runners.onnx_runner import preload_cuda_libraries
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.models.compiler import require_compiler
from segkc_deploy.training.models.device import choose_device
from segkc_deploy.training.models.segmenter import Segmenter

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Baseline(Protocol):
    """A way from an image to its mask.

    Args:
        run: the run directory, of which the junior is taken.
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads of PyTorch, ONNX Runtime and OpenCV, for the whole process; their own choice if None.

    Raises:
        UserError: the junior or the device cannot be used, or something that the path needs is missing.
    """

    description: str

    def __init__(self, run: Path, device: str = "auto", threads: int | None = None) -> None: ...

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the mask, uint8 (H, W), of an image, uint8 (H, W, 3) RGB."""


class EagerBaseline(Baseline):
    """PyTorch eager."""

    def __init__(self, run: Path, device: str = "auto", threads: int | None = None) -> None:
        self._network, metadata = load_network(run / "junior.safetensors")
        self._size = metadata.input_size
        self._device = choose_device(device)
        self._align_corners = self._network.decoder.align_corners
        self._logits: Any = self._network.to(self._device)
        self.description = f"PyTorch {torch.__version__} eager, {self._device.type}"
        if threads is not None:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)

    def predict(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(_preprocess(image, self._size, self._network.pixels))
            logits = self._logits(batch.to(self._device))
            full = F.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=self._align_corners)
            mask: np.ndarray = full.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
        return mask


class CompiledBaseline(EagerBaseline):
    """The same with the network through `torch.compile`, in its default mode. Opening it compiles, for minutes."""

    def __init__(self, run: Path, device: str = "auto", threads: int | None = None) -> None:
        super().__init__(run, device, threads)
        require_compiler("torch.compile", self._device.type)
        self._logits, pixels = torch.compile(self._network), self._network.pixels
        self.description = f"PyTorch {torch.__version__} torch.compile, {self._device.type}"
        with quiet_torch():
            self.predict(np.zeros((*self._size, pixels.bands), pixels.dtype))


class PlainExportBaseline(Baseline):
    """The network as `torch.onnx.export` writes it without further thought, on ONNX Runtime.

    On the GPU for `cuda`, and for `auto` where PyTorch and ONNX Runtime both find it.
    """

    def __init__(self, run: Path, device: str = "auto", threads: int | None = None) -> None:
        network, metadata = load_network(run / "junior.safetensors")
        self._size, self._pixels = metadata.input_size, network.pixels
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
            cv2.setNumThreads(threads)
        wanted = [_CUDA, _CPU] if choose_device(device).type == "cuda" else [_CPU]
        providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
        if _CUDA in providers:
            preload_cuda_libraries(onnxruntime)
        self._session = onnxruntime.InferenceSession(_plain_export(network, self._size), options, providers=providers)
        provider = self._session.get_providers()[0]
        if device == "cuda" and provider != _CUDA:
            raise ConfigError(
                f"--device cuda: onnxruntime could not load its {_CUDA}; "
                'pip install "onnxruntime-gpu[cuda,cudnn]", or use --device cpu'
            )
        self.description = f"onnxruntime {onnxruntime.__version__} {provider}"

    def predict(self, image: np.ndarray) -> np.ndarray:
        (logits,) = self._session.run(None, {"input": _preprocess(image, self._size, self._pixels)})[0]
        height, width = image.shape[:2]
        full = np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in logits])
        mask: np.ndarray = full.argmax(axis=0).astype(np.uint8)
        return mask


#: The paths by the names that a benchmark gives them.
BASELINES: Mapping[str, type[Baseline]] = {
    "eager": EagerBaseline,
    "compiled": CompiledBaseline,
    "plain export": PlainExportBaseline,
}


def _plain_export(network: Segmenter, size: tuple[int, int]) -> bytes:
    example = torch.zeros(1, network.pixels.bands, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network.eval(), (example,), input_names=["input"], dynamo=True, verbose=False)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _preprocess(image: np.ndarray, size: tuple[int, int], pixels: PixelFormat) -> np.ndarray:
    """Return float32 (1, bands, height, width), values from 0 to 1."""
    resized = by_band_group(image, lambda part: cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))
    return np.ascontiguousarray(resized.transpose(2, 0, 1)[None], dtype=np.float32) / pixels.largest
