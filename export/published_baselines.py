"""The way of published PyTorch code, as baselines: PIL, then PyTorch in FP32 or compiled with BF16 autocast.

`EagerBaseline` and `CompiledBaseline` resize with OpenCV; research code resizes with PIL, which antialiases.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from segkc_deploy.export.baselines import EagerBaseline
from segkc_deploy.runners.aoti_runner import quiet_torch
from segkc_deploy.training.models.compiler import require_compiler


class PublishedBaseline(EagerBaseline):
    """PyTorch eager in FP32, after PIL's antialiased bilinear resizing; see `Baseline`."""

    def __init__(self, run: Path, device: str = "auto", threads: int | None = None) -> None:
        super().__init__(run, device, threads)
        self.description = f"{self.description}, PIL"

    def predict(self, image: np.ndarray) -> np.ndarray:
        height, width = self._size
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        # What torchvision.transforms.functional.to_tensor computes.
        pixels = torch.from_numpy(resized).permute(2, 0, 1).contiguous().float().div(255)[None]
        with torch.inference_mode():
            logits = self.logits(pixels.to(self._device))
            full = F.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=self._align_corners)
            mask: np.ndarray = full.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
        return mask

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (1, C, h, w) of pixels float32 (1, 3, h, w), 0-1."""
        logits: torch.Tensor = self._logits(pixels)
        return logits


class AutocastBaseline(PublishedBaseline):
    """The same through `torch.compile`, in its default mode, with BF16 autocast. Opening it compiles, for minutes."""

    def __init__(self, run: Path, device: str = "auto", threads: int | None = None) -> None:
        super().__init__(run, device, threads)
        require_compiler("torch.compile", self._device.type)
        self._logits = torch.compile(self._network)
        self.description = f"PyTorch {torch.__version__} torch.compile, BF16 autocast, {self._device.type}, PIL"
        with quiet_torch():
            self.predict(np.zeros((*self._size, 3), np.uint8))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.bfloat16):
            return super().logits(pixels).float()
