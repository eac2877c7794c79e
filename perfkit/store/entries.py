"""What is known of a saved run without unpacking it: its header, and the verdict kept beside it."""

from __future__ import annotations

from msgspec import Struct

from perfkit.codec import decode_header
from perfkit.errors import PerfkitError
from perfkit.model import Header
from perfkit.store.files import read_head
from perfkit.store.runs import Run
from perfkit.store.verdicts import KeptVerdict, read_verdict


class Entry(Struct, frozen=True):
    """One line of the list of runs.

    Missing: `header` is None where the run cannot be read, and `problem` says why; `verdict` is
    None where none was kept.
    """

    run: Run
    header: Header | None = None
    verdict: KeptVerdict | None = None
    problem: str = ""


def read_entry(run: Run) -> Entry:
    """Reads the beginning of a run; whatever is wrong with it is part of the entry."""
    try:
        header = decode_header(read_head(run.path), run.size_bytes)
    except PerfkitError as error:
        return Entry(run, problem=error.what)
    return Entry(run, header, read_verdict(run))
