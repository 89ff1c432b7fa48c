"""An event file of TensorBoard, written at once."""

import os
import socket
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar

from segkc_deploy.atomic import naming


class TensorBoardFile:
    """Scalars and pictures of one session of a training.

    `SummaryWriter` writes in a thread of its own, which on a full disk prints a traceback and says nothing to the
    training. Here an event is on its way to the disk when the method returns, and an error names the file.

    Args:
        folder: where event files of a run lie.
        first_step: steps already done; TensorBoard then hides what earlier files hold beyond them.

    Raises:
        OSError: the file cannot be written; so do all methods.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Names sort by time, to the microsecond, since TensorBoard reads the files in that order.
        self.path = folder / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        with naming(self.path):
            self._file = self.path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        if first_step:
            self._write(Event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add a value to each curve."""
        for name, value in values.items():
            self._add(step, scalar(name, value))

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture, uint8 (H, W, 3)."""
        self._add(step, image(name, pixels, dataformats="HWC"))

    def close(self) -> None:
        """Close the file."""
        with naming(self.path):
            self._file.close()

    def _add(self, step: int, summary: Summary) -> None:
        self._write(Event(step=step, summary=summary))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self.path):
            self._records.write(event.SerializeToString())
            self._records.flush()
