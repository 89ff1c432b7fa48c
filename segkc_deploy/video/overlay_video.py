"""Write a video with the masks over its pictures, in its own timing and with its own sound."""

import contextlib
from collections.abc import Iterator
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

    Args:
        path: where it is written, replacing what is there; `.mp4`, or `.mkv` where MP4 cannot hold the sound.
        video: whose timing and sound it gets.

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
        self._audio = self._container.add_stream_from_template(video.audio) if video.audio is not None else None
        self._sized = False
        self._early: list[AudioPacket] = []

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Add a picture, uint8 (H, W, 3) RGB, at the time of `frame`; all have the size of the first one."""
        import av

        # H.264 halves the color's resolution and so needs even sides.
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._sized:
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.codec_context.time_base = frame.time_base
            self._sized = True
            for sound in self._early:
                self.copy(sound)
        # OpenCV converts ten times faster than FFmpeg, and by the same formula, which the stream names.
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
        image = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        image.pts, image.time_base = frame.pts, frame.time_base
        self._mux(self._stream.encode(image))

    def copy(self, sound: AudioPacket) -> None:
        """Add a piece of the sound; what comes before the first picture, which sets the file's header, waits for it."""
        if not self._sized:
            self._early.append(sound)
            return
        sound.packet.stream = self._audio
        self._mux(sound.packet)

    def _mux(self, packets: Any) -> None:
        with self._writing():
            self._container.mux(packets)
            self._file.flush()

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
            if self._sized and kind is None:
                self._mux(self._stream.encode(None))
