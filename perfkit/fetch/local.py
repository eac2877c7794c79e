"""Gets a capture of this host, recorded in this process."""

from __future__ import annotations

from perfkit.agent.loop import Progress
from perfkit.agent.record import RecordOptions, record

__all__ = ["Progress", "RecordOptions", "fetch"]


def fetch(options: RecordOptions) -> bytes:
    """Records this host and gives the capture's bytes. Raises: what `record` raises."""
    return record(options)
