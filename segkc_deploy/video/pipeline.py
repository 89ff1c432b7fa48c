"""Predict a video: one thread decodes, the network runs, another thread encodes."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.errors import ConfigError
from segkc_deploy.overlay import blend
from segkc_deploy.predictor import Predictor
from segkc_deploy.progress import track
from segkc_deploy.video.frame_lines import Detail, frame_line
from segkc_deploy.video.interrupt import interruptible
from segkc_deploy.video.overlay_video import OverlayVideo
from segkc_deploy.video.smoothing import Flicker, LogitAverage
from segkc_deploy.video.source import AudioPacket, Frame, Video

_Item = TypeVar("_Item")

#: How many frames wait between decoding, network and encoding: enough to even out, and a bound on memory.
_QUEUE = 8


@dataclass(frozen=True)
class VideoOptions:
    """How a video is predicted.

    Attributes:
        batch_size: frames that run at once; more than one delays a live stream.
        alpha: how strongly the overlay shows the colors (0-1); None writes no video.
        detail: what the lines of JSON hold besides areas.
        smooth: decay of the average of logits over time (0-1, below 1); 0 predicts each frame for itself.
    """

    batch_size: int = 1
    alpha: float | None = 0.5
    detail: Detail = "areas"
    smooth: float = 0.0


@dataclass(frozen=True)
class VideoResult:
    """What was done.

    Attributes:
        frames: how many were predicted.
        seconds: how long it took.
        files: what was written.
        flicker: share of pixels (0-1) that change their class from frame to frame; None below two frames.
        flicker_unsmoothed: the same without smoothing, where it was on.
        interrupted: whether Ctrl-C ended it.
    """

    frames: int
    seconds: float
    files: tuple[Path, ...]
    flicker: float | None
    flicker_unsmoothed: float | None
    interrupted: bool


def predict_video(predictor: Predictor, video: Video, out: Path, options: VideoOptions) -> VideoResult:
    """Write `out/<name>.mp4`, the video with its masks, and `out/<name>.jsonl`, a line for each frame.

    `out/<name>.summary.json` appears when all frames are done. Ctrl-C ends it after the frames in hand; what
    was written is complete up to there. Where the video turns out to be damaged it ends as well, and `video.broken`
    tells.

    Raises:
        ConfigError: a file cannot be written, or smoothing is asked of an artifact without logits.
        DataError: there is not one frame.
    """
    masks = _Masks(predictor, options.smooth)
    lines = out / f"{video.name}.jsonl"
    started = time.perf_counter()
    frames = 0
    summary = summary_path(out, video)
    summary.unlink(missing_ok=True)
    with (
        interruptible() as interrupted,
        _writing(lines),
        lines.open("w", encoding="utf-8") as text,
        _overlay(out, video, options) as film,
    ):
        files = (lines,) if film is None else (lines, film.path)
        writer = _Writer(predictor, options, film, text)
        with _in_thread(writer.write) as write, _decoded(video) as items:
            for batch in _batches(
                track(items, "Predicting frames", unit="frames"), predictor.batch_size(options.batch_size), write
            ):
                for frame, mask in zip(batch, masks.of(batch), strict=True):
                    write((frame, mask))
                frames += len(batch)
                if interrupted():
                    break
        seconds = time.perf_counter() - started
        result = VideoResult(frames, seconds, files, masks.flicker.mean, masks.unsmoothed_flicker, interrupted())
    if not result.interrupted:
        with _writing(summary):
            atomic.write_text(summary, _summary(predictor, video, result))
    return result


def summary_path(out: Path, video: Video) -> Path:
    """Return the file that is there when a video is predicted to its end."""
    return out / f"{video.name}.summary.json"


def _summary(predictor: Predictor, video: Video, result: VideoResult) -> str:
    content = {
        "artifact": predictor.manifest.artifact if predictor.manifest else None,
        "frames": result.frames,
        "seconds": round(result.seconds, 3),
        "flicker": result.flicker,
        "flicker_unsmoothed": result.flicker_unsmoothed,
        "ends_early": video.broken,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


class _Masks:
    """Masks of successive frames, smoothed or not, and their flicker."""

    def __init__(self, predictor: Predictor, smooth: float) -> None:
        self._predictor = predictor
        self._average = LogitAverage(predictor, smooth) if smooth else None
        self.flicker = Flicker()
        self._without = Flicker()

    @property
    def unsmoothed_flicker(self) -> float | None:
        return self._without.mean if self._average else None

    def of(self, frames: list[Frame]) -> list[np.ndarray]:
        pictures = [frame.pixels for frame in frames]
        if self._average is None:
            masks = self._predictor.predict(pictures, batch_size=len(pictures))
        else:
            masks = [self._smoothed(picture) for picture in pictures]
        for mask in masks:
            self.flicker.add(mask)
        return masks

    def _smoothed(self, picture: np.ndarray) -> np.ndarray:
        assert self._average is not None
        outputs = self._predictor.infer(self._predictor.preprocess([picture]))
        height, width = picture.shape[:2]
        self._without.add(self._predictor.postprocess(outputs, [(height, width)])[0])
        return self._average.mask(outputs["logits"][0], (height, width))


class _Writer:
    """Writes, in the encoding thread, what comes: frames with their masks, and sound."""

    def __init__(self, predictor: Predictor, options: VideoOptions, film: OverlayVideo | None, lines: TextIO) -> None:
        self._labels = predictor.labels
        self._options = options
        self._film = film
        self._lines = lines

    def write(self, item: tuple[Frame, np.ndarray] | AudioPacket) -> None:
        if isinstance(item, AudioPacket):
            if self._film is not None:
                self._film.copy(item)
            return
        frame, mask = item
        self._lines.write(frame_line(frame, mask, self._labels, self._options.detail) + "\n")
        self._lines.flush()  # a killed process leaves whole lines
        if self._film is not None and self._options.alpha is not None:
            self._film.write(frame, blend(frame.pixels, mask, self._labels, self._options.alpha))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file where writing fails, such as on a full disk; the error itself does not."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another --out") from None


def _overlay(out: Path, video: Video, options: VideoOptions) -> AbstractContextManager[OverlayVideo | None]:
    return nullcontext() if options.alpha is None else OverlayVideo(out, video)


@contextmanager
def _decoded(video: Video) -> Iterator[Iterator[Frame | AudioPacket]]:
    """Yield an iterator over what a thread reads from the video, a few items ahead."""
    source = video.read()
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as thread:
        waiting: deque[Future[Frame | AudioPacket | None]] = deque()

        def items() -> Iterator[Frame | AudioPacket]:
            while True:
                while len(waiting) < _QUEUE:
                    waiting.append(thread.submit(next, source, None))
                item = waiting.popleft().result()
                if item is None:
                    return
                yield item

        try:
            yield items()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _in_thread(work: Callable[[_Item], None]) -> Iterator[Callable[[_Item], None]]:
    """Yield a function that has a thread do `work`, in order; it waits while the thread is too far behind.

    What the work raises is raised by a later call, or at the end of the block.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="encode") as thread:
        waiting: deque[Future[None]] = deque()

        def hand_over(item: _Item) -> None:
            waiting.append(thread.submit(work, item))
            if len(waiting) > _QUEUE:
                waiting.popleft().result()

        yield hand_over
        while waiting:
            waiting.popleft().result()


def _batches(
    items: Iterable[Frame | AudioPacket], size: int, pass_on: Callable[[AudioPacket], None]
) -> Iterator[list[Frame]]:
    """Yield frames in batches of one size of picture, and pass the sound between them on."""
    batch: list[Frame] = []
    for item in items:
        if isinstance(item, AudioPacket):
            pass_on(item)
            continue
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
