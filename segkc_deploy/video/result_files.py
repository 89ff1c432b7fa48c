"""Which files `predict` writes of a video, and whether one that is there is an earlier result or somebody else's."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkc_deploy.errors import ConfigError
from segkc_deploy.prediction_record import foreign_file
from segkc_deploy.video.source import Video

#: The comment in the header of every overlay video, by which it is known again.
COMMENT = "written by segkc-deploy predict"

#: How every line of JSON begins.
_FIRST_KEY = b'{"frame":'

#: What every summary holds.
_SUMMARY_KEYS = {"artifact", "frames", "flicker"}


@dataclass(frozen=True)
class VideoResults:
    """The files that are written of `video` into `folder`."""

    folder: Path
    video: Video

    @property
    def lines(self) -> Path:
        """A line of JSON for each frame."""
        return self._named("jsonl")

    @property
    def summary(self) -> Path:
        """The file that is there when the video is predicted to its end."""
        return self._named("summary.json")

    @property
    def overlay(self) -> Path:
        """The video with its masks: `.mp4`, or `.mkv` where only Matroska can hold the sound."""
        return self._named(self.video.sound_container or "mp4")

    def _named(self, ending: str) -> Path:
        return self.folder / f"{self.video.name}.{ending}"

    def read_summary(self) -> dict[str, Any] | None:
        """Return what the summary says; None where there is none, or it is not one of `predict`."""
        try:
            content = json.loads(self.summary.read_bytes())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and content.keys() >= _SUMMARY_KEYS else None

    def make_room(self, overlay: bool) -> None:
        """Delete what an earlier call wrote of a video of this name.

        Args:
            overlay: whether an overlay video is going to be written.

        Raises:
            ConfigError: a file that no earlier call wrote, or the video itself, would be replaced. Nothing is deleted.
        """
        needed = (self.lines, self.summary, self.overlay) if overlay else (self.lines, self.summary)
        for path in needed:
            if self.video.is_file(path):
                raise ConfigError(f"{path}: would replace the video that is predicted; choose another --out")
            if os.path.lexists(path) and not self._is_own(path):
                raise foreign_file(path)
        for path in (self.lines, self.summary, self._named("mp4"), self._named("mkv")):
            if not self.video.is_file(path) and self._is_own(path):
                path.unlink()

    @contextmanager
    def without_empty_files(self) -> Iterator[None]:
        """Delete at the end of the block what it began to write, where nothing came of it."""
        try:
            yield
        finally:
            for path in (self.lines, self.overlay):
                if path.is_file() and path.stat().st_size == 0 and not self.video.is_file(path):
                    path.unlink()

    def _is_own(self, path: Path) -> bool:
        """Whether `path` is a file with what `predict` writes, or empty, as a killed run leaves it."""
        if not path.is_file():
            return False
        if path.stat().st_size == 0:
            return True
        if path == self.summary:
            return self.read_summary() is not None
        if path != self.lines:
            return _is_overlay(path)
        with path.open("rb") as file:
            return file.read(len(_FIRST_KEY)) == _FIRST_KEY


def _is_overlay(path: Path) -> bool:
    import av

    try:
        with av.open(str(path)) as container:
            return container.metadata.get("comment", container.metadata.get("COMMENT")) == COMMENT
    except (av.FFmpegError, ValueError):
        return False
