"""The verdict of a run, kept beside it, so that a list of runs needs no analysis.

It is what was said once, by the perfkit of that time, and no part of the capture: a run without one
is whole, and one that speaks of another capture, or is damaged, counts as none.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from perfkit.errors import RunError
from perfkit.findings import Report, Severity, State
from perfkit.store.files import read_start, write_file
from perfkit.store.runs import SUFFIX, VERDICT_SUFFIX, Run

VERDICT_LIMIT_BYTES = 1 << 14
TEXT_LIMIT = 1000


class KeptVerdict(Struct, frozen=True):
    """What a report came to. `size_bytes` is that of the capture it is about; text is untrusted.

    Missing: `cause`, `severity` and `culprit` are "" where the state is not "cause".
    """

    perfkit_version: str
    size_bytes: int
    state: State
    text: str
    cause: str = ""
    severity: Severity | str = ""
    culprit: str = ""


# Made once: two threads that are the first to decode crash in msgspec (0.22).
_VERDICTS = msgspec.json.Decoder(KeptVerdict)


def to_kept(report: Report, size_bytes: int) -> KeptVerdict:
    """What is kept of a report: the state, and of the first cause who is charged."""
    first = report.causes[0] if report.causes else None
    return KeptVerdict(
        report.perfkit_version,
        size_bytes,
        report.verdict.state,
        report.verdict.text[:TEXT_LIMIT],
        first.id if first else "",
        first.severity if first else "",
        first.culprit.name[:TEXT_LIMIT] if first else "",
    )


def keep_verdict(report: Report, folder: Path, size_bytes: int) -> None:
    """Keeps the verdict of a saved run; where that cannot be, the list says less, and no more."""
    if not report.run or os.sep in report.run or not (folder / (report.run + SUFFIX)).is_file():
        return
    kept = msgspec.json.encode(to_kept(report, size_bytes))
    with suppress(RunError):
        write_file(kept, folder / (report.run + VERDICT_SUFFIX), mode=0o600)


def read_verdict(run: Run) -> KeptVerdict | None:
    """The verdict that was kept of a run, if it is about this capture."""
    try:
        path = run.path.with_name(run.id + VERDICT_SUFFIX)
        kept = _VERDICTS.decode(read_start(path, VERDICT_LIMIT_BYTES))
    except (RunError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return kept if kept.size_bytes == run.size_bytes else None
