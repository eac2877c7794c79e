"""The JSON contract `perfkit.diagnosis/1` (perfkit/report/schema.json), for other programs."""

from __future__ import annotations

import json
from typing import IO, Any

import msgspec

from perfkit.export._exporter import Exporter, Look
from perfkit.findings import Report


def write(report: Report, out: IO[Any], look: Look) -> None:
    """Writes one document; ASCII only, so that no text from the host acts on a terminal.

    Missing: a number that is none (NaN, infinite) becomes null.
    """
    plain = json.loads(msgspec.json.encode(report))
    text = json.dumps(plain, indent=2, ensure_ascii=True, allow_nan=False)
    # DEL is the one control character that JSON lets through.
    out.write(text.replace("\x7f", "\\u007f") + "\n")


EXPORTER = Exporter("json", suffix=".json", binary=False, write=write)
