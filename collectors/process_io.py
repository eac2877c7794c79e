"""What the service itself read and wrote: through the cache, and from and to the devices."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.collectors._members import Members
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Column, Item, Row, Rows, TableSchema, Target

IO_LIMIT_BYTES = 1024
FIELDS = {
    "rchar": "called_read_bytes",
    "wchar": "called_write_bytes",
    "syscr": "read_calls",
    "syscw": "write_calls",
    "read_bytes": "read_bytes",
    "write_bytes": "write_bytes",
}
PROCESS_IO = TableSchema(
    "process_io",
    (
        Column("t_ns", "ns"),
        Column("process_count", help="that were read"),
        Column("called_read_bytes", "bytes", help="asked for by read calls, cached or not"),
        Column("called_write_bytes", "bytes", help="given to write calls"),
        Column("read_calls"),
        Column("write_calls"),
        Column("read_bytes", "bytes", help="fetched from devices"),
        Column("write_bytes", "bytes", help="to be written to devices"),
    ),
    source="/proc/PID/io, summed over the service's processes",
    help="A row every two seconds: what was done since the first one, also by processes that came.",
)


def parse_io(text: str) -> tuple[int, ...]:
    """Reads /proc/PID/io in the order of FIELDS; 0 for what is missing."""
    found = dict.fromkeys(FIELDS, 0)
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in found and value.strip().isdecimal():
            found[name] = min(int(value.strip()[:19]), 1 << 61)
    return tuple(found.values())


class _Session:
    """Adds up what each process did since the last look, so that an exit takes nothing away."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._members = Members(host, target)
        self._first = frozenset(self._members.pids())
        self._last: dict[int, tuple[int, ...]] = {}
        self._sums = [0] * len(FIELDS)
        self._problem: Unavailable | None = None

    def poll(self) -> Iterator[Item]:
        t_ns = self._host.now_ns()
        pids = self._members.pids()
        readings = [(pid, now) for pid in pids if (now := self._read(pid))]
        if not readings and self._problem is not None:
            raise self._problem
        for pid, now in readings:
            self._add(pid, now)
        yield Row(PROCESS_IO.name, (t_ns, len(readings), *self._sums))
        if self._members.left_out_count:
            yield Rows(PROCESS_IO.name, (), 0, self._members.left_out_count)

    def close(self) -> tuple[()]:
        return ()

    def _read(self, pid: int) -> tuple[int, ...]:
        """The counters of one process; empty where it is gone or refused."""
        try:
            return parse_io(self._host.read_proc(f"{pid}/io", IO_LIMIT_BYTES))
        except Unavailable as absent:
            self._problem = absent
            return ()

    def _add(self, pid: int, now: tuple[int, ...]) -> None:
        """A process that came within the window began at nothing; one that was there did not."""
        begin = (0,) * len(now) if self._last and pid not in self._first else now
        before = self._last.get(pid, begin)
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            self._sums[place] += max(0, new - old)
        self._last[pid] = now


COLLECTOR = Collector(
    "process_io",
    metrics=(),
    tables=(PROCESS_IO,),
    scope="target",
    interval_s=2.0,
    timeout_s=0.3,
    open=_Session,
)
