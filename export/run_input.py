"""What a run's network knows and takes, from the header of its file."""

from pathlib import Path

from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.training.files.network_file import read_metadata


def classes_and_pixels(run: Path, role: str) -> tuple[tuple[str, ...], PixelFormat]:
    """Return the class names of the `junior` or the `senior` of a run, and what images it takes.

    Raises:
        RunDirectoryError: the run has no such network.
    """
    metadata = read_metadata(run / f"{role}.safetensors")
    return metadata.labels.names, metadata.network.pixels
