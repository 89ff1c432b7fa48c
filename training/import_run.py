"""`segkc-deploy import-weights`: from a published checkpoint to a run directory."""

from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.errors import DataError
from segkc_deploy.folder_lock import folder_lock
from segkc_deploy.labels import Labels
from segkc_deploy.manifest import sha256_of
from segkc_deploy.training.evaluation.prediction import input_size
from segkc_deploy.training.files.foreign_weights import Copy
from segkc_deploy.training.files.network_file import NetworkMetadata, save_network
from segkc_deploy.training.files.published_weights import FORMATS
from segkc_deploy.training.files.run_directory import create_run
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe

#: Data sets with a published protocol of their own; its recipes end with the layout's name.
_DATA_SETS = ("voc", "cityscapes", "ade20k", "coco")


@dataclass(frozen=True)
class Imported:
    """A finished import: the run directory, what its network is, and its number of weights."""

    run: Path
    metadata: NetworkMetadata
    parameters: int


@dataclass(frozen=True)
class Classes:
    """What the classes of a checkpoint are called, and where that was read."""

    labels: Labels
    where: str


def import_weights(
    file: Path,
    file_format: str,
    out: Path,
    classes: Classes,
    recipe: Recipe,
    data: Path | None = None,
    copy: Copy | None = None,
    overwrite: bool = False,
) -> Imported:
    """Turn a published checkpoint into a run directory that can be evaluated, exported and started from.

    Args:
        file: the checkpoint.
        file_format: a key of `training.files.published_weights.FORMATS`.
        out: the run directory.
        classes: names for the checkpoint's classes, which itself holds none.
        recipe: its evaluation protocol becomes the run's.
        data: the data spec that the run remembers.
        copy: which copy of the weights, where there are two; by default the EMA.
        overwrite: delete an earlier run in `out` first.

    Raises:
        DataError: the file cannot be used, or has another number of classes.
        RunDirectoryError: `out` is not empty, or cannot be written.
    """
    published = FORMATS[file_format](file, copy)
    if published.num_classes != classes.labels.num_classes:
        raise DataError(
            f"{file}: its last layer has {published.num_classes} classes, and {classes.where} names"
            f" {classes.labels.num_classes}; name those of the data set that it was trained on"
        )
    network = Segmenter(published.spec, published.num_classes)
    network.load_state_dict(published.weights)
    metadata = NetworkMetadata(
        role="junior",
        network=published.spec,
        labels=classes.labels,
        input_size=input_size(recipe.validation.size or recipe.crop_size, network.size_multiple),
        recipe=f"imported-{file_format}",
        method="imported",
        step=0,
        ema=published.copy == "ema",
        scores={},
    )
    origin = {"file": str(file.resolve()), "sha256": sha256_of(file), "format": file_format, "copy": published.copy}
    with folder_lock(out):
        run = create_run(out, _as_recipe(recipe, metadata), data, overwrite, {"imported": origin})
        save_network(run.network("junior"), network, metadata)
    return Imported(out, metadata, sum(parameter.numel() for parameter in network.parameters()))


def usual_recipe(layout: str) -> str:
    """Return the recipe with the published evaluation of a layout's data set; whole images for any other."""
    data_set = next((name for name in _DATA_SETS if layout.partition("-")[0] == name), "voc")
    return f"unimatch-v2-dinov2-s-{data_set}"


def _as_recipe(recipe: Recipe, metadata: NetworkMetadata) -> Recipe:
    """The recipe that stands in the run: what evaluation reads of it holds, and nothing was trained by the rest."""
    changes = {
        "name": metadata.recipe,
        "summary": f"imported, not trained here; evaluated by the protocol of {recipe.name}",
        "junior": metadata.network,
        "senior": None,
    }
    return recipe.model_copy(update=changes)
