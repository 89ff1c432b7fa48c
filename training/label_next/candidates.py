"""The images that may be chosen, and what a data spec says about them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.data.files import existing_folder
from segkc_deploy.data.pools import Pool, without
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.data.spec import DataSpec, load_data_spec
from segkc_deploy.data.tasks.writers import WRITERS
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
    def load(cls, path: Path, labels: Labels | None, run: Path) -> "KnownData":
        """Read the spec and find its images; masks may be missing.

        Args:
            path: the spec.
            labels: the classes that the networks of `run` know; None where the spec may have others.
            run: what an error names.

        Raises:
            ConfigError: the spec cannot be used, or has other classes than the run.
            DataError: a list names images that are not there.
        """
        spec = load_data_spec(path)
        if labels is not None and spec.labels().names != labels.names:
            raise ConfigError(f"{path}: has other classes than {run}; use the data spec that it was trained with")
        return cls(spec, spec.resolve(allow_missing_masks=True), ListForm.of_spec(spec))


def candidates(known: KnownData | None, folder: Path | None, out: Path) -> tuple[Sample, ...]:
    """Return the images to rank, in the order of their ids: those of `folder`, or else the spec's unlabeled ones.

    Images that the spec has labeled or validates on are left out of the folder's, and masks that an earlier call wrote
    into its folders of tasks below `out` are no images.

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
    tasks = [(out / tool).resolve() for tool in WRITERS]
    # Most calls write no tasks, and to resolve the path of each image takes a while.
    if any(tool.exists() for tool in tasks):
        samples = tuple(one for one in samples if not _is_below(one.image.resolve(), tasks))
    if not samples:
        raise DataError(f"{out}: holds each image to rank in its folders of tasks; choose another --out")
    return tuple(sorted(samples, key=lambda sample: (sample.id, sample.image)))


def true_masks(folder: Path, known: KnownData | None, labels: Labels, samples: tuple[Sample, ...]) -> Truth:
    """Find the true masks of some of `samples` in `folder`, read as the data spec says.

    Args:
        folder: the folder that `--masks` names.
        known: the data spec; without one a mask's values are class ids.
        labels: the classes that the networks know.
        samples: the images to rank.

    Raises:
        ConfigError: there is no such folder.
        DataError: the folder has no mask of a sample, or one that may be another image's.
    """
    coding, ending = (known.sets.coding, known.form.mask_ending) if known else (MaskCoding(labels), "")
    truth = Truth.of_folder(existing_folder(folder, "--masks"), ending, coding)
    if not any(sample.id in truth.masks for sample in samples):
        raise DataError(f"{folder}: --masks has no mask of an image to rank; {samples[0].id}{ending}.png would be one")
    _require_own_masks(folder, truth, samples, known.sets.labeled + known.sets.val if known else ())
    return truth


def _require_own_masks(folder: Path, truth: Truth, samples: Sequence[Sample], labeled: Sequence[Sample]) -> None:
    """Refuse masks that belong to another image of the same id: ids tell images of one folder apart only."""
    image_of = {sample.mask.resolve(): sample.image for sample in labeled if sample.mask is not None}
    first: dict[str, Path] = {}
    for sample in samples:
        mask = truth.masks.get(sample.id)
        if mask is None:
            continue
        other = first.setdefault(sample.id, sample.image)
        if other == sample.image:
            other = image_of.get(mask.resolve(), other)
        if other != sample.image:
            raise DataError(
                f"{folder}: --masks has {mask.relative_to(folder)}, which may be the mask of {other} or of"
                f" {sample.image}: both have the id {sample.id!r}; rank one folder at a time, by --images and --masks"
            )


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def names_of(samples: Sequence[Sample]) -> list[str]:
    """Return the ids of samples, and in place of an id that comes twice the paths of its images."""
    uses = Counter(sample.id for sample in samples)
    return [sample.id if uses[sample.id] == 1 else str(sample.image) for sample in samples]
