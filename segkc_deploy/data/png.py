"""The chunks of a PNG file, whose lengths a decoder trusts before it reads."""

import struct

_SIGNATURE_BYTES = 8


def ends_within_a_chunk(encoded: bytes) -> bool:
    """Return whether a chunk of a PNG file is said to be longer than what is left of the file.

    Decoders allocate the length that a chunk states, up to 2 GiB, before they notice: OpenCV 5 took 750 MiB and
    seconds for a damaged file of 1 KB.
    """
    start = _SIGNATURE_BYTES
    while start + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, start)
        start += 12 + length  # length, name and checksum are four bytes each
        if start > len(encoded):
            return True
        if kind == b"IEND":
            return False
    return False
