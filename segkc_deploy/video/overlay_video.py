"""Write a video with the masks over its pictures, in its own timing and with its own sound."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from segkc_deploy.errors import ConfigError
from segkc_deploy.video.result_files import COMMENT
from segkc_deploy.video.source import AudioPacket, Frame, Video

#: Written in fragments: what is there can be played even if the process is killed.
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

#: x264's fastest preset, at the quality of `veryfast` with `crf` 20: files are about 40% larger, for a third of the
#: processor time, which the network needs.
#: Without frames that refer to later ones: in a fragmented file they would move all pictures by two against the sound.
_ENCODING = {"preset": "ultrafast", "crf": "22", "bf": "0"}


#: FFmpeg's numbers: without them players take large videos for BT.709, and colors shift.
_BT601, _LIMITED = 6, 1


class OverlayVideo:
    """An H.264 video of the same timing as `video`, its sound copied. A context manager: leaving it closes the file.

    It begins at time zero: players would show nothing until the first time of a recording that starts at a later one.

    Args:
        path: where it is written, replacing what is there; `.mkv` where `video.sound_container` says so, else `.mp4`.
        video: whose timing and sound it gets; the latter not where no file holds it.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: Path, video: Video) -> None:
        import av

        self.path = path
        with self._writing():
            # A file of Python's: where the disk is full, FFmpeg ends its own without an error.
            self._file = path.open("wb")
            self._container = av.open(self._file, "w", container_options=_FRAGMENTS if path.suffix == ".mp4" else {})
        self._container.metadata["comment"] = COMMENT
        self._stream: Any = self._container.add_stream("libx264", rate=video.rate, options=_ENCODING)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.colorspace = _BT601
        self._stream.codec_context.color_range = _LIMITED
        audio = video.audio if video.sound_container is not None else None
        self._audio = self._container.add_stream_from_template(audio) if audio is not None else None
        self._start: Fraction | None = None  # seconds; known with the first picture
        self._early: list[AudioPacket] = []
        self._last_sound: int | None = None
        self._failed = False

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Add a picture, uint8 (H, W, 3) RGB, at the time of `frame`; all have the size of the first one."""
        import av

        # H.264 halves the color's resolution and so needs even sides.
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._start is None:
            self._begin(frame, *picture.shape[:2])
        # OpenCV converts ten times faster than FFmpeg, and by the same formula, which the stream names.
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
        image = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        image.pts, image.time_base = self._since_start(frame.pts, frame.time_base), frame.time_base
        self._mux(self._stream.encode(image))

    def copy(self, sound: AudioPacket) -> None:
        """Add a piece of the sound; what comes before the first picture, which sets the file's header, waits for it.

        What would begin before the file, or before the sound that is there (where recordings were joined), is left out.
        """
        if self._start is None:
            self._early.append(sound)
            return
        packet = sound.packet
        packet.pts, packet.dts = (self._since_start(time, packet.time_base) for time in (packet.pts, packet.dts))
        if packet.pts < 0 or (self._last_sound is not None and packet.dts <= self._last_sound):
            return
        self._last_sound = packet.dts
        packet.stream = self._audio
        self._mux(packet)

    def _begin(self, frame: Frame, height: int, width: int) -> None:
        sounds = [sound.packet.pts * sound.packet.time_base for sound in self._early]
        self._start = min([frame.pts * frame.time_base, *sounds])
        self._stream.height, self._stream.width = height, width
        self._stream.codec_context.time_base = frame.time_base
        self._stream.codec_context.sample_aspect_ratio = frame.pixel_aspect
        for sound in self._early:
            self.copy(sound)

    def _since_start(self, time: int, time_base: Fraction) -> int:
        assert self._start is not None
        return time - round(self._start / time_base)

    def _mux(self, packets: Any) -> None:
        if self._failed:
            return  # pieces in hand may come after an error, and FFmpeg may crash on them
        self._failed = True
        with self._writing():
            self._container.mux(packets)
            self._file.flush()
        self._failed = False

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what PyAV raises, of which not everything is an OSError, into one line that names the file."""
        import av

        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}; choose another --out") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing(), self._file, self._container:
            if self._start is not None and kind is None:
                self._mux(self._stream.encode(None))
