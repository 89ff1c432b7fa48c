"""Label Studio's brush masks: run lengths of RGBA bytes in a stream of bits, of which the alpha marks the region.

The format is rle-pack of https://github.com/thi-ng/umbrella.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from segkc_deploy.errors import DataError


class _Bits:
    """A stream of bits, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.bits = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def read(self, count: int) -> int:
        chunk = self.bits[self.at : self.at + count]
        if len(chunk) < count:
            raise EOFError
        self.at += count
        return int(chunk, 2)


def decode_brush(rle: Sequence[Any], size: tuple[int, int], where: str) -> np.ndarray:
    """Return the painted region, bool (height, width).

    Raises:
        DataError: the bytes are damaged, or do not have the image's size.
    """
    height, width = size
    if not all(type(value) is int and 0 <= value < 256 for value in rle):
        raise DataError(f"{where}: its brush mask should be a list of bytes")
    stream = _Bits(bytes(rle))
    try:
        values = _decoded(stream, 4 * height * width)
    except EOFError:
        raise DataError(f"{where}: its brush mask is cut short, or not of {width}x{height} pixels") from None
    if values is None:
        raise DataError(f"{where}: its brush mask does not have the {width}x{height} pixels of its image")
    return values.reshape(height, width, 4)[..., 3] > 0


def _decoded(stream: _Bits, expected: int) -> np.ndarray | None:
    if stream.read(32) != expected:
        return None
    word = stream.read(5) + 1
    sizes = [stream.read(4) + 1 for _ in range(4)]
    if word != 8:
        return None
    out = np.empty(expected, np.uint8)
    at = 0
    while at < expected:
        repeated = stream.read(1)
        end = min(at + 1 + stream.read(sizes[stream.read(2)]), expected)
        if repeated:
            out[at:end] = stream.read(word)
        else:
            out[at:end] = [stream.read(word) for _ in range(at, end)]
        at = end
    return out


def encode_brush(region: np.ndarray) -> list[int]:
    """Return a bool (H, W) region as Label Studio's brush mask; the inverse of `decode_brush`."""
    alpha = np.repeat((region > 0).astype(np.uint8).ravel() * 255, 4)
    bits = [f"{len(alpha):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    starts = np.flatnonzero(np.diff(alpha, prepend=alpha[0] ^ 255)) if len(alpha) else np.empty(0, int)
    for start, end in zip(starts, [*starts[1:], len(alpha)], strict=True):
        for begin in range(start, end, 65536):
            length = min(end, begin + 65536) - begin
            bits.append(f"1{3:02b}{length - 1:016b}{alpha[start]:08b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]
