"""Frames of a video file, a stream, a camera or stdin."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from segkc_deploy.errors import DataError, MissingDependencyError
from segkc_deploy.sources import VIDEO_SUFFIXES
from segkc_deploy.video.address import camera_number, is_url, place, result_name, shown
from segkc_deploy.video.running_time import RunningTime
from segkc_deploy.video.sound import sound_container

#: Formats whose header says how long the video is; other ones guess it from what is there.
_WITH_DURATION = frozenset({"mp4", "matroska"})
#: Seconds, and share of the duration, that may be missing before a video counts as cut.
_MISSING = (1.0, 0.02)

#: Seconds that opening a stream, and waiting for its next packet, may take.
_TIMEOUT = (15.0, 30.0)


def names_video(source: str) -> bool:
    """Whether `--source` names a video: a file by its suffix, a stream by its scheme, a camera, or `-` for stdin."""
    is_file = PurePath(source).suffix.lower() in VIDEO_SUFFIXES
    return source == "-" or camera_number(source) is not None or is_url(source) or is_file


@dataclass(frozen=True)
class Frame:
    """A picture of a video: uint8 (H, W, 3) RGB, upright, with its place in time.

    `pixel_aspect` is the width of a pixel divided by its height, as it is to be shown.
    """

    pixels: np.ndarray
    index: int
    pts: int
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)

    @property
    def seconds(self) -> float:
        """Seconds since the time zero of the video, which may be long before its first picture."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True)
class AudioPacket:
    """A piece of the sound, as it is compressed in the video."""

    packet: Any


class Video:
    """A video that is being read.

    Attributes:
        name: under which its results are written.
        rate: pictures per second, on average.
        audio: the audio stream, or None.
        sound_container: `mp4` or `mkv`, which hold the sound as it is; None where neither does, or there is none.
        shown: the source as messages name it, without a password.
        broken: why reading ended early; None while all is well.
    """

    def __init__(self, container: Any, stream: Any, source: str) -> None:
        self._container = container
        self._source = source
        self._stream = stream
        self._stream.thread_type = "AUTO"
        self.shown = shown(source)
        self.name = result_name(source)
        self.rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.audio = next(iter(container.streams.audio), None)
        self.sound_container = sound_container(self.audio) if self.audio is not None else None
        self.broken: str | None = None
        self._last: int | None = None
        self._end = 0.0

    @property
    def file(self) -> Path | None:
        """The file that the video is read from; None for a stream or a camera."""
        path = Path(self._source)
        return path.absolute() if path.is_file() else None

    def is_file(self, path: Path) -> bool:
        """Whether the video is read from the file at `path`."""
        return path.exists() and Path(self._source).exists() and path.samefile(self._source)

    def read(self) -> Iterator[Frame | AudioPacket]:
        """Yield frames, and the sound between them; ends where the video is damaged, which `broken` then tells."""
        import av

        streams = [self._stream] if self.sound_container is None else [self._stream, self.audio]
        time = RunningTime(self._stream, self.rate, overflows="mpegts" in self._formats())
        index = 0
        try:
            for packet in self._container.demux(streams):
                time.move(packet)
                if packet.stream is not self._stream:
                    # Before time zero there is only the encoder's run-up, which players do not play; a copy would have
                    # to begin with it and shift all pictures.
                    if packet.dts is not None and packet.pts is not None and packet.pts >= 0:
                        yield AudioPacket(packet)
                    continue
                for picture in packet.decode():
                    yield self._frame(picture, index)
                    index += 1
        except av.FFmpegError as error:
            for picture in self._undelivered():
                yield self._frame(picture, index)
                index += 1
            self.broken = f"{self.shown}: ends early, after {index} frames: {error.strerror}"
        if index == 0:
            hint = "; of MP4 only files with their index first (faststart) can be piped" if self._source == "-" else ""
            raise DataError((self.broken or f"{self.shown}: holds no picture") + hint)
        duration = self._duration()
        if self.broken is None and duration - self._end > max(_MISSING[0], _MISSING[1] * duration):
            self.broken = (
                f"{self.shown}: ends early, after {index} frames: its header says {duration:.1f} seconds,"
                f" its pictures end at {self._end:.1f}; copy it again"
            )

    def _formats(self) -> list[str]:
        return list(self._container.format.name.split(","))

    def _undelivered(self) -> list[Any]:
        """Return the pictures that the decoder holds back, to bring them into order, when reading breaks off."""
        import av

        with contextlib.suppress(av.FFmpegError):
            return list(self._stream.codec_context.decode(None))
        return []

    def _duration(self) -> float:
        """Return the seconds that the pictures take by the header; 0 where it does not say."""
        if _WITH_DURATION.isdisjoint(self._formats()):
            return 0.0
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        # The whole file's, which sound may determine.
        return float(self._container.duration or 0) / 1e6 if self.audio is None else 0.0

    def _frame(self, picture: Any, index: int) -> Frame:
        pixels = picture.to_ndarray(format="rgb24")
        if turns := round(picture.rotation / 90) % 4:
            pixels = np.ascontiguousarray(np.rot90(pixels, turns))
        aspect = self._stream.sample_aspect_ratio or Fraction(1)  # None or 0 where it is not known
        aspect = 1 / aspect if turns % 2 else aspect
        if picture.pts is None:  # some cameras and raw streams
            return Frame(pixels, index, index, 1 / self.rate, aspect)
        # AVI stores the times in the order of decoding; pictures come in the order of showing.
        self._last = picture.pts if self._last is None else max(picture.pts, self._last + 1)
        time_base = picture.time_base or self._stream.time_base
        self._end = float((self._last + (picture.duration or 0)) * time_base)
        return Frame(pixels, index, self._last, time_base, aspect)


@contextlib.contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Open a video file, a stream by its URL, a camera (`camera` or `camera:1`), or `-` for a video on stdin.

    Raises:
        DataError: it cannot be opened, or has no pictures.
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingDependencyError(
            'videos are read by PyAV, which is not installed: pip install "segkc-deploy[video]"'
        ) from None
    file, options = place(source)
    try:
        container = av.open(file, timeout=_TIMEOUT, **options)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{shown(source)}: cannot be opened as a video: {error.strerror}") from None
    with container:
        yield Video(container, _pictures(container, shown(source)), source)


def _pictures(container: Any, name: str) -> Any:
    """Return the stream of a container's pictures.

    Raises:
        DataError: there is none, or nothing decodes it.
    """
    from av.stream import Disposition

    # The cover of a piece of music is a stream of a single picture.
    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not streams:
        raise DataError(f"{name}: holds no pictures" + (", only sound" if container.streams.audio else " and no sound"))
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise DataError(f"{name}: its pictures are in a format that FFmpeg does not know; convert it to H.264")
    return stream
