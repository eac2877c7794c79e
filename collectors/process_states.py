"""Whether each process of the service may run: stopped, traced, frozen, dumping core; and its age.

Polled more often than processes come and go, and told only when something changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, structs

from perfkit.collectors._cgroup import Mount, find_chain, read_mounts
from perfkit.collectors._chains import parse_pairs
from perfkit.collectors._members import Members
from perfkit.collectors._proc import GONE_LETTERS, NS_PER_TICK, read_fields, read_stat
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Column, ColumnType, Item, Row, Rows, TableSchema, Target

FLAG_LIMIT_BYTES = 256
# Letters that say that a process may not run; all others are one and the same here.
HALTED = "tT"
RUNS = "R"
PROCESS_STATES = TableSchema(
    "process_states",
    (
        Column("t_ns", "ns"),
        Column("pid"),
        Column("parent_pid"),
        Column("age_ns", "ns", help="since it was started, in steps of 10 ms; -1: not known"),
        Column("state_letter", help="ASCII code: T stopped, t traced, R anything else"),
        Column("tracer_pid", help="0: not traced; -1: not read"),
        Column("tracer_name", type=ColumnType.TEXT, help="untrusted text"),
        Column("is_frozen", help="1: its cgroup is frozen, or one above; -1: not read"),
        Column("is_dumping", help="1: writes a core dump (Linux 4.15); -1: not read"),
    ),
    source="/proc/PID/stat, status (TracerPid, CoreDumping); freezer.state (v1),"
    " cgroup.events frozen (v2)",
    help="A row per process of the service when it is first seen, and when any of it changes.",
)


class ProcessState(Struct, frozen=True):
    """What may keep a process from running, in the order of the columns."""

    state_letter: int
    tracer_pid: int
    tracer_name: str
    is_frozen: int
    is_dumping: int


def parse_frozen(text: str, version: int) -> int:
    """Reads freezer.state (v1) or cgroup.events (v2): 1 frozen, 0 not, -1 not told."""
    if version == 1:
        return {"FROZEN": 1, "FREEZING": 1, "THAWED": 0}.get(text.strip(), -1)
    frozen = parse_pairs(text, ("frozen",)).get("frozen", -1)
    return frozen if frozen in (0, 1) else -1


def read_uptime_ns(host: Host) -> int:
    """Time since boot, on the clock that a process's start is told on; -1 where not known."""
    if host.proc == Path("/proc"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        return int(1e9 * float(host.read_proc("uptime", FLAG_LIMIT_BYTES).split()[0]))
    except (Unavailable, ValueError, IndexError):
        return -1


class _Session:
    """Remembers what it told of each process."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._members = Members(host, target)
        self._told: dict[int, ProcessState] = {}
        self._frozen: dict[Path, int] = {}
        self._folders: dict[int, tuple[str, Path, int] | None] = {}
        try:
            self._mounts: tuple[Mount, ...] = read_mounts(host)
        except Unavailable:
            self._mounts = ()

    def poll(self) -> Iterator[Item]:
        self._frozen.clear()
        for pid in self._members.pids():
            status = read_fields(self._host, pid, "State", "TracerPid", "CoreDumping")
            letter = status.get("State", "")[:1]
            if not letter or letter in GONE_LETTERS:
                continue
            state = self._to_state(pid, letter, status)
            if self._told.get(pid) != state:
                self._told[pid] = state
                yield from self._tell(pid, state)
        if self._members.left_out_count:
            yield Rows(PROCESS_STATES.name, (), 0, self._members.left_out_count)

    def close(self) -> tuple[()]:
        return ()

    def _tell(self, pid: int, state: ProcessState) -> Iterator[Row]:
        try:
            stat = read_stat(self._host, pid)
        except Unavailable:
            return
        uptime_ns = read_uptime_ns(self._host)
        age_ns = max(0, uptime_ns - stat.start_ticks * NS_PER_TICK) if uptime_ns >= 0 else -1
        head = (self._host.now_ns(), pid, stat.parent_pid, age_ns)
        yield Row(PROCESS_STATES.name, (*head, *structs.astuple(state)))

    def _to_state(self, pid: int, letter: str, status: dict[str, str]) -> ProcessState:
        tracer = status.get("TracerPid", "")
        tracer_pid = int(tracer) if tracer.isdecimal() and len(tracer) < 19 else -1
        return ProcessState(
            state_letter=ord(letter if letter in HALTED else RUNS),
            tracer_pid=tracer_pid,
            tracer_name=self._name(tracer_pid) if tracer_pid > 0 else "",
            is_frozen=self._read_frozen(pid),
            is_dumping={"1": 1, "0": 0}.get(status.get("CoreDumping", ""), -1),
        )

    def _name(self, pid: int) -> str:
        try:
            return read_stat(self._host, pid).name
        except Unavailable:
            return ""

    def _read_frozen(self, pid: int) -> int:
        if pid not in self._folders:
            chain = find_chain(self._host, self._mounts, pid, "freezer")
            self._folders[pid] = chain[0] if chain else None
        place = self._folders[pid]
        if place is None:
            return -1
        name = "freezer.state" if place[2] == 1 else "cgroup.events"
        path = place[1] / name
        if path not in self._frozen:
            try:
                text = self._host.read_path(os.fspath(path), FLAG_LIMIT_BYTES)
                self._frozen[path] = parse_frozen(text, place[2])
            except Unavailable:
                self._frozen[path] = -1
        return self._frozen[path]


COLLECTOR = Collector(
    "process_states",
    metrics=(),
    tables=(PROCESS_STATES,),
    scope="target",
    interval_s=0.5,
    timeout_s=0.2,
    open=_Session,
)
