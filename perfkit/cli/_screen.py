"""The two streams: stdout carries reports only, stderr carries progress, warnings and errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import IO, Any

from perfkit.errors import PerfkitError, UsageError
from perfkit.report.escape import to_printable

WIDTH_DEFAULT = 80
_OUT_FIX = "-o FILE, or let stdout lead where there is room"
_CLEAR = "\r\x1b[2K"


class Colour(StrEnum):
    """When to colour; `auto` asks NO_COLOR, FORCE_COLOR, TERM and whether it is a terminal."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def wants_colour(colour: Colour, stream: IO[str] | None) -> bool:
    """Whether to colour: the flag, then NO_COLOR, FORCE_COLOR, TERM=dumb, then the terminal."""
    if colour is not Colour.AUTO:
        return colour is Colour.ALWAYS
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and stream is not None and stream.isatty()


def find_width() -> int:
    """The terminal's width; COLUMNS or 80 where stdout is none."""
    import shutil

    return shutil.get_terminal_size((WIDTH_DEFAULT, 24)).columns


def print_error(error: PerfkitError) -> None:
    """One `error:` line that stands by itself, then its effect and what to do."""
    tell(f"error: {error.what}")
    for label, text in (("effect", error.effect), ("fix", error.fix)):
        if text:
            tell(f"  {label:<8}{text}")
    if isinstance(error, UsageError) and not error.fix:
        tell(f"  {'fix':<8}perfkit --help")


def tell(line: str) -> None:
    """Writes a line to stderr; a stderr that is gone is no reason to stop."""
    with suppress(OSError, ValueError, AttributeError):
        print(to_printable(line), file=sys.stderr, flush=True)


class Progress:
    """One transient line on a terminal, at most a first and a last plain line elsewhere."""

    def __init__(self, quiet: bool) -> None:
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._is_quiet = quiet
        self._is_live = is_terminal and os.environ.get("TERM") != "dumb"

    def start(self, line: str) -> None:
        """Says at once what is going on."""
        if self._is_live:
            self.update(line)
        elif not self._is_quiet:
            tell(line)

    def update(self, line: str) -> None:
        """Replaces the transient line; says nothing where there is none."""
        if self._is_live and not self._is_quiet:
            # A serial console may not know its size, and says 0.
            width = os.get_terminal_size(sys.stderr.fileno()).columns or WIDTH_DEFAULT
            self._write(_CLEAR + to_printable(line)[: max(width - 1, 0)])

    def end(self, line: str) -> None:
        """Says how it went, where the transient line does not show it."""
        if self._is_live:
            self.clear()
        elif not self._is_quiet:
            tell(line)

    def clear(self) -> None:
        """Leaves no trace of the transient line."""
        if self._is_live and not self._is_quiet:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


@contextmanager
def showing_progress(quiet: bool) -> Iterator[Progress]:
    """A progress line that is gone at the end, however it ends."""
    progress = Progress(quiet)
    try:
        yield progress
    finally:
        progress.clear()


def write_out(write: Callable[[IO[Any]], object], *, binary: bool = False) -> None:
    """Writes to stdout and sees to it that all of it has left, so that errors surface here.

    A reader that has gone, e.g. `head`, wants no more, and hears no more. Raises: `PerfkitError`.
    """
    if sys.stdout is None:
        raise PerfkitError("cannot write to stdout: it is closed", fix=_OUT_FIX)
    out = sys.stdout.buffer if binary else sys.stdout
    try:
        write(out)
        out.flush()
    except OSError as error:
        # What is still buffered must go somewhere when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            why = (error.strerror or str(error)).lower()
            raise PerfkitError(f"cannot write to stdout: {why}", fix=_OUT_FIX) from error
