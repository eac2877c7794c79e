"""Files of shared histograms, as a hostile process could make them, and how they are laid out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Iterator

from perfkit.histogram import Histogram
from perfkit.shared_histograms import SharedHistogram

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
HEADER_BYTES = 1024
GENERATION_AT = 24
CHECKSUM_AT = 32
NAME_AT = 128
LABELS_AT = NAME_AT + 128
# Of a shard: its head, then its buckets.
HEAD_BYTES = 128
APART_AT = 8
SUM_AT = 80
MIN_AT = 112
MAX_AT = 120
Change = Callable[[bytearray], object]


def path_of(shared: SharedHistogram) -> str:
    """The path by which this process's file is opened."""
    return f"/proc/{os.getpid()}/fd/{shared.fileno()}"


def like(values: list[float]) -> Histogram:
    """A plain histogram with the range of a shared one in ns."""
    histogram = Histogram(min_value=1, max_value=2**42)
    histogram.record_many(values)
    return histogram


def read_file(shared: SharedHistogram) -> bytearray:
    """All bytes of a file."""
    return bytearray(os.pread(shared.fileno(), os.fstat(shared.fileno()).st_size, 0))


def find_checksum(content: bytes | bytearray) -> int:
    """FNV-1a of the header, with generation and checksum as 0."""
    header = bytearray(content[:HEADER_BYTES])
    header[GENERATION_AT : CHECKSUM_AT + 8] = bytes(16)
    checksum = 0xCBF29CE484222325
    for byte in header:
        checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
    return checksum


def write_number(layout: str, at: int, value: float, *, is_signed: bool = True) -> Change:
    """A change of one number; unless it is not to be `is_signed`, the checksum fits."""

    def change(content: bytearray) -> None:
        struct.pack_into(layout, content, at, value)
        if is_signed:
            struct.pack_into("<Q", content, CHECKSUM_AT, find_checksum(content))

    return change


def write_bytes(at: int, text: bytes) -> Change:
    """A change of some bytes of the header, with a checksum that fits."""

    def change(content: bytearray) -> None:
        content[at : at + len(text)] = text
        struct.pack_into("<Q", content, CHECKSUM_AT, find_checksum(content))

    return change


@contextlib.contextmanager
def sealed(content: bytes | bytearray, seals: int = SEALS) -> Iterator[str]:
    """A memfd with some content, by its path."""
    descriptor = os.memfd_create("perfkit-histogram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
