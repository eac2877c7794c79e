"""The Capture: all that one host recorded in `[start_ns, end_ns)`, and the values it is made of.

Times are CLOCK_MONOTONIC nanoseconds of the recording host; `Clock` anchors them to UTC at both
ends. Tables are columns of packed little-endian values; `-1` in an integer column means "not read"
unless the column says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Literal, Protocol

from msgspec import Struct

SCHEMA_VERSION = 1
# Names of other hosts, as ssh takes them ([user@]name, ssh://...). No shell reads anything into
# them, here or there, and none is an option.
HOST_NAME_PATTERN = r"(ssh://)?[A-Za-z0-9_\[:][A-Za-z0-9_.:@%+\[\]-]{0,254}"


class Kind(StrEnum):
    """How a metric behaves: a COUNTER only grows, a GAUGE may go either way."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Metric(Struct, frozen=True):
    """One measured quantity; its name ends in its unit, `source` is its file and field."""

    name: str
    kind: Kind
    unit: str
    source: str
    help: str
    labels: tuple[str, ...] = ()


class Reading(Struct, frozen=True):
    """One value of one metric; `labels` are the values in the order of the metric's label names."""

    metric: str
    labels: tuple[str, ...]
    value: float


class ColumnType(StrEnum):
    """What a column holds: signed 64-bit integers, doubles, or indexes into the string table."""

    INTEGER = "i8"
    REAL = "f8"
    TEXT = "str"


class Column(Struct, frozen=True):
    """One column of a table: its name, the unit of its values ("" for plain counts and names)."""

    name: str
    unit: str = ""
    type: ColumnType = ColumnType.INTEGER
    help: str = ""


class TableSchema(Struct, frozen=True):
    """The shape of a table that a collector fills."""

    name: str
    columns: tuple[Column, ...]
    source: str
    help: str


class Row(Struct, frozen=True):
    """One row for a table, values in the order of its columns (int, float or str)."""

    table: str
    values: tuple[int | float | str, ...]


class Rows(Struct, frozen=True):
    """Many rows at once, as packed little-endian columns of 8-byte values.

    Shape: the values of text columns are places in `texts`, which are few.
    """

    table: str
    columns: tuple[bytes, ...]
    row_count: int
    dropped_count: int = 0
    texts: tuple[str, ...] = ()


Item = Reading | Row | Rows


class Table(Struct, frozen=True):
    """The recorded rows of one table.

    Shape: `packed[i]` holds column i: 8 bytes a value for integers and reals, 4 bytes (an
    unsigned index into `Capture.strings`) for text. `dropped_count` rows were lost to a limit.
    """

    name: str
    columns: tuple[Column, ...]
    packed: tuple[bytes, ...]
    row_count: int
    dropped_count: int = 0


class Status(Struct, frozen=True):
    """How a collector fared. `grant` is what would make an unavailable source readable."""

    collector: str
    state: Literal["ok", "unavailable", "failed"]
    reason: str = ""
    grant: str = ""
    poll_count: int = 0
    missed_count: int = 0
    dropped_count: int = 0
    cpu_ns: int = 0
    wall_ns: int = 0


class Rate(Struct, frozen=True):
    """What a paced sampler asked for and what it got; missed ticks never happened at all."""

    sampler: str
    requested_hertz: float
    achieved_hertz: float
    tick_count: int
    missed_count: int
    note: str = ""


class Clock(Struct, frozen=True):
    """The window on the host's monotonic clock, anchored to UTC at both ends."""

    start_ns: int
    end_ns: int
    start_utc_ns: int
    end_utc_ns: int
    boot_id: str = ""


class Machine(Struct, frozen=True):
    """What the host is: enough to judge whether figures of two captures can be compared."""

    cpu_model: str
    cpu_count: int
    kernel: str
    memory_bytes: int


class ProcessRef(Struct, frozen=True):
    """One process; (pid, start_ticks) survives the reuse of a pid. Text is untrusted."""

    pid: int
    parent_pid: int
    start_ticks: int
    name: str
    exe: str
    cgroup: str
    role: Literal["main", "worker", "child", "sibling"]


class Target(Struct, frozen=True):
    """What was looked at: a service (a process tree behind a listening socket), or the host.

    `processes` belong to the service, `siblings` merely share its cgroup. At `shared_ports` other
    processes listen too. `gone_ns` is when the whole target was first missed, None while any of it
    lived to the end of the window.
    """

    kind: Literal["service", "process", "host"]
    main_pid: int
    name: str
    chosen_by: str
    processes: tuple[ProcessRef, ...] = ()
    siblings: tuple[ProcessRef, ...] = ()
    listening: tuple[str, ...] = ()
    network_namespace: int = 0
    allowed_cpu_count: int = 0
    gone_ns: int | None = None
    shared_ports: tuple[int, ...] = ()


class Cost(Struct, frozen=True):
    """What recording cost this host between the window's ends; start-up is stated apart."""

    cpu_ns: int
    children_cpu_ns: int
    startup_cpu_ns: int
    memory_peak_bytes: int


class Header(Struct, frozen=True):
    """Everything about a capture but its tables.

    `reached_as` is the name by which the host was reached, "" where it recorded itself.
    """

    schema_version: int
    perfkit_version: str
    host: str
    machine: Machine
    clock: Clock
    target: Target
    requested_s: float
    cost: Cost
    statuses: tuple[Status, ...] = ()
    rates: tuple[Rate, ...] = ()
    interrupted: str = ""
    reached_as: str = ""


def word_place(header: Header) -> str:
    """How a command names the host of a capture; "." where it recorded itself, or for nonsense."""
    is_name = re.fullmatch(HOST_NAME_PATTERN, header.reached_as)
    return header.reached_as if is_name else "."


class Capture(Struct, frozen=True):
    """All that one host recorded in one window. A missing table was never declared or not read."""

    header: Header
    tables: dict[str, Table]
    strings: tuple[str, ...] = ()


class Session(Protocol):
    """An open source. `poll` is called at the collector's cadence, `close` once at the end."""

    def poll(self) -> Iterable[Item]:
        """Yields what is new since the last poll."""
        ...

    def close(self) -> Iterable[Item]:
        """Yields what is left and releases every resource; it must not wait longer than 0.5 s."""
        ...


class Collector(Struct, frozen=True):
    """One source of a capture. `open(host, target)` begins a session.

    `scope` says what is read: the host, or the target's processes. `open` and `poll` raise
    `Unavailable` where the source is absent or refused. One `poll` should stay under `timeout_s`;
    longer ones are counted as missed.
    """

    name: str
    metrics: tuple[Metric, ...]
    tables: tuple[TableSchema, ...]
    scope: Literal["host", "target"]
    interval_s: float
    timeout_s: float
    open: Callable[..., Session]


class _Polled:
    """A session around a pure read."""

    def __init__(self, read: Callable[..., Iterable[Item]], host: Any, target: Target) -> None:
        self._read, self._host, self._target = read, host, target

    def poll(self) -> Iterable[Item]:
        return self._read(self._host, self._target)

    def close(self) -> Iterable[Item]:
        return ()


def polled(read: Callable[..., Iterable[Item]]) -> Callable[..., Session]:
    """Makes an `open` of `read(host, target)`, for sources that keep nothing between polls."""

    def open_session(host: Any, target: Target) -> Session:
        return _Polled(read, host, target)

    return open_session
