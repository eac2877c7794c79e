"""The list of saved runs, as two lines each that fit the terminal, or as JSON.

On the first line stands what names a run and what may give way on a narrow screen; on the second
what an engineer looks for: the service, and what its report said.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfkit.model import Header
from perfkit.report.escape import to_printable
from perfkit.store.entries import Entry
from perfkit.store.verdicts import KeptVerdict
from perfkit.units import to_duration, to_text

SCHEMA = "perfkit.runs/1"
WIDTH_MIN, WIDTH_MAX = 40, 120
SERVICE_WIDTH, HOST_WIDTH, TEXT_WIDTH = 30, 24, 400
NO_VERDICT = "not judged yet (perfkit report)"
GAP = "  "


def to_lines(entries: Sequence[Entry], older_count: int, width: int) -> list[str]:
    """Two lines for each run; what is left out at the end is counted."""
    width = min(max(width, WIDTH_MIN), WIDTH_MAX)
    column = max((len(to_printable(one.run.id)) for one in entries), default=0)
    lines = [
        line
        for one in entries
        for line in (_word_head(one, column, width), _word_verdict(one, width))
    ]
    if older_count:
        lines.append(f"and {older_count} older (perfkit runs --all)")
    return lines


def to_document(entries: Sequence[Entry], older_count: int, folder: Path) -> dict[str, Any]:
    """What a program reads; keys are only ever added."""
    return {
        "schema": SCHEMA,
        "folder": str(folder),
        "older_count": older_count,
        "runs": [_to_object(one) for one in entries],
    }


def word_kept(kept: KeptVerdict | None) -> str:
    """A kept verdict in a line: the first cause and whom it charges, else the state and why."""
    if kept is None:
        return NO_VERDICT
    if kept.state != "cause":
        return f"{kept.state}: {kept.text}"
    charged = f": {kept.culprit}" if kept.culprit else ""
    return f"{kept.severity.upper()} {kept.cause}{charged}"


def _word_head(entry: Entry, column: int, width: int) -> str:
    """The id, then when, the host, how long and how large, as far as there is room for them."""
    run, header = entry.run, entry.header
    size = f"{to_text(run.size_bytes, 'bytes'):>7}" + (" pinned" if run.is_pinned else "")
    parts = {"size": size}
    if header is not None:
        host = to_printable(header.host, HOST_WIDTH)
        parts = {
            "when": f"{_to_local(header.clock.start_utc_ns):%Y-%m-%d %H:%M}",
            "host": host,
            "length": f"{to_duration(_length_s(header)):>6}",
            "size": size,
        }
    name = to_printable(run.id)
    # The host stands in the id too; it is read whole where there is room, as the rest.
    for gone in ("", "host", "size", "length", "when"):
        parts.pop(gone, None)
        line = GAP.join([name.ljust(column), *parts.values()]).rstrip()
        if len(line) <= width:
            return line
    return name


def _word_verdict(entry: Entry, width: int) -> str:
    if entry.header is None:
        text = f"cannot be read: {to_printable(entry.problem, TEXT_WIDTH)}"
    else:
        kept = to_printable(word_kept(entry.verdict), TEXT_WIDTH)
        text = f"{_word_service(entry.header)}{GAP}{kept}"
    room = width - len(GAP)
    return GAP + (text if len(text) <= room else f"{text[: room - 4].rstrip()} ...")


def _word_service(header: Header) -> str:
    target = header.target
    if target.kind == "host":
        return "the host"
    return f"{to_printable(target.name, SERVICE_WIDTH)} ({target.main_pid})"


def _to_object(entry: Entry) -> dict[str, Any]:
    run, header, kept = entry.run, entry.header, entry.verdict
    target = header.target if header else None
    return {
        "id": run.id,
        "path": str(run.path),
        "size_bytes": run.size_bytes,
        "pinned": run.is_pinned,
        "problem": entry.problem,
        "start": _to_text(header.clock.start_utc_ns) if header else None,
        "seconds": _length_s(header) if header else None,
        "host": header.host if header else None,
        "target": {"kind": target.kind, "name": target.name, "pid": target.main_pid}
        if target
        else None,
        "verdict": {
            "state": kept.state,
            "text": kept.text,
            "cause": kept.cause or None,
            "severity": kept.severity or None,
            "culprit": kept.culprit or None,
            "perfkit_version": kept.perfkit_version,
        }
        if kept
        else None,
    }


def _length_s(header: Header) -> float:
    return (header.clock.end_ns - header.clock.start_ns) / 1e9


def _to_utc(utc_ns: int) -> datetime:
    """An instant; one beyond the calendar's ends reads as the epoch."""
    try:
        return datetime.fromtimestamp(utc_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _to_local(utc_ns: int) -> datetime:
    moment = _to_utc(utc_ns)
    try:
        return moment.astimezone()
    except (OverflowError, ValueError, OSError):
        return moment


def _to_text(utc_ns: int) -> str:
    return f"{_to_utc(utc_ns):%Y-%m-%dT%H:%M:%SZ}"
