"""The images that may be chosen, and what a data spec says about them."""

from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.data.files import existing_folder
from segkc_deploy.data.pools import Pool, without
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.data.spec import DataSpec, load_data_spec
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.labels import Labels
from segkc_deploy.training.label_next.lists import ListForm
from segkc_deploy.training.label_next.true_errors import Truth


@dataclass(frozen=True)
class KnownData:
    """A data spec, the images that it names, and the form of its lists."""

    spec: DataSpec
    sets: ImageSets
    form: ListForm

    @classmethod
    def load(cls, path: Path) -> "KnownData":
        """Read the spec and find its images; masks may be missing.

        Raises:
            ConfigError: the spec cannot be used.
            DataError: a list names images that are not there.
        """
        spec = load_data_spec(path)
        return cls(spec, spec.resolve(allow_missing_masks=True), ListForm.of_spec(spec))


def candidates(known: KnownData | None, folder: Path | None) -> tuple[Sample, ...]:
    """Return the images to rank, in the order of their ids: those of `folder`, or else the spec's unlabeled ones.

    Images that the spec has labeled or validates on are left out of the folder's.

    Raises:
        ConfigError: there is no such folder.
        DataError: there is no such image.
    """
    if folder is not None:
        samples = tuple(Pool.of_folders(folder, existing_folder(folder, "--images")).samples.values())
        if not samples:
            raise DataError(f"{folder}: --images holds no image")
        if known is not None:
            samples = without(samples, known.sets.labeled + known.sets.val)
        if not samples:
            raise DataError(f"{folder}: each image in --images is labeled or validates already")
    else:
        assert known is not None
        samples = known.sets.unlabeled
        if not samples:
            raise DataError(
                f"{known.spec.path}: no image is unlabeled; add `unlabeled: {{images: FOLDER}}` or give --images"
            )
    return tuple(sorted(samples, key=lambda sample: (sample.id, sample.image)))


def true_masks(folder: Path, known: KnownData | None, labels: Labels, samples: tuple[Sample, ...]) -> Truth:
    """Find the true masks of some of `samples` in `folder`, read as the data spec says.

    Args:
        folder: the folder that `--masks` names.
        known: the data spec; without one a mask's values are class ids.
        labels: the classes that the networks know.
        samples: the images to rank.

    Raises:
        ConfigError: there is no such folder, or the spec has other classes.
        DataError: the folder has no mask of a sample.
    """
    coding, ending = (known.sets.coding, known.form.mask_ending) if known else (MaskCoding(labels), "")
    if known is not None and known.sets.labels.names != labels.names:
        raise ConfigError(f"{known.spec.path}: has other classes than the run, so --masks cannot be compared with it")
    truth = Truth.of_folder(existing_folder(folder, "--masks"), ending, coding)
    if not any(sample.id in truth.masks for sample in samples):
        raise DataError(f"{folder}: --masks has no mask of an image to rank; {samples[0].id}{ending}.png would be one")
    return truth
