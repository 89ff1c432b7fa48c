"""Predict a video in stages that run at the same time, each in threads of its own.

Decoding; resizing for the network; the network (the calling thread, or one for each of its streams); masks and lines of
JSON; overlay and encoding. Frames pass through all of them in order.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.errors import ConfigError
from segkc_deploy.overlay import blend
from segkc_deploy.prediction_files import Settings, network_of, require_same_settings
from segkc_deploy.predictor import Predictor
from segkc_deploy.prefetch import prefetch, run_streams
from segkc_deploy.progress import console, track
from segkc_deploy.video.frame_lines import Detail, frame_line
from segkc_deploy.video.interrupt import interruptible
from segkc_deploy.video.overlay_video import OverlayVideo
from segkc_deploy.video.result_files import VideoResults
from segkc_deploy.video.smoothing import Flicker, LogitAverage
from segkc_deploy.video.sound import codec_name
from segkc_deploy.video.source import AudioPacket, Frame, Video

_Item = TypeVar("_Item")

#: How many frames, or batches of them, wait between two stages: enough to even out, and a bound on memory.
_QUEUE = 4


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

    What an earlier call wrote of a video of this name is deleted first. `out/<name>.summary.json` appears when all
    frames are done. Ctrl-C ends it after the frames in hand; what was written is complete up to there. Where the video
    turns out to be damaged it ends as well, and `video.broken` tells.

    Raises:
        ConfigError: a file cannot be written, would replace one that no earlier call wrote, or smoothing is asked of
            an artifact without logits.
        DataError: there is not one frame.
    """
    if not (pixels := predictor.contract.pixels).is_rgb:
        raise ConfigError(f"{video.name}: a video is RGB, but the artifact takes {pixels}; predict files instead")
    masks = _Masks(predictor, options.smooth)
    results = VideoResults(out, video)
    started = time.perf_counter()
    frames = 0
    with _writing(out):
        results.make_room(overlay=options.alpha is not None)
    if options.alpha is not None and video.audio is not None and video.sound_container is None:
        lost = (
            f"{video.shown}: neither MP4 nor Matroska holds its sound ({codec_name(video.audio)}); the overlay has none"
        )
        console.print(lost, markup=False, soft_wrap=True)
    with (
        results.without_empty_files(),
        interruptible() as interrupted,
        _overlay(results, options) as film,
        _writing(results.lines),
        results.lines.open("w", encoding="utf-8") as text,
    ):
        files = (results.lines,) if film is None else (results.lines, film.path)
        writer = _Writer(predictor, masks, options, film, text)
        with writer.running() as write, _decoded(video) as items:
            batches = _batches(
                track(items, "Predicting frames", unit="frames"), predictor.batch_size(options.batch_size)
            )
            prepared = prefetch(partial(_prepared, predictor), batches, ahead=_QUEUE // 2)
            for item in run_streams(predictor.streams, partial(_predicted, predictor), prepared):
                write(item)
                if isinstance(item, AudioPacket):
                    continue
                frames += len(item[0])
                if interrupted():
                    break
        seconds = time.perf_counter() - started
        result = VideoResult(frames, seconds, files, masks.flicker.mean, masks.unsmoothed_flicker, interrupted())
    if not result.interrupted:
        with _writing(results.summary):
            atomic.write_text(results.summary, _summary(predictor, video, options, result))
    return result


def finished_summary(predictor: Predictor, video: Video, out: Path, options: VideoOptions) -> Path | None:
    """Return the summary in `out` of an earlier call that predicted the whole video; None if there is none.

    A video that ended early is not whole: it may have been copied again since then.

    Raises:
        ConfigError: that call had another network, other options or another video of this name.
    """
    results = VideoResults(out, video)
    if (summary := results.read_summary()) is None or summary.get("ends_early") is not None:
        return None
    settings = summary.get("settings")  # earlier versions noted none
    wanted = _settings(predictor, video, options)
    require_same_settings(out, settings if isinstance(settings, dict) else {}, wanted)
    return results.summary


def _settings(predictor: Predictor, video: Video, options: VideoOptions) -> Settings:
    return {
        "network": network_of(predictor),
        "smooth": options.smooth,
        "frames": options.detail,
        "overlay": options.alpha is not None,
        **_file_of(video),
    }


def _file_of(video: Video) -> Settings:
    """Return what tells a video from another of its name, or from what it was before."""
    if video.file is None:
        return {}
    path = str(video.file).encode(errors="backslashreplace").decode()
    now = video.file.stat()
    changed = datetime.fromtimestamp(now.st_mtime, UTC).isoformat()
    return {"video": path, "video_bytes": now.st_size, "video_changed": changed}


def _summary(predictor: Predictor, video: Video, options: VideoOptions, result: VideoResult) -> str:
    content = {
        "artifact": predictor.manifest.artifact if predictor.manifest else None,
        "settings": _settings(predictor, video, options),
        "frames": result.frames,
        "seconds": round(result.seconds, 3),
        "flicker": result.flicker,
        "flicker_unsmoothed": result.flicker_unsmoothed,
        "ends_early": video.broken,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class _Prepared:
    """Frames and what the network takes of them, uint8 (N, height, width, 3)."""

    frames: list[Frame]
    images: np.ndarray


#: Frames and the network's outputs for them, or sound.
_Predicted = tuple[list[Frame], dict[str, np.ndarray]] | AudioPacket


def _prepared(predictor: Predictor, item: list[Frame] | AudioPacket) -> _Prepared | AudioPacket:
    if isinstance(item, AudioPacket):
        return item
    return _Prepared(item, predictor.preprocess([frame.pixels for frame in item]))


def _predicted(predictor: Predictor, item: _Prepared | AudioPacket) -> _Predicted:
    return item if isinstance(item, AudioPacket) else (item.frames, predictor.infer(item.images))


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

    def of(self, frames: list[Frame], outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the masks, uint8 at each frame's own size, of the network's outputs for the frames."""
        sizes = [frame.pixels.shape[:2] for frame in frames]
        masks = self._predictor.postprocess(outputs, sizes)
        if self._average is not None:
            for mask in masks:
                self._without.add(mask)
            masks = [self._average.mask(*pair) for pair in zip(outputs["logits"], sizes, strict=True)]
        for mask in masks:
            self.flicker.add(mask)
        return masks


class _Writer:
    """The stages behind the network: masks and lines of JSON in one thread, overlay and encoding in another."""

    def __init__(
        self, predictor: Predictor, masks: _Masks, options: VideoOptions, film: OverlayVideo | None, lines: TextIO
    ) -> None:
        self._labels = predictor.labels
        self._masks = masks
        self._options = options
        self._film = film
        self._lines = lines

    @contextmanager
    def running(self) -> Iterator[Callable[[_Predicted], None]]:
        """Yield a function that takes what the network gave; all of it is written at the end of the block."""
        with _in_thread(self._encode) as encode, _in_thread(partial(self._write_lines, encode)) as write:
            yield write

    def _write_lines(self, encode: Callable[[tuple[Frame, np.ndarray] | AudioPacket], None], item: _Predicted) -> None:
        if isinstance(item, AudioPacket):
            encode(item)
            return
        for frame, mask in zip(item[0], self._masks.of(*item), strict=True):
            self._lines.write(frame_line(frame, mask, self._labels, self._options.detail) + "\n")
            self._lines.flush()  # a killed process leaves whole lines
            encode((frame, mask))

    def _encode(self, item: tuple[Frame, np.ndarray] | AudioPacket) -> None:
        if self._film is None or self._options.alpha is None:
            return
        if isinstance(item, AudioPacket):
            self._film.copy(item)
        else:
            self._film.write(item[0], blend(item[0].pixels, item[1], self._labels, self._options.alpha))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file where writing fails, such as on a full disk; the error itself does not."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another --out") from None


def _overlay(results: VideoResults, options: VideoOptions) -> AbstractContextManager[OverlayVideo | None]:
    return nullcontext() if options.alpha is None else OverlayVideo(results.overlay, results.video)


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


def _batches(items: Iterable[Frame | AudioPacket], size: int) -> Iterator[list[Frame] | AudioPacket]:
    """Yield frames in batches, and the sound between them as it comes."""
    batch: list[Frame] = []
    for item in items:
        if isinstance(item, AudioPacket):
            yield item
            continue
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
