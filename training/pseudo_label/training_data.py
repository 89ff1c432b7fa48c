"""A data spec that trains on pseudo-labels and on people's labels alike."""

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from segkc_deploy import atomic
from segkc_deploy.data.convert import convert_masks, ids_below, line_of_paths, spec_of
from segkc_deploy.data.list_file import write_list
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.labels import Labels
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.sources import SourceImage

#: What `write_training_data` writes.
TRAINING_DATA = ("data.yaml", "labeled.txt", "labeled", "val.txt", "val")


def write_training_data(
    out: Path, labels: Labels, pixels: PixelFormat, images: Sequence[SourceImage], sets: ImageSets | None
) -> tuple[Path, list[str]]:
    """Write `data.yaml` with the list `labeled.txt` of images and masks.

    The labeled and validation images of `sets` take part. Their masks are written as class ids, with the ignored value
    of `labels`, into `out/labeled` and `out/val`, since one spec cannot read them by their own rules and pseudo-labels
    by none.

    Returns:
        the path of `data.yaml`, and why masks of `sets` were left out.
    """
    left_out: list[str] = []
    data = spec_of(labels, pixels)
    lines = []
    if sets is not None:
        lines += _converted(out, "labeled", sets.labeled, sets, labels, left_out.append)
    lines += [line_of_paths(out, image.path, out / "masks" / f"{image.id}.png") for image in images]
    data["labeled"] = {"ids": write_list(out / "labeled.txt", lines)}
    if sets is not None and sets.val:
        converted = _converted(out, "val", sets.val, sets, labels, left_out.append)
        data["val"] = {"ids": write_list(out / "val.txt", converted)}
    path = out / "data.yaml"
    atomic.write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None))
    return path, left_out


def _converted(
    out: Path, name: str, samples: Sequence[Sample], sets: ImageSets, labels: Labels, report: Callable[[str], None]
) -> list[str]:
    """Write masks of class ids into `out/name` and return the lines of a list of the images and these masks."""
    if not samples:
        return []
    ids = ids_below(samples)
    return [
        line_of_paths(out, sample.image, out / name / f"{ids[sample.image]}.png")
        for sample in convert_masks(samples, sets, out / name, report, labels.ignore_index)
    ]
