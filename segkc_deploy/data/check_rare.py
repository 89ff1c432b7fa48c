"""What `check` says of classes that fill few pixels: the settings that help, by how common and how large they are."""

from segkc_deploy.data.set_report import SetReport

_RARE_SHARE = 0.005
#: Networks predict on a grid of about four pixels; below this many pixels an image, a class is a few of its cells.
_SMALL_PIXELS = 256
#: Pixels of an input that a common GPU still trains and validates with.
_LARGEST_SIZE = 2048 * 2048


def rare_class_ids(report: SetReport) -> list[int]:
    """Return the classes with a pixel, but less than 0.5% of the labeled ones."""
    most = _RARE_SHARE * report.labeled_pixels
    return [class_id for class_id, pixels in enumerate(report.class_pixels) if 0 < pixels < most]


def rare_classes(report: SetReport, names: tuple[str, ...]) -> str:
    """Return the warning about classes with few of the labeled pixels; "" where there are none."""
    rare = {
        names[class_id]: (
            report.class_pixels[class_id] / report.labeled_pixels,
            report.class_pixels[class_id] / max(report.class_images[class_id], 1),
        )
        for class_id in rare_class_ids(report)
    }
    if not rare:
        return ""
    message = (
        f"classes with less than {100 * _RARE_SHARE:g}% of the labeled pixels, which plain cross-entropy hardly learns:"
        f" {', '.join(f'{name} ({100 * share:.2f}%)' for name, (share, _) in rare.items())}; try"
        " -o supervision.class_weights=log -o supervision.largest_class_weight=5 -o supervision.dice=1"
        " -o weak.rare_class_crops=0.5"
    )
    small = [f"{name} ({pixels:.0f})" for name, (_, pixels) in rare.items() if pixels < _SMALL_PIXELS]
    height, width = (2 * side for side in report.sizes.median) if report.sizes else (0, 0)
    if small and 0 < height * width <= _LARGEST_SIZE:
        message += (
            f", and at twice the size, since some fill few pixels of an image, {', '.join(small)}:"
            f" -o weak.scale=[1,3] -o validation.size=[{height},{width}]"
        )
    return f"{message} (docs/training.md, Rare classes)"
