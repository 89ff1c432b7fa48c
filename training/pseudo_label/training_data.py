"""A data spec that trains on pseudo-labels and on people's labels alike."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from segkc_deploy import atomic
from segkc_deploy.data.convert import common_folder, convert_masks, id_below, spec_of, write_list
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.labels import Labels
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.sources import SourceImage


def write_training_data(
    out: Path, labels: Labels, pixels: PixelFormat, images: Sequence[SourceImage], sets: ImageSets | None
) -> Path:
    """Write `data.yaml` with the list `labeled.txt` of images and masks, and return its path.

    The labeled and validation images of `sets` take part. Their masks are written as class ids into `out/labeled` and
    `out/val`, since one spec cannot read them by their own rules and pseudo-labels by none.
    """
    data = spec_of(labels, pixels)
    lines = []
    if sets is not None and sets.labeled:
        folder = common_folder(sets.labeled)
        written = convert_masks(sets.labeled, sets, out / "labeled")
        lines += [_line(out, one.image, out / "labeled" / f"{id_below(one, folder)}.png") for one in written]
    lines += [_line(out, image.path, out / "masks" / f"{image.id}.png") for image in images]
    data["labeled"] = {"ids": write_list(out / "labeled.txt", lines)}
    if sets is not None and sets.val:
        folder = common_folder(sets.val)
        ids = [id_below(sample, folder) for sample in convert_masks(sets.val, sets, out / "val")]
        data["val"] = {"images": str(folder), "masks": "val", "ids": write_list(out / "val.txt", ids)}
    path = out / "data.yaml"
    atomic.write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None))
    return path


def _line(out: Path, image: Path, mask: Path) -> str:
    """Return the line of a list: image and mask relative to `out`, with a tab, since paths may hold spaces.

    `..` leads out of `out`, which links would bend: folders are taken as they really are, files as named.
    """
    real = (path.parent.resolve() / path.name for path in (image, mask))
    return "\t".join(Path(os.path.relpath(path, out.resolve())).as_posix() for path in real)
