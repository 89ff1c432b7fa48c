"""The images that `pseudo-label` labels, and what the data spec knows about them."""

from pathlib import Path

from segkc_deploy.data.pools import without
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.pixel_format import require_same_format
from segkc_deploy.sources import SourceImage, find_images, images_below
from segkc_deploy.training.files.network_file import NetworkMetadata


def known_sets(given: Path | None, own: Path | None, metadata: NetworkMetadata, run: Path) -> ImageSets | None:
    """Return the images of the spec that is given, or else of the run's own; None where that is gone.

    Raises:
        ConfigError: the spec has other classes than the run.
    """
    path = given or own
    if path is None or (given is None and not path.is_file()):
        return None
    sets = load_data_spec(path).resolve()
    if sets.labels.names != metadata.labels.names:
        raise ConfigError(f"{path}: has other classes than {run}; use the data spec that it was trained with")
    require_same_format(metadata.network.pixels, sets.pixels, run, path)
    return sets


def images_to_label(
    source: str | None, sets: ImageSets | None, own: Path | None, run: Path, out: Path
) -> tuple[list[SourceImage], int]:
    """Return the images to label, and how many more the spec labels or validates on.

    Args:
        source: an image, a folder or a glob pattern; None for the unlabeled images of `sets`.
        sets: the images of the data spec, where there is one.
        own: where the run's own data spec was.
        run: the run directory.
        out: the folder for the masks; those of an earlier call are no images.

    Raises:
        ConfigError: nothing says which images.
        DataError: there is none to label.
    """
    if source is not None:
        images = find_images(source, exclude=out)
    elif sets is None and own is None:
        raise ConfigError(f"{run}: imported without a data spec; give --data, or name the images by --source")
    elif sets is None:
        raise ConfigError(f"{run}: its data spec is not there any more; name the images by --source")
    elif not sets.unlabeled:
        raise ConfigError(f"{run}: its data spec has no unlabeled images; name some by --source")
    else:
        folder = out.resolve()
        unlabeled = [one.image for one in sets.unlabeled if not one.image.resolve().is_relative_to(folder)]
        if not unlabeled:
            raise DataError(
                f"{out}: holds all unlabeled images, and is to hold the results; choose an --out beside the images,"
                " or a folder in theirs"
            )
        images = images_below(unlabeled)
    if sets is None:
        return images, 0
    unknown = without((Sample(image.id, image.path) for image in images), sets.labeled + sets.val)
    ids = {sample.id for sample in unknown}
    chosen = [image for image in images if image.id in ids]
    if not chosen:
        raise DataError(f"{source}: the data spec labels or validates on each of these images already")
    return chosen, len(images) - len(chosen)
