"""`pretrained: RUN`: the last layer follows the classes by their names, not by their numbers."""

from pathlib import Path

import pytest
import torch
from ended_run import ended_run
from tiny_data import CLASSES, tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.job import build
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.train import train_run

BACKBONE = "mobilenetv4_conv_small_035"


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
    run = ended_run(tmp_path / "run", BACKBONE, len(theirs), theirs)
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
    run = ended_run(tmp_path / "start", BACKBONE, 3, ["box", "background", "ball"])
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
