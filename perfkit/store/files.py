"""Files that are written whole or not at all, and captures read without trust in their size."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from perfkit.codec import CAPTURE_LIMIT_BYTES, MAGIC, PREFIX_BYTES, measure_head
from perfkit.errors import RunError

DRAFT_PREFIX = ".draft-"
STDIN = "-"
_RUNS = "perfkit runs"
_WRITE_FIX = "name a file, in a folder that is there and may be written"
_SPACE_FIX = "make room there, or name a file on another disk"
_STDIN_FIX = "perfkit record . -o - | perfkit report -"


def write_draft(raw: bytes, folder: Path, mode: int) -> Path:
    """Writes bytes, down to the disk, into a new file that nobody else looks for."""
    draft = folder / f"{DRAFT_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(raw)
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def write_file(raw: bytes, path: Path, mode: int = 0o666) -> None:
    """Writes a file over what was there; devices and pipes are written to. Raises `RunError`."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(raw)
        else:
            place = path.resolve()
            write_draft(raw, place.parent, mode).replace(place)
    except OSError as error:
        fix = _SPACE_FIX if error.errno in (errno.ENOSPC, errno.EDQUOT) else _WRITE_FIX
        raise RunError(f"cannot write {path}: {_why(error)}", fix=fix) from error


def read_file(path: Path) -> bytes:
    """Reads what may be a capture; of anything else, only its first bytes. Raises `RunError`."""
    return _read(path, _read_capture)


def read_start(path: Path, limit_bytes: int) -> bytes:
    """Reads a small file of ours, or the beginning of what lies in its place. Raises `RunError`."""
    return _read(path, lambda file: file.read(limit_bytes))


def read_head(path: Path) -> bytes:
    """Reads what `decode_header` needs of a capture. Raises: `RunError`, `CaptureError`."""
    return _read(path, _read_head)


def _read(path: Path, read: Callable[[IO[bytes]], bytes]) -> bytes:
    try:
        # A pipe that nobody writes to would be waited for without end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return read(file)
    except OSError as error:
        fix = "read it as its owner or with sudo" if isinstance(error, PermissionError) else _RUNS
        raise RunError(f"cannot read {path}: {_why(error)}", fix=fix) from error


def read_stdin() -> bytes:
    """Reads what may be a capture from a pipe or a file on stdin. Raises `RunError`."""
    if sys.stdin is None or sys.stdin.isatty():
        raise RunError("no capture comes on stdin", fix=_STDIN_FIX)
    try:
        return _read_capture(sys.stdin.buffer)
    except OSError as error:
        raise RunError(f"cannot read stdin: {_why(error)}", fix=_STDIN_FIX) from error


def check_filled(name: str, raw: bytes) -> None:
    """Says of nothing that it is nothing, "-" being stdin. Raises: `RunError`."""
    if not raw:
        what = "stdin is empty" if name == STDIN else "it is empty"
        fix = _STDIN_FIX if name == STDIN else _RUNS
        raise RunError(f"{name}: not a perfkit capture: {what}", fix=fix)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _read_head(file: IO[bytes]) -> bytes:
    prefix = file.read(PREFIX_BYTES)
    return prefix + file.read(measure_head(prefix) - len(prefix))


def _read_capture(file: IO[bytes]) -> bytes:
    head = file.read(len(MAGIC))
    # Whatever else it is, e.g. a device without end, is not read any further.
    return head + (file.read(CAPTURE_LIMIT_BYTES + 1) if head == MAGIC else b"")
