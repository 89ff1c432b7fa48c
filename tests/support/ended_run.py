"""A run directory to start a training from, without a training."""

from collections.abc import Sequence
from pathlib import Path

import torch

from segkc_deploy.labels import Labels, default_palette
from segkc_deploy.training.files.network_file import NetworkMetadata, save_network
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec


def ended_run(folder: Path, backbone: str, classes: int, names: Sequence[str] = ()) -> Path:
    """Make a run directory with a junior of random weights, biases too, whose batch statistics have moved."""
    folder.mkdir()
    spec = NetworkSpec(backbone=backbone, decoder_channels=16)
    torch.manual_seed(7)
    network = Segmenter(spec, classes)
    torch.nn.init.normal_(network.decoder.classifier.bias)
    network(torch.rand(2, 3, 64, 64))
    names = tuple(names) or tuple(f"class {index}" for index in range(classes))
    labels = Labels(names=names, palette=default_palette(classes))
    metadata = NetworkMetadata(
        role="junior",
        network=spec,
        labels=labels,
        input_size=(64, 64),
        recipe="tiny",
        method="supervised",
        step=5,
        ema=False,
        scores={},
    )
    save_network(folder / "junior.safetensors", network, metadata)
    return folder
