"""One running time for a recording whose own times start again."""

from fractions import Fraction
from typing import Any

#: Seconds by which times may go back within a part: a camera's clock is not exact; and where only the times of showing
#: are known, pictures are stored in another order.
_JITTER, _REORDERED = 0.2, 1.0

#: MPEG-TS counts to here. FFmpeg takes a first time that comes back for an overflow, and adds this to it.
_OVERFLOW = 1 << 33
#: Seconds from one packet to the next that no overflow takes.
_LONG = 10


class RunningTime:
    """Lets the times of packets run on where files were joined, or an encoder started again at zero.

    The pictures of a new part begin where those of the part before it end, and the sound moves with them.

    Args:
        video: the stream of the pictures.
        rate: pictures per second, until there are two of them.
        overflows: whether the format is MPEG-TS.
    """

    def __init__(self, video: Any, rate: Fraction, overflows: bool) -> None:
        self._video = video
        self._overflows = overflows
        #: Seconds by which each part is late, where the pictures so far end, and from one of them to the next.
        self._offsets = [Fraction(0)]
        self._end = Fraction(0)
        self._step = 1 / rate
        #: Each stream's part, and its last time of decoding and of showing, in its own units. Each is compared with its
        #: own kind: Matroska's first packets have no time of decoding, and those after them begin at zero.
        self._parts: dict[int, int] = {}
        self._last: dict[tuple[int, bool], int] = {}

    def move(self, packet: Any) -> None:
        """Move the times of a packet; packets come in the file's order."""
        own = packet.pts if packet.dts is None else packet.dts
        if own is None:
            return
        index, unit = packet.stream_index, packet.time_base
        kind = (index, packet.dts is None)
        last = self._last.get(kind, own)
        self._last[kind] = own
        if self._starts_again(last, own, packet):
            self._parts[index] = self._parts.get(index, 0) + 1
            if packet.stream is self._video:
                begin = own if packet.pts is None else packet.pts
                self._offsets.append(self._end - begin * unit)
        elif packet.stream is self._video and own > last:
            # By the header the pictures of joined files may be hundreds a second.
            self._step = (own - last) * unit
        # Where the sound starts again before the pictures do, the new part's offset is not known yet.
        part = min(self._parts.get(index, 0), len(self._offsets) - 1)
        offset = round(self._offsets[part] / unit)
        if offset:
            packet.pts = None if packet.pts is None else packet.pts + offset
            packet.dts = None if packet.dts is None else packet.dts + offset
        if packet.stream is self._video:
            time = own + offset if packet.pts is None else packet.pts
            self._end = max(self._end, time * unit + self._step)

    def _starts_again(self, last: int, own: int, packet: Any) -> bool:
        if self._overflows and own >= _OVERFLOW > last:
            return (own - last) * packet.time_base > _LONG
        return (last - own) * packet.time_base > (_REORDERED if packet.dts is None else _JITTER)
