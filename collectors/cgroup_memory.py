"""The memory limits that bind the target, its own cgroup's and every ancestor's, and their use."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.collectors._cgroup import CgroupRef
from perfkit.collectors._chains import controller_chains, parse_pairs, read_file
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Column, ColumnType, Row, TableSchema, Target

# Version 1 writes "no limit" as the largest multiple of a page: anything this large is none.
NO_LIMIT_BYTES = 1 << 60
# What is read of memory.stat and memory.events; kernels before 5.9 tell refaults in one number.
REFAULTS_2 = ("workingset_refault", "workingset_refault_anon", "workingset_refault_file")
STAT_2 = ("anon", "file", "pgmajfault", "pgscan", "pgsteal", *REFAULTS_2)
EVENTS_2 = ("max", "high", "oom_kill")
REFAULTS_1 = tuple(f"total_{name}" for name in REFAULTS_2)
STAT_1 = ("total_rss", "total_cache", "total_swap", "total_pgmajfault", *REFAULTS_1)
KILLS = ("oom_kill",)
CGROUP_MEMORY = TableSchema(
    "cgroup_memory",
    (
        Column("t_ns", "ns"),
        Column("path", type=ColumnType.TEXT),
        Column("version", help="1 or 2"),
        Column("is_own", help="1: a process of the target is in it; 0: an ancestor"),
        Column("limit_bytes", "bytes", help="-1: none"),
        Column("high_bytes", "bytes", help="memory.high of version 2; -1: none"),
        Column("usage_bytes", "bytes", help="-1 not read, as in all that follow"),
        Column("max_usage_bytes", "bytes", help="since it was made; version 2: Linux 5.19"),
        Column("limit_hits", help="allocations that met the limit: failcnt, or events max"),
        Column("high_hits", help="allocations above memory.high"),
        Column("oom_kills"),
        Column("anonymous_bytes", "bytes"),
        Column("file_bytes", "bytes"),
        Column("swap_bytes", "bytes"),
        Column("major_faults"),
        Column("refaults", help="pages dropped and soon needed again"),
        Column("scanned_pages", "pages", help="looked at to free some; not told by version 1"),
        Column("reclaimed_pages", "pages", help="freed; not told by version 1"),
    ),
    source="memory.max, memory.current, memory.peak, memory.events, memory.stat (v2);"
    " memory.limit_in_bytes, usage_in_bytes, max_usage_in_bytes, failcnt, oom_control, stat (v1)",
    help="A row per cgroup every two seconds, what lies below it included.",
)


def to_number(text: str) -> int:
    """Reads a whole number; -1 for "max", for no limit, and for anything else."""
    word = text.strip()
    return int(word) if word.isdecimal() and len(word) < 20 and int(word) < NO_LIMIT_BYTES else -1


def add(numbers: dict[str, int], *names: str) -> int:
    """The sum of those that are there; -1 where none is."""
    there = [numbers[name] for name in names if name in numbers]
    return sum(there) if there else -1


def read_version_1(host: Host, ref: CgroupRef) -> tuple[int, ...]:
    """What version 1 tells of a cgroup, in the order of the columns from limit_bytes on."""
    stat = parse_pairs(read_file(host, ref, "memory.stat"), STAT_1)
    return (
        to_number(read_file(host, ref, "memory.limit_in_bytes")),
        -1,
        to_number(read_file(host, ref, "memory.usage_in_bytes")),
        to_number(read_file(host, ref, "memory.max_usage_in_bytes")),
        to_number(read_file(host, ref, "memory.failcnt")),
        -1,
        add(parse_pairs(read_file(host, ref, "memory.oom_control"), KILLS), *KILLS),
        add(stat, "total_rss"),
        add(stat, "total_cache"),
        add(stat, "total_swap"),
        add(stat, "total_pgmajfault"),
        add(stat, *REFAULTS_1),
        -1,
        -1,
    )


def read_version_2(host: Host, ref: CgroupRef) -> tuple[int, ...]:
    """What version 2 tells of a cgroup, in the order of the columns from limit_bytes on."""
    stat = parse_pairs(read_file(host, ref, "memory.stat"), STAT_2)
    events = parse_pairs(read_file(host, ref, "memory.events"), EVENTS_2)
    return (
        to_number(read_file(host, ref, "memory.max")),
        to_number(read_file(host, ref, "memory.high")),
        to_number(read_file(host, ref, "memory.current")),
        to_number(read_file(host, ref, "memory.peak")),
        add(events, "max"),
        add(events, "high"),
        add(events, "oom_kill"),
        add(stat, "anon"),
        add(stat, "file"),
        to_number(read_file(host, ref, "memory.swap.current")),
        add(stat, "pgmajfault"),
        add(stat, *REFAULTS_2),
        add(stat, "pgscan"),
        add(stat, "pgsteal"),
    )


class _Session:
    """Knows the target's memory cgroups since the start."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._refs = controller_chains(host, target, "memory")

    def poll(self) -> Iterator[Row]:
        t_ns = self._host.now_ns()
        told = 0
        for ref in self._refs:
            values = (
                read_version_2(self._host, ref)
                if ref.version == 2
                else read_version_1(self._host, ref)
            )
            if any(value >= 0 for value in values):
                told += 1
                head = (t_ns, ref.path, ref.version, int(ref.is_own))
                yield Row(CGROUP_MEMORY.name, (*head, *values))
        if not told:
            raise Unavailable("the target's cgroups have no memory controller switched on")

    def close(self) -> tuple[()]:
        return ()


COLLECTOR = Collector(
    "cgroup_memory",
    metrics=(),
    tables=(CGROUP_MEMORY,),
    scope="target",
    interval_s=2.0,
    timeout_s=0.3,
    open=_Session,
)
