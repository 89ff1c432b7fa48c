"""`segkc-deploy eval` of a run: a trained network scored by its recipe's protocol, as training itself scores it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.evaluation import Evaluation, evaluate
from segkc_deploy.pixel_format import require_same_format
from segkc_deploy.training.evaluation.prediction import mask_predictor, protocol_in_words
from segkc_deploy.training.files.network_file import load_network, read_metadata
from segkc_deploy.training.files.run_directory import RunDirectory, read_config
from segkc_deploy.training.models.device import choose_device
from segkc_deploy.training.size_trial import require_image_sizes


@dataclass(frozen=True)
class RunEvaluation:
    """The scores of a run's network, the evaluation protocol in words, and what it ran on."""

    evaluation: Evaluation
    protocol: str
    ran_on: str


def class_names(run: Path, role: str) -> tuple[str, ...]:
    """Return the classes that a run's network was trained on.

    Raises:
        RunDirectoryError: the run has no such network.
    """
    return read_metadata(RunDirectory(run).network(role)).labels.names


def evaluate_run(run: Path, role: str, sets: ImageSets, device: str = "auto") -> RunEvaluation:
    """Score the `junior` or the `senior` of a run on `sets.val`, by the protocol of the run's recipe.

    Raises:
        RunDirectoryError: the run has no such network.
        ConfigError: there is no such device, or the network cannot take the recipe's sliding window or an image's size.
        DataError: the network takes other bands.
    """
    directory = RunDirectory(run)
    recipe, _ = read_config(directory)
    network, _ = load_network(directory.network(role))
    require_same_format(network.pixels, sets.pixels, run, "the data spec")
    require_image_sizes(network, recipe, (sample.image for sample in sets.val), run)
    chosen = choose_device(device)
    predict = mask_predictor(network.to(chosen), chosen, recipe.validation)
    evaluation = evaluate(predict, sets, f"Evaluating {run.name}, {role}")
    protocol = protocol_in_words(recipe.validation, network.size_multiple)
    return RunEvaluation(evaluation, protocol, f"PyTorch {torch.__version__} {chosen.type}")
