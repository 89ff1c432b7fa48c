"""`segkc-deploy eval` of a run: a trained network scored by its recipe's protocol, as training itself scores it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.evaluation import Evaluation, evaluate
from segkc_deploy.training.models.device import choose_device
from segkc_deploy.training.network_file import load_network, read_card
from segkc_deploy.training.prediction import mask_predictor
from segkc_deploy.training.run_directory import RunDirectory, read_config


@dataclass(frozen=True)
class RunEvaluation:
    """The scores of a run's network, the input size in words, and what it ran on."""

    evaluation: Evaluation
    input_size: str
    ran_on: str


def class_names(run: Path, role: str) -> tuple[str, ...]:
    """Return the classes that a run's network was trained on.

    Raises:
        RunDirectoryError: the run has no such network.
    """
    return read_card(RunDirectory(run).network(role)).labels.names


def evaluate_run(run: Path, role: str, sets: ImageSets, device: str = "auto") -> RunEvaluation:
    """Score the `junior` or the `senior` of a run on `sets.val`, by the protocol of the run's recipe.

    Raises:
        RunDirectoryError: the run has no such network.
        ConfigError: there is no such device.
    """
    directory = RunDirectory(run)
    recipe, _ = read_config(directory)
    network, _ = load_network(directory.network(role))
    chosen = choose_device(device)
    size = recipe.validation.size
    predict = mask_predictor(network.to(chosen), chosen, size)
    evaluation = evaluate(predict, sets, f"Evaluating {run.name}, {role}")
    wanted = f"{size[1]}×{size[0]} (width × height)" if size else "each image's own size"
    return RunEvaluation(
        evaluation,
        f"{wanted}, sides to the nearest multiple of {network.size_multiple}; logits resized to the image's own size",
        f"PyTorch {torch.__version__} {chosen.type}",
    )
