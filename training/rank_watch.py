"""Ends every rank of a job when one of them ends, and says which one and why.

A rank that dies leaves the others waiting in a collective operation: gloo notices a closed connection, NCCL may wait
for as long as its timeout. A thread of every rank therefore reports to a key-value store of rank 0, once a second, that
its process lives, and looks there whether the job has ended. Nothing of it touches the device or waits for a step.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

from lightning.fabric import Fabric
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from segkc_deploy.errors import RankDiedError, SegKCError
from segkc_deploy.progress import console
from segkc_deploy.training.distributed import keep_process_group
from segkc_deploy.training.stop_request import SIGNALS

#: Seconds between two reports of a rank.
_PERIOD = 1.0
#: After so many seconds without a report, a rank counts as dead if a collective operation has failed too …
_SILENT_AFTER_FAILURE = 8.0
#: … and after so many if nothing else is known: a machine that swaps may keep a living process silent for a while.
_SILENT = 40.0
#: Seconds that the rank with the store waits for the others to read why the job ended.
_FAREWELL = 15.0
_TIMEOUT = timedelta(seconds=10)
#: The last report of a rank that ends in an orderly way.
_DONE = b"done"


@dataclass(frozen=True)
class _End:
    """Why the job ends: the exit code of all ranks, and what rank 0 prints; empty where the rank itself reports it."""

    rank: int
    code: int
    message: str = ""


@contextmanager
def watched_ranks(fabric: Fabric) -> Iterator[None]:
    """End this process when another rank of the launched `fabric` fails, dies or stops; tell the others when this does.

    Raises:
        RankDiedError: the body failed since another rank has died.
    """
    watch = _RankWatch(fabric)
    end = _End(watch.rank, 1)
    try:
        yield
        end = _End(watch.rank, 0)
    except SegKCError as error:
        end = _End(watch.rank, error.exit_code, "" if watch.rank == 0 else str(error))
        raise
    except OSError as error:
        end = _End(watch.rank, 2, "" if watch.rank == 0 else str(error))
        raise
    except RuntimeError:
        if died := watch.who_died():
            console.quiet = False  # the one that shows errors is gone
            raise RankDiedError(died) from None
        raise
    finally:
        if end.code:
            keep_process_group()
        watch.close(end)


class _RankWatch:
    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.ranks = fabric.global_rank, fabric.world_size
        host = os.environ["MASTER_ADDR"]
        store = None
        if self.rank == 0:
            store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_TIMEOUT)
        port = fabric.broadcast(store.port if store else 0)
        self._store = store or TCPStore(host, port, wait_for_workers=False, timeout=_TIMEOUT)
        self._store.set(f"process {self.rank}", f"process {os.getpid()} on host {socket.gethostname()}")
        self._report("0")
        if self.rank == 0:
            self._store.set("end", "")
        fabric.barrier()
        #: Whom this rank watches: rank 0 has the store, so the others need to know of it alone.
        others = range(1, self.ranks) if self.rank == 0 else [0]
        self._last = {rank: (b"", time.monotonic()) for rank in others}
        self._processes = {rank: self._store.get(f"process {rank}").decode() for rank in others}
        self._died = ""
        self._body_failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rank watch", daemon=True)
        self._thread.start()

    def who_died(self) -> str:
        """Wait until a rank counts as dead, and return which one in words; empty where all live.

        Where another rank has ended the job, this process ends instead.
        """
        self._body_failed = True
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:  # a launcher asks all ranks to stop when one has died
                signal.signal(number, signal.SIG_IGN)
        self._thread.join(_SILENT_AFTER_FAILURE + 4 * _PERIOD)
        return self._died

    def close(self, end: _End) -> None:
        """Report how this rank has ended."""
        self._stop.set()
        self._thread.join()
        self._say_goodbye(end)

    def _watch(self) -> None:
        count = 0
        while not self._stop.wait(_PERIOD):
            count += 1
            try:
                self._report(str(count))
                ended = self._store.get("end")
                reports = self._reports()
            except DistError:
                self._lose(0)
                return
            if ended:
                end = _End(**json.loads(ended))
                self._exit(end, end.message if self.rank == 0 else "")
            for rank, report in reports.items():
                before, since = self._last[rank]
                if report != before:
                    self._last[rank] = (report, time.monotonic())
                elif report != _DONE and time.monotonic() - since > self._patience():
                    self._lose(rank)
                    return

    def _patience(self) -> float:
        return _SILENT_AFTER_FAILURE if self._body_failed else _SILENT

    def _lose(self, rank: int) -> None:
        """Note that a rank has died; end this process if its main thread still waits for that rank."""
        del self._last[rank]
        self._died = f"rank {rank} of {self.ranks} ({self._processes[rank]}) has died"
        # The main thread mostly fails by itself, and then ends with the same message in an orderly way.
        deadline = time.monotonic() + _SILENT_AFTER_FAILURE
        while not self._body_failed and time.monotonic() < deadline:
            if self._stop.wait(_PERIOD / 10):
                return
        if not self._body_failed:
            self._exit(_End(self.rank, RankDiedError.exit_code), self._died)

    def _exit(self, end: _End, message: str) -> None:
        """End this process at once: its main thread may wait in a collective operation, which nothing interrupts."""
        if message:
            print(f"error: {message}", file=sys.stderr)
        self._say_goodbye(end)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)

    def _say_goodbye(self, end: _End) -> None:
        """Tell the others why this rank ends; rank 0 waits until they know, since its store goes with it."""
        with suppress(DistError):  # rank 0 has gone, so there is nobody to tell
            if end.code:
                self._store.compare_set("end", "", json.dumps(asdict(end)))
            self._report(_DONE.decode())
            deadline = time.monotonic() + _FAREWELL
            while self.rank == 0 and time.monotonic() < deadline and set(self._reports().values()) - {_DONE}:
                time.sleep(_PERIOD / 10)

    def _report(self, text: str) -> None:
        self._store.set(f"report {self.rank}", text)

    def _reports(self) -> dict[int, bytes]:
        values = self._store.multi_get([f"report {rank}" for rank in self._last])
        return dict(zip(self._last, values, strict=True))
