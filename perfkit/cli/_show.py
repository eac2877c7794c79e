"""From a capture's bytes to a report in the format, and at the place, that the user asked for."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from perfkit import discover
from perfkit.cli._screen import Colour, find_width, wants_colour, write_out
from perfkit.errors import UsageError
from perfkit.export._exporter import Exporter, Look
from perfkit.findings import Report

if TYPE_CHECKING:
    from perfkit.analysis.profile import Profile, Subject
    from perfkit.model import Capture

TERMINAL = "terminal"
PICTURE_HEAD_BYTES = 1024


class View(Struct, frozen=True):
    """How and where to show a report; no `path` is stdout."""

    format: str = TERMINAL
    path: Path | None = None
    colour: Colour = Colour.AUTO
    verbose: bool = False


class Judging(NamedTuple):
    """What the user adds to the evidence: that it is slow, and runs to hold it against."""

    said_slow: bool = False
    references: tuple[tuple[str, Capture], ...] = ()


def read_references(against: str | None) -> tuple[tuple[str, Capture], ...]:
    """The run, or the capture's file, of `--against`. Raises: `PerfkitError`."""
    if against is None:
        return ()
    from perfkit.codec import decode
    from perfkit.errors import CaptureError
    from perfkit.store.runs import find_folder, read_run

    name, raw = read_run(against, find_folder())
    try:
        return ((name, decode(raw)),)
    except CaptureError as error:
        raise CaptureError(f"{name}: {error.what}", fix="perfkit runs") from error


def to_report(raw: bytes, run: str, judging: Judging) -> Report:
    """Analyses the bytes of a capture; a live run and one that is read again go this same way."""
    from msgspec.structs import replace

    from perfkit.analysis import analyse
    from perfkit.codec import decode

    report = analyse(decode(raw), judging.references, said_slow=judging.said_slow)
    return replace(report, run=run)


def keep_verdict(report: Report, raw: bytes) -> None:
    """Keeps what a saved run came to, for the list of runs."""
    from perfkit.store.runs import find_folder
    from perfkit.store.verdicts import keep_verdict as keep

    keep(report, find_folder(), len(raw))


def to_subject(raw: bytes, run: str, view: View, judging: Judging) -> Report | Profile:
    """What the format shows of a capture. Raises: `PerfkitError` where the capture lacks it."""
    if find_exporter(view.format).of == "report":
        return to_report(raw, run, judging)
    from perfkit.analysis.profile import make_profile
    from perfkit.codec import decode

    return make_profile(decode(raw), run)


def show_profile(raw: bytes, run: str, view: View, of: Subject) -> None:
    """Shows the profile of a capture. Raises: `PerfkitError` where it holds no such stacks."""
    from perfkit.analysis.profile import make_profile
    from perfkit.codec import decode

    show(make_profile(decode(raw), run, of), view)


def find_exporter(name: str) -> Exporter:
    """The exporter of a format. Raises `UsageError`."""
    found: dict[str, Exporter] = discover.load_all("perfkit.export", "EXPORTER")
    exporters = {exporter.name: exporter for exporter in found.values()}
    if name not in exporters:
        raise UsageError(
            f"no format is called {name!r}", fix=f"--to {' | '.join(sorted(exporters))}"
        )
    return exporters[name]


def show(subject: Report | Profile, view: View) -> None:
    """Writes a report, or a profile where the format is of that, to stdout or to a file.

    A file is written whole or not at all.
    """
    exporter = find_exporter(view.format)
    if view.path is None:
        is_coloured = wants_colour(view.colour, sys.stdout)
        look = Look(find_width(), is_coloured, view.verbose)
        write_out(lambda out: exporter.write(subject, out, look), binary=exporter.binary)
        return
    from perfkit.store.files import write_file

    look = Look(
        colour=view.colour is Colour.ALWAYS,
        verbose=view.verbose,
        picture=_find_picture(view.path, subject.run),
    )
    write_file(_render(subject, exporter, look), view.path)


def _find_picture(path: Path, run: str) -> str:
    """The name of the flame graph of this run beside the file, as `--to svg` writes it."""
    beside = path.with_suffix(".svg")
    try:
        with beside.open("rb") as picture:
            head = picture.read(PICTURE_HEAD_BYTES)
    except OSError:
        return ""
    return beside.name if run and f"<desc>perfkit run {run}</desc>".encode() in head else ""


def _render(subject: Report | Profile, exporter: Exporter, look: Look) -> bytes:
    if exporter.binary:
        content = io.BytesIO()
        exporter.write(subject, content, look)
        return content.getvalue()
    text = io.StringIO()
    exporter.write(subject, text, look)
    return text.getvalue().encode()
