"""The two ways in which a network is usually run, as baselines: eager PyTorch, and a plain `torch.onnx.export`.

Both do what most scripts do around a segmentation network: resize, scale to floating point, transpose, run, upsample
the logits to the image's size, take the argmax. Mean and standard deviation are inside our networks, which spares both
paths a pass over the pixels.
"""

import warnings
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.network_file import load_network


class EagerPath:
    """PyTorch eager. `threads` bounds PyTorch's and OpenCV's threads for the whole process."""

    name = "PyTorch eager, own pre- and postprocessing"

    def __init__(self, run: Path, threads: int) -> None:
        self.network, card = load_network(run / "junior.safetensors")
        self.size = card.input_size
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the mask, uint8 (H, W), of an image, uint8 (H, W, 3) RGB."""
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(_preprocess(image, self.size)))
            full = F.interpolate(
                logits, image.shape[:2], mode="bilinear", align_corners=self.network.decoder.align_corners
            )
            mask: np.ndarray = full.argmax(dim=1)[0].to(torch.uint8).numpy()
        return mask


class PlainExportPath:
    """The network as `torch.onnx.export` writes it without further thought, on ONNX Runtime's CPU provider."""

    name = "plain torch.onnx.export, own pre- and postprocessing"

    def __init__(self, run: Path, threads: int) -> None:
        network, card = load_network(run / "junior.safetensors")
        self.size = card.input_size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            _plain_export(network, self.size), options, providers=["CPUExecutionProvider"]
        )

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the mask, uint8 (H, W), of an image, uint8 (H, W, 3) RGB."""
        (logits,) = self._session.run(None, {"input": _preprocess(image, self.size)})[0]
        height, width = image.shape[:2]
        full = np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in logits])
        mask: np.ndarray = full.argmax(axis=0).astype(np.uint8)
        return mask


def _plain_export(network: Segmenter, size: tuple[int, int]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(), (torch.zeros(1, 3, *size),), input_names=["input"], dynamo=True, verbose=False
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _preprocess(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return float32 (1, 3, height, width), values from 0 to 1."""
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized.transpose(2, 0, 1)[None], dtype=np.float32) / 255
