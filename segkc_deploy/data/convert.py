"""Masks and annotations of any format that is read into PNG masks of class ids, with a data spec for them."""

import io
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from PIL import Image

from segkc_deploy import atomic
from segkc_deploy.data.files import files_by_id
from segkc_deploy.data.foreign_spec import foreign_spec
from segkc_deploy.data.guess import guess_spec
from segkc_deploy.data.images import IMAGE_SUFFIXES
from segkc_deploy.data.list_file import write_list
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.spec import DataSpec, data_spec, load_data_spec
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.invocation import suggested_command
from segkc_deploy.labels import Labels
from segkc_deploy.pixel_format import RGB, PixelFormat
from segkc_deploy.progress import console
from segkc_deploy.validation import load_yaml

#: A damaged or hostile archive stops here instead of filling the disk.
_LARGEST_ARCHIVE = 2**36


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip into `folder` and return the folder that holds its files.

    Raises:
        DataError: it is no zip, damaged, too large, or a name in it leads out of the folder.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > _LARGEST_ARCHIVE:
                raise DataError(f"{archive}: holds more than {_LARGEST_ARCHIVE >> 30} GiB; unpack it yourself")
            for member in members:
                parts = PurePosixPath(member.filename.replace("\\", "/")).parts
                if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0]:
                    raise DataError(f"{archive}: the name {member.filename!r} leads out of the archive")
            file.extractall(folder, members)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"{archive}: not a zip that can be unpacked: {error}") from None
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def open_source(source: Path, out: Path) -> tuple[DataSpec, list[str]]:
    """Return the data spec that `source` is, that it holds or that is guessed for it, and remarks on where it is from.

    A zip is unpacked into `out/source`.

    Raises:
        UserError: the source cannot be read, nothing to convert was found in it, or `out` is the spec's own folder.
    """
    spec, remarks = _spec_and_remarks(source, out)
    if out.resolve() == spec.path.resolve().parent:
        # `data.yaml`, lists and masks of the source may have the names of the results.
        raise ConfigError(f"{out}: holds the data set that is converted; choose another --out")
    return spec, remarks


def _spec_and_remarks(source: Path, out: Path) -> tuple[DataSpec, list[str]]:
    if source.is_file() and source.suffix.lower() in {".yaml", ".yml"}:
        return load_data_spec(source), []
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    folder = source
    if source.is_file() and source.suffix.lower() == ".zip":
        folder = unpack(source, out / "source")
    if not folder.is_dir():
        raise DataError(
            f"{source}: neither a data spec (.yaml), a folder nor a .zip; give the folder that holds it and the images,"
            f" such as {source.parent}"
        )
    file = folder / "data.yaml"
    if file.is_file() and foreign_spec(load_yaml(file)) is None:
        return load_data_spec(file), [f"data spec: {file}"]
    guess = guess_spec(folder)
    if "labeled" in guess.spec and "val" not in guess.spec:
        # `init` does not replace the file of another tool.
        split, to_split = (folder / "spec.yaml", ["--out", folder / "spec.yaml"]) if file.is_file() else (file, [])
        guess.remarks.append(
            "val: no folder of its own, so no image is set aside for validation;"
            f" `{suggested_command('init', folder, *to_split)}` writes a data spec with a split: then convert {split}"
        )
    return data_spec(guess.spec, file), guess.remarks


