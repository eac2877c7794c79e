"""The processes of the service and its siblings: what they are, and who came, went or execed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from perfkit.collectors._cgroup import read_cpu_path
from perfkit.collectors._proc import STATUS_LIMIT_BYTES, parse_number, read_fields
from perfkit.collectors._service import Changes, Member, ServiceTracker
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Column, ColumnType, Row, TableSchema, Target

TRACER = "TracerPid"
PROCESSES = TableSchema(
    "processes",
    (
        Column("t_ns", "ns"),
        Column("pid"),
        Column("parent_pid"),
        Column("start_ticks", "ticks of 10 ms since boot"),
        Column("name", type=ColumnType.TEXT, help="untrusted text, at most 15 bytes"),
        Column("exe", type=ColumnType.TEXT, help="untrusted text; empty: not readable"),
        Column("cgroup", type=ColumnType.TEXT, help="path of the cpu controller"),
        Column("role", type=ColumnType.TEXT, help="main, worker, child, sibling"),
        Column("state_letter", help="ASCII code of the letter in stat"),
        Column("tracer_pid", help="0: not traced; -1: not read"),
        Column("thread_count"),
        Column("uid", help="real user id; -1: not read"),
        Column("event", type=ColumnType.TEXT, help="present, started, exited, execed"),
    ),
    source="/proc/PID/stat, status, exe, cgroup; psutil",
    help="All at the start; then, each second, those that started, exited or execed.",
)


# psutil has one root of proc for the whole program: one session at a time may set it.
_PSUTIL = threading.Lock()


@contextmanager
def procfs_of(host: Host) -> Iterator[Any]:
    """Gives psutil, reading from the host's root of proc; other sessions wait meanwhile."""
    import psutil

    with _PSUTIL:
        before = psutil.PROCFS_PATH
        psutil.PROCFS_PATH = str(host.proc)
        try:
            yield psutil
        finally:
            psutil.PROCFS_PATH = before


def read_inventory(host: Host, pid: int) -> tuple[int, int]:
    """Thread count and real user id of one process; -1 for what is gone, refused or garbled."""
    if not all(_is_bounded(f"{host.proc}/{pid}/{name}") for name in ("stat", "status")):
        return -1, -1
    with procfs_of(host) as psutil:
        try:
            found = psutil.Process(pid).as_dict(attrs=["num_threads", "uids"])
        except (psutil.Error, LookupError, ValueError):  # the latter two: it was not understood
            return -1, -1
    threads, uids = found["num_threads"], found["uids"]
    return parse_number(str(threads)), parse_number(str(uids.real if uids else -1))


def _is_bounded(path: str) -> bool:
    """Whether a file ends, and soon: psutil reads whatever is there, to its end."""
    try:
        found = os.stat(path)  # noqa: PTH116 (as cheap as it gets)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= STATUS_LIMIT_BYTES


def to_row(host: Host, member: Member, event: str) -> Row:
    """One row about one process, as it is now; of one that has gone, as it was last seen."""
    seen, is_gone = member.stat, event == "exited"
    thread_count, uid = (-1, -1) if is_gone else read_inventory(host, seen.pid)
    tracer = "" if is_gone else read_fields(host, seen.pid, TRACER).get(TRACER, "")
    return Row(
        PROCESSES.name,
        (
            host.now_ns(),
            seen.pid,
            seen.parent_pid,
            seen.start_ticks,
            seen.name,
            member.exe,
            "" if is_gone else read_cpu_path(host, seen.pid),
            member.role,
            ord(seen.state[:1] or "?"),
            parse_number(tracer),
            seen.thread_count if thread_count < 0 else thread_count,
            uid,
            event,
        ),
    )


class _Session:
    """Follows the service; see `ServiceTracker`."""

    def __init__(self, host: Host, target: Target) -> None:
        import psutil  # noqa: F401 (loaded before the window begins, not within it)

        self._host = host
        self._tracker = ServiceTracker(host, target)
        self._is_first = True
        if not self._tracker.members:
            raise Unavailable("every process of the target was gone before it could be read")

    def poll(self) -> Iterator[Row]:
        if self._is_first:
            self._is_first = False
            for member in list(self._tracker.members.values()):
                yield to_row(self._host, member, "present")
        else:
            yield from self._rows(self._tracker.update())

    def close(self) -> tuple[()]:
        return ()

    def _rows(self, changes: Changes) -> Iterator[Row]:
        groups = (
            ("started", changes.started),
            ("execed", changes.execed),
            ("exited", changes.exited),
        )
        for event, members in groups:
            for member in members:
                yield to_row(self._host, member, event)


COLLECTOR = Collector(
    "processes",
    metrics=(),
    tables=(PROCESSES,),
    scope="target",
    interval_s=1.0,
    timeout_s=0.5,
    open=_Session,
)
