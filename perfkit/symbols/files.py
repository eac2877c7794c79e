"""Files of targets: regular ones only, checked before they are opened, resolved in their own root.

A path that a process has mapped is its own claim: it may name a FIFO, a device, or lead out of its
mount namespace by a link. So a file is first opened as a mere place (O_PATH), looked at, and only
then opened for reading; links below another root are resolved in that root (Linux 5.6).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perfkit.errors import Unavailable

MAPS_LIMIT_BYTES = 16 << 20
DELETED = " (deleted)"
_OPENAT2 = 437
_NO_MAGIC_LINKS, _IN_ROOT = 0x02, 0x10
_READ_CHUNK_BYTES = 1 << 20


@contextmanager
def open_regular(path: Path, root: Path | None = None) -> Iterator[int]:
    """Opens a regular file for reading, below another root if one is given.

    Raises: Unavailable, if there is none, it is of another kind, or it is refused.
    """
    place = -1
    descriptor = -1
    try:
        place = _open_place(path, root)
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise Unavailable(f"{path} is no regular file")
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as refused:
        _close_all(place)
        reason = getattr(refused, "strerror", None) or refused
        raise Unavailable(f"cannot open {path}: {reason}") from refused
    except Unavailable:
        _close_all(place)
        raise
    try:
        yield descriptor
    finally:
        _close_all(place, descriptor)


def read_whole(descriptor: int, limit_bytes: int) -> bytes:
    """The bytes of an open file, up to the limit; files of /proc do not know their size."""
    pieces = []
    left = limit_bytes
    while left > 0 and (piece := os.read(descriptor, min(left, _READ_CHUNK_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_text(path: Path, limit_bytes: int) -> str:
    """The text of a small file of /proc.

    Raises: Unavailable, if it cannot be read.
    """
    with open_regular(path) as descriptor:
        try:
            return read_whole(descriptor, limit_bytes).decode("utf-8", "backslashreplace")
        except OSError as refused:
            raise Unavailable(f"cannot read {path}: {refused.strerror}") from refused


def list_mappings(maps: str, path: str) -> tuple[str, ...]:
    """The ranges, as /proc/PID/map_files names them, in which a process maps a path."""
    found = []
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and _unescape(fields[5]) == path:
            first, _, last = fields[0].partition("-")
            found.append(f"{first.lstrip('0') or '0'}-{last.lstrip('0') or '0'}")
    return tuple(found)


def without_deleted(path: str) -> str:
    """A path of the kernel without its remark that the file is gone."""
    return path.removesuffix(DELETED)


def _unescape(path: str) -> str:
    """The kernel writes a newline of a name as `\\012`."""
    return path.replace("\\012", "\n")


def _open_place(path: Path, root: Path | None) -> int:
    flags = os.O_PATH | os.O_CLOEXEC
    if root is None:
        return os.open(path, flags)
    top = os.open(root, flags | os.O_DIRECTORY)
    try:
        return _open_in_root(top, path, flags)
    finally:
        os.close(top)


def _open_in_root(top: int, path: Path, flags: int) -> int:
    """Opens a path as if `top` were the root; older kernels resolve links as we see them."""
    how = struct.pack("<QQQ", flags, 0, _NO_MAGIC_LINKS | _IN_ROOT)
    library = ctypes.CDLL(None, use_errno=True)
    got = library.syscall(_OPENAT2, top, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if got >= 0:
        return int(got)
    number = ctypes.get_errno()
    if number != errno.ENOSYS:
        raise OSError(number, os.strerror(number))
    return os.open(os.fsencode(path).lstrip(b"/"), flags, dir_fd=top)


def _close_all(*descriptors: int) -> None:
    for one in descriptors:
        if one >= 0:
            os.close(one)