def convert(spec: DataSpec, out: Path) -> tuple[int, int]:
    """Write `out/masks/{labeled,val}/<image>.png` and `out/data.yaml`, which names the images where they are.

    A mask that cannot be used is named on stderr and left out.

    Returns:
        how many masks were written, and how many were left out.

    Raises:
        ConfigError: no image of the spec has a mask.
    """
    sets = spec.resolve(allow_missing_masks=True)
    masked = {
        name: [sample for sample in samples if sample.mask is not None]
        for name, samples in (("labeled", sets.labeled), ("val", sets.val))
    }
    if not any(masked.values()):
        raise ConfigError(f"{spec.path}: no image has a mask to convert")
    data = spec_of(sets.labels, sets.pixels)
    written = 0
    for name, samples in masked.items():
        if not samples:
            continue
        converted = convert_masks(samples, sets, out / "masks" / name, _print_left_out)
        data[name] = _section(out, name, samples, converted, f"masks/{name}")
        written += len(converted)
    if sets.unlabeled:
        data["unlabeled"] = _section(out, "unlabeled", sets.unlabeled, sets.unlabeled)
    atomic.write_text(out / "data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    return written, sum(map(len, masked.values())) - written


def _section(
    out: Path, name: str, samples: Sequence[Sample], chosen: Sequence[Sample], masks: str | None = None
) -> dict[str, str]:
    """Write the list of the chosen samples, by ids or where these are not clear by paths; return the spec's section.

    Args:
        out: the folder of the spec.
        name: of the section.
        samples: those whose common folder gave the masks their ids.
        chosen: those of them that are listed.
        masks: the folder of their masks below `out`; None for images without.
    """
    folder, ids = common_folder(samples), ids_below(samples)
    if _ids_are_clear(folder):
        listed = write_list(out / f"{name}.txt", [ids[sample.image] for sample in chosen])
        return {"images": str(folder)} | ({"masks": masks} if masks else {}) | {"ids": listed}
    lines = [
        line_of_paths(out, sample.image, *([out / masks / f"{ids[sample.image]}.png"] if masks else []))
        for sample in chosen
    ]
    return {"ids": write_list(out / f"{name}.txt", lines)}


def _ids_are_clear(folder: Path) -> bool:
    """Return whether images below a folder can be found by their ids: masks may lie beside them, of the same names."""
    if folder == Path(folder.anchor):
        return False  # the images come from folders far apart, and the whole disk would be searched
    try:
        files_by_id(folder, IMAGE_SUFFIXES)
    except DataError:
        return False
    return True


def line_of_paths(out: Path, *files: Path) -> str:
    """Return the line of a list: an image and perhaps its mask below `out`, with a tab, since paths may hold spaces.

    `..` leads out of `out`, which links would bend: folders are taken as they really are, files as named.
    """
    real = (path.parent.resolve() / path.name for path in files)
    return "\t".join(Path(os.path.relpath(path, out.resolve())).as_posix() for path in real)


def spec_of(labels: Labels, pixels: PixelFormat) -> dict[str, Any]:
    """Return what a data spec says of the classes and of the images' pixels, without the images."""
    spec: dict[str, Any] = {
        "classes": {name: list(color) for name, color in zip(labels.names, labels.palette, strict=True)},
        "ignore_index": labels.ignore_index,
    }
    return spec if pixels == RGB else spec | {"bands": pixels.bands, "bits": pixels.bits}


def convert_masks(
    samples: Sequence[Sample],
    sets: ImageSets,
    out: Path,
    report: Callable[[str], None],
    ignore_index: int | None = None,
) -> list[Sample]:
    """Write `out/<id>.png` of class ids for the masks of samples that have one, and return those that were written.

    Args:
        samples: their masks are written; the ids are those of `ids_below`.
        sets: what the masks' values mean.
        out: the folder.
        report: is given the reason for each mask that cannot be used, which is left out.
        ignore_index: the ignored value of the written masks, no class id; by default that of `sets`.
    """
    ids, written = ids_below(samples), []
    for sample in samples:
        try:
            mask = read_mask(sample, sets.coding)
        except DataError as error:
            report(str(error))
            continue
        if ignore_index is not None:
            mask = np.where(mask == sets.labels.ignore_index, np.uint8(ignore_index), mask)
        _write_mask(mask, out / f"{ids[sample.image]}.png")
        written.append(sample)
    return written


def common_folder(samples: Sequence[Sample]) -> Path:
    """Return the folder below which the images of all samples are."""
    return Path(os.path.commonpath([sample.image.absolute().parent for sample in samples]))


def ids_below(samples: Sequence[Sample]) -> dict[Path, str]:
    """Return by image its path below the folder of all, without the suffix unless another image differs in that."""
    folder = common_folder(samples)
    paths = {sample.image: sample.image.absolute().relative_to(folder) for sample in samples}
    count = Counter(path.with_suffix("") for path in paths.values())
    return {
        image: (path.with_suffix("") if count[path.with_suffix("")] == 1 else path).as_posix()
        for image, path in paths.items()
    }


def _print_left_out(reason: str) -> None:
    console.print(f"left out: {reason}", style="yellow", markup=False, soft_wrap=True)


def _write_mask(mask: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, buffer.getvalue())
