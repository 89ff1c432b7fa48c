"""A run directory whose networks were never trained, for measurements of speed and rounding without a training.

A network as it is initialized is no use for that: its logits hardly vary, so one class wins everywhere, and blocks with
LayerScale start as the identity. Here every layer keeps the variance of its input, and the classes share the pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from torch import Tensor, nn

from segkc_deploy import atomic
from segkc_deploy.export.torch_runner import load_run_predictor
from segkc_deploy.labels import Labels, default_palette
from segkc_deploy.preprocess import resize_image
from segkc_deploy.training.files.network_file import NetworkMetadata, save_network
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

#: Standard deviation of the logits over the pixels, as large as trained networks have.
_LOGIT_SPREAD = 4.0
_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def write_random_run(
    out: Path, spec: NetworkSpec, size: tuple[int, int], images: Sequence[np.ndarray], classes: int = 21, seed: int = 0
) -> Path:
    """Write `out/junior.safetensors` with random weights and `out/data.yaml` with the network's own masks as truth.

    Args:
        out: the run directory.
        spec: the network.
        size: (height, width) at which it is exported by default.
        images: at least two, uint8 (H, W, 3) RGB. They set the scale of the layers, and are the data set: the first
            half is labeled, the other one validates. An mIoU of 100 is then the same masks.
        classes: number of classes.
        seed: of the weights.

    Returns:
        `out/data.yaml`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Segmenter(spec, classes)
        _draw_weights(network)
    batch = np.stack([resize_image(image, size) for image in images])
    _set_statistics(network, torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
    names = tuple(f"class {number}" for number in range(classes))
    labels = Labels(names=names, palette=default_palette(classes))
    metadata = NetworkMetadata(
        role="junior",
        network=spec,
        labels=labels,
        input_size=size,
        recipe="random weights",
        method="untrained",
        step=0,
        ema=False,
        scores={},
    )
    save_network(out / "junior.safetensors", network, metadata)
    return _write_data(out, labels, images)


def _draw_weights(network: nn.Module) -> None:
    """Draw weights that keep the variance of what a layer reads (He et al. 2015), and LayerScales of one half."""
    for module in network.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if isinstance(module, nn.Linear) else "relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif type(module).__name__ == "LayerScale":
            nn.init.constant_(module.get_parameter("gamma"), 0.5)


@torch.no_grad()
def _set_statistics(network: Segmenter, images: Tensor) -> None:
    """Set the statistics of batch normalizations from `images` (N, 3, H, W), and give all classes the same logits."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    if norms:
        for image in images:
            network.features(image[None])
            network.decoder(network.features(image[None]))
    network.eval()
    logits = torch.cat([network.decoder(network.features(image[None])) for image in images])
    spread, mean = logits.std(dim=(0, 2, 3)), logits.mean(dim=(0, 2, 3))
    classifier = network.decoder.classifier
    scale = _LOGIT_SPREAD / spread.clamp_min(1e-12)
    classifier.weight.mul_(scale[:, None, None, None])
    assert classifier.bias is not None
    classifier.bias.sub_(mean).mul_(scale)


def _write_data(out: Path, labels: Labels, images: Sequence[np.ndarray]) -> Path:
    sections = {"labeled": images[: len(images) // 2], "val": images[len(images) // 2 :]}
    predictor = load_run_predictor(out, device="cpu")
    for section, pictures in sections.items():
        for kind in ("images", "masks"):
            (out / "data" / section / kind).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(pictures):
            name = f"{number:03d}.png"
            cv2.imwrite(str(out / "data" / section / "images" / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            cv2.imwrite(str(out / "data" / section / "masks" / name), predictor.predict(image))
    spec: dict[str, object] = {"layout": "folders", "root": "data", "classes": list(labels.names)}
    spec |= {section: {"images": f"{section}/images", "masks": f"{section}/masks"} for section in sections}
    atomic.write_text(out / "data.yaml", yaml.safe_dump(spec, sort_keys=False))
    return out / "data.yaml"
