"""`pretrained: RUN`: the last layer follows the classes by their names, not by their numbers."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_data import CLASSES, tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.labels import Labels, default_palette
from segkc_deploy.training.files.network_file import NetworkMetadata, load_network, save_network
from segkc_deploy.training.job import build
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.training.train import train_run

BACKBONE = "mobilenetv4_conv_small_035"


def write_run(folder: Path, names: Sequence[str]) -> Path:
    """A run directory with a junior of random weights that knows `names`."""
    folder.mkdir()
    spec = NetworkSpec(backbone=BACKBONE, decoder_channels=16)
    torch.manual_seed(7)
    network = Segmenter(spec, len(names))
    torch.nn.init.normal_(network.decoder.classifier.bias)
    metadata = NetworkMetadata(
        role="junior",
        network=spec,
        labels=Labels(names=tuple(names), palette=default_palette(len(names))),
        input_size=(64, 64),
        recipe="tiny",
        method="supervised",
        step=5,
        ema=False,
        scores={},
    )
    save_network(folder / "junior.safetensors", network, metadata)
    return folder


def method_from(run: Path, data: Path) -> Method:
    recipe = tiny_recipe(junior={"backbone": BACKBONE, "decoder_channels": 16, "pretrained": str(run)})
    return build(recipe, load_data_spec(data).resolve(), None, resume=False)


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (CLASSES, ""),
        (["disk", "background", "box"], "; the classifier's classes are matched by name"),
        (["box", "background", "ball"], "; the classifier's classes are matched by name; fresh ones: disk"),
        (["sky", "disk", "background", "box", "sea"], "; the classifier's classes are matched by name"),
        (["sky", "sea", "road"], "; the classifier is fresh (other classes there)"),
        (["sky", "sea"], "; the classifier is fresh (2 classes there, 3 here)"),
    ],
)
def test_the_classifier_follows_the_names(data: Path, tmp_path: Path, theirs: list[str], told: str) -> None:
    run = write_run(tmp_path / "run", theirs)
    start = load_network(run / "junior.safetensors")[0]
    networks = method_from(run, data).networks()
    junior, copy = networks["junior"], networks["junior_ema"]
    assert junior.started_from == f"backbone and decoder of {run / 'junior.safetensors'}{told}"
    for index, name in enumerate(CLASSES):
        for key in ("weight", "bias"):
            row = getattr(junior.decoder.classifier, key)[index]
            assert torch.equal(row, getattr(copy.decoder.classifier, key)[index])
            old = getattr(start.decoder.classifier, key)
            if name in theirs:
                assert torch.equal(row, old[theirs.index(name)])
            else:
                assert not any(torch.equal(row, other) for other in old), "a new class takes over no row"
    assert torch.equal(junior.decoder.fuse[0].weight, start.decoder.fuse[0].weight)
    assert all(parameter.requires_grad for parameter in junior.decoder.classifier.parameters())


def test_the_log_says_which_classes_are_new(tmp_path: Path) -> None:
    run = write_run(tmp_path / "start", ["box", "background", "ball"])
    data = write_tiny_data(tmp_path / "data")
    recipe = tiny_recipe(
        senior=None,
        method={"name": "supervised"},
        schedule={"steps": 1},
        junior={"backbone": BACKBONE, "decoder_channels": 16, "pretrained": str(run)},
    )
    file = write_recipe(tmp_path / "tiny.yaml", recipe)
    trained = train_run(data, str(file), tmp_path / "run", device="cpu").path
    assert "classes are matched by name; fresh ones: disk\n" in (trained / "train.log").read_text()
