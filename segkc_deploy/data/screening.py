"""A quick look at the headers of labeled files before a command that reads the pixels only later."""

from concurrent.futures import ThreadPoolExecutor

from segkc_deploy.data.annotations.pairing import BY_ORDER, is_paired_by_order
from segkc_deploy.data.exif import orientation
from segkc_deploy.data.headers import PALETTES_DIFFER, TURNED, palette_conflicts, palette_of
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.progress import console

_THREADS = 8
_MOST_NAMED = 5


def screen(sets: ImageSets) -> None:
    """Look at the headers of all images with masks.

    Warns on stderr of images with an EXIF rotation whose masks have none, and of masks paired by order alone.

    Raises:
        DataError: palettes differ between the masks.
    """
    samples = [sample for sample in (*sets.labeled, *sets.val) if sample.mask is not None]
    masks = [sample.mask for sample in samples if sample.mask is not None]
    with ThreadPoolExecutor(_THREADS) as executor:
        if not sets.coding.by_color:
            palettes = list(executor.map(palette_of, masks))
            if any(palette_conflicts(zip(masks, palettes, strict=True))):
                used = executor.map(lambda path: palette_of(path, used_only=True), masks)
                if conflicts := list(palette_conflicts(zip(masks, used, strict=True))):
                    raise DataError(f"{conflicts[0]} ({len(conflicts)} masks differ): {PALETTES_DIFFER}")
        turns = executor.map(lambda sample: orientation(sample.image) != 1, samples)
        turned = [sample for sample, turn in zip(samples, turns, strict=True) if turn]
    turned = [sample for sample in turned if sample.mask is not None and orientation(sample.mask) == 1]
    warn_of(BY_ORDER, [sample for sample in samples if sample.mask is not None and is_paired_by_order(sample.mask)])
    warn_of(f"{TURNED}. Look at them with `check --pictures DIR`", turned)


def warn_of(message: str, samples: list[Sample]) -> None:
    """Print a warning on stderr that names the first of `samples`; nothing where there is none."""
    if samples:
        names = ", ".join(str(sample.image) for sample in samples[:_MOST_NAMED])
        more = f" and {len(samples) - _MOST_NAMED} more" if len(samples) > _MOST_NAMED else ""
        console.print(f"warning: {message}: {names}{more}", style="yellow", markup=False, soft_wrap=True)
