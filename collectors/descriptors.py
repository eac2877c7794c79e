"""How many descriptors each process of the service has open, against how many it may have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from perfkit.collectors._members import Members
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Column, Item, Row, Rows, TableSchema, Target

LIMITS_LIMIT_BYTES = 8192
LIST_LIMIT = 65_536
LIMIT_KEPT_NS = 4_000_000_000
# Kernels before 6.2 do not tell the number: counting names may take this share of a core.
COST_RATIO = 0.0005
LARGEST = 1 << 61
DESCRIPTORS = TableSchema(
    "descriptors",
    (
        Column("t_ns", "ns"),
        Column("pid"),
        Column("open_count"),
        Column("soft_limit", help="RLIMIT_NOFILE; -1: not read, or unlimited"),
    ),
    source="size of /proc/PID/fd (Linux 6.2, before: the names in it); /proc/PID/limits",
    help="A row per process at the start, and each second in which a number was changed.",
)


def parse_soft_limit(text: str) -> int:
    """Reads the soft limit of open files in /proc/PID/limits; -1 for none or for anything else."""
    for line in text.splitlines():
        if line.startswith("Max open files"):
            words = line.removeprefix("Max open files").split()
            known = bool(words) and words[0].isdecimal()
            return min(int(words[0][:19]), LARGEST) if known else -1
    return -1


class _Session:
    """Counts each second; where that means listing, as often as COST_RATIO pays for."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._members = Members(host, target)
        self._told: dict[int, tuple[int, int]] = {}
        self._due_ns: dict[int, int] = {}
        self._limits: dict[int, tuple[int, int]] = {}
        self._refused: Unavailable | None = None

    def poll(self) -> Iterator[Item]:
        for pid in self._members.pids():
            count = self._count(pid)
            if count < 0:
                continue
            now = (count, self._find_limit(pid))
            if self._told.get(pid) != now:
                self._told[pid] = now
                yield Row(DESCRIPTORS.name, (self._host.now_ns(), pid, *now))
        if self._members.left_out_count:
            yield Rows(DESCRIPTORS.name, (), 0, self._members.left_out_count)
        if not self._told and self._refused is not None:
            raise self._refused

    def close(self) -> tuple[()]:
        return ()

    def _count(self, pid: int) -> int:
        """The number of open descriptors; -1 where it cannot be told, or not yet again."""
        path = f"{self._host.proc}/{pid}/fd"
        try:
            told = os.stat(path).st_size  # noqa: PTH116 (one of many each second)
        except OSError:
            return -1
        # A folder that is not the kernel's own has a size too, in bytes of its names.
        return told if told > 0 and self._is_counted else self._list(pid)

    @property
    def _is_counted(self) -> bool:
        return os.fspath(self._host.proc) == "/proc"

    def _list(self, pid: int) -> int:
        begin_ns = self._host.now_ns()
        if begin_ns < self._due_ns.get(pid, 0):
            return -1
        try:
            with os.scandir(f"{self._host.proc}/{pid}/fd") as entries:
                count = sum(1 for _ in islice(entries, LIST_LIMIT))
        except PermissionError as error:
            grant = "root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
            self._refused = Unavailable(f"{error.filename}: {error.strerror}", grant=grant)
            return -1
        except OSError:  # it exited
            return -1
        took_ns = self._host.now_ns() - begin_ns
        self._due_ns[pid] = begin_ns + int(took_ns / COST_RATIO)
        return count

    def _find_limit(self, pid: int) -> int:
        """The limit as it was read a moment ago: it changes seldom, the count does not."""
        now_ns = self._host.now_ns()
        due_ns, limit = self._limits.get(pid, (0, -1))
        if now_ns >= due_ns:
            limit = self._read_limit(pid)
            self._limits[pid] = now_ns + LIMIT_KEPT_NS, limit
        return limit

    def _read_limit(self, pid: int) -> int:
        try:
            return parse_soft_limit(self._host.read_proc(f"{pid}/limits", LIMITS_LIMIT_BYTES))
        except Unavailable:
            return -1


COLLECTOR = Collector(
    "descriptors",
    metrics=(),
    tables=(DESCRIPTORS,),
    scope="target",
    interval_s=1.0,
    timeout_s=0.3,
    open=_Session,
)
