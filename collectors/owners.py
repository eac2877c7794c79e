"""Who held the CPU: each second, every process above 1 % of a core, and the use of each cgroup."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterator, Set
from pathlib import Path

from msgspec import Struct

from perfkit import _native
from perfkit.collectors._cgroup import (
    UNIFIED,
    Mount,
    Weights,
    find_chain,
    mount_folder,
    read_cpu_path,
    read_mounts,
    walk,
)
from perfkit.collectors._partners import Ends, read_ends, relation_of
from perfkit.collectors._proc import (
    list_pids,
    parse_number,
    read_cpu_ns,
    read_fields,
    read_stat,
)
from perfkit.errors import Unavailable
from perfkit.host import Host, read_text
from perfkit.model import Collector, Column, ColumnType, Item, Row, Rows, TableSchema, Target

SHARE_MIN = 0.01
OWNER_LIMIT = 64
CGROUP_WALK_LIMIT = 4096
CGROUP_ROW_LIMIT = 512
CHAIN_READ_LIMIT = 64
# What each part may take of a core: on a host with very many processes, cgroups or sockets it is
# read less often.
OWNERS_COST_RATIO = 0.003
CGROUP_COST_RATIO = 0.003
PARTNERS_COST_RATIO = 0.001
POLL_NS = 1_000_000_000
OWNER_KEPT_NS = 5_000_000_000
PARTNERS_KEPT_NS = 3_000_000_000
LAST_READ_NS = 100_000_000
OTHERS = "(others)"
CPUS = "Cpus_allowed_list"

OWNERS = TableSchema(
    "owners",
    (
        Column("t_ns", "ns", help="end of the interval"),
        Column("interval_ns", "ns"),
        Column("pid", help="0: the sum of all that have no row of their own"),
        Column("name", type=ColumnType.TEXT, help="untrusted text"),
        Column("cgroup", type=ColumnType.TEXT, help="path of the cpu controller"),
        Column("run_ns", "ns", help="CPU time of all its threads in the interval"),
        Column("nice"),
        Column("policy", help="0 other, 1 fifo, 2 rr, 3 batch, 5 idle, 6 deadline; -1 not read"),
        Column("cpus_allowed", type=ColumnType.TEXT),
        Column("role", type=ColumnType.TEXT, help="service, sibling, self, other"),
        Column("parent_pid"),
        Column(
            "relation", type=ColumnType.TEXT, help="client or peer of the service on TCP, or empty"
        ),
        Column("weight", help="of its cgroup where it meets the target's; -1 same group, unread"),
        Column("target_weight", help="of the target's cgroup at that level; -1 as above"),
    ),
    source="the CPU clock of each process (clock_gettime); /proc/PID/stat, status, cgroup, fd, net;"
    " cpu.weight (v2), cpu.shares (v1)",
    help="Processes with at least 1 % of a core in an interval, at most 64, and the busiest one of"
    " the service; the rest summed.",
)
CGROUP_USAGE = TableSchema(
    "cgroup_usage",
    (
        Column("t_ns", "ns"),
        Column("cgroup", type=ColumnType.TEXT),
        Column("usage_ns", "ns", help="CPU time of the cgroup and all below it, since it was made"),
    ),
    source="cpuacct.usage (v1); cpu.stat usage_usec (v2)",
    help="A counter of every leaf cgroup and of every ancestor of the target.",
)


def read_all_cpu_ns(host: Host, pids: list[int]) -> list[int]:
    """The CPU time of each process, -1 where it is gone; in C where /proc is our own."""
    if host.proc == Path("/proc"):
        return array("q", _native.process_cpu_ns(array("q", pids))).tolist()
    return [read_cpu_ns(host, pid) for pid in pids]


def to_deltas(before: dict[int, int], after: dict[int, int]) -> dict[int, int]:
    """The CPU time that each process used between two readings.

    A pid that is new, or whose clock went backwards (the pid was used again), began at zero.
    """
    deltas = {}
    for pid, cpu_ns in after.items():
        base_ns = before.get(pid, 0)
        if cpu_ns >= 0:
            deltas[pid] = cpu_ns - base_ns if cpu_ns >= base_ns >= 0 else cpu_ns
    return deltas


def choose(deltas: dict[int, int], interval_ns: int, service: Set[int]) -> list[int]:
    """The pids that get a row of their own, those that used most first.

    The busiest process of the service is one of them however little it used: on a host that stood
    still for a while, or gave the service no CPU, that little is what must be told.
    """
    least_ns = max(1.0, SHARE_MIN * interval_ns)
    large = [pid for pid, run_ns in deltas.items() if run_ns >= least_ns]
    chosen = sorted(large, key=lambda pid: (-deltas[pid], pid))[:OWNER_LIMIT]
    busiest = max(service & deltas.keys(), key=lambda pid: (deltas[pid], -pid), default=None)
    if busiest is None or busiest in chosen or not deltas[busiest]:
        return chosen
    return [*chosen[: OWNER_LIMIT - 1], busiest]


def parse_usage_ns(text: str, version: int) -> int:
    """Reads a cgroup's CPU time: the whole text in v1, usage_usec of cpu.stat in v2; -1: absent."""
    if version == 1:
        return parse_number(text.strip())
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec" and (usage_us := parse_number(value)) >= 0:
            return min(1000 * usage_us, 1 << 61)
    return -1


def to_rest_ns(spent_ns: int) -> int:
    """How long to put the next reading of the clocks off; nothing while each poll pays for it."""
    rest_ns = int(spent_ns / OWNERS_COST_RATIO)
    return rest_ns if rest_ns > POLL_NS else 0


class _Owner(Struct, frozen=True):
    """What a process is, kept for a few seconds, since it is the dear part of a row."""

    name: str = ""
    cgroup: str = ""
    nice: int = 0
    policy: int = -1
    cpus_allowed: str = ""
    role: str = "other"
    parent_pid: int = -1
    relation: str = ""
    weight: int = -1
    target_weight: int = -1
    read_ns: int = 0


class _Session:
    """Keeps the last reading of every process's CPU clock."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._service = {ref.pid for ref in target.processes}
        self._siblings = {ref.pid for ref in target.siblings}
        self._before: dict[int, int] = {}
        self._owners: dict[int, _Owner] = {}
        self._before_ns = 0
        self._owners_due_ns = self._usage_due_ns = self._usage_read_ns = 0
        self._mount = find_usage_mount(host)
        self._ancestors = find_ancestors(host, target)
        self._target = target
        self._weights = Weights(host, target)
        self._ends, self._ends_due_ns = Ends(), 0
        if target.kind != "host":
            self._read_ends()  # before the window: it is dear

    def poll(self) -> Iterator[Item]:
        if self._host.now_ns() >= self._owners_due_ns:
            yield from self._poll_owners()
        if self._host.now_ns() >= self._usage_due_ns:
            yield from self._poll_usage()

    def close(self) -> Iterator[Item]:
        if self._host.now_ns() - self._before_ns > LAST_READ_NS:
            yield from self._poll_owners()
        if self._host.now_ns() - self._usage_read_ns > LAST_READ_NS:
            yield from self._poll_usage()

    def _poll_owners(self) -> Iterator[Item]:
        begin_ns = time.thread_time_ns()
        pids = list_pids(self._host)
        t_ns = self._host.now_ns()
        after = dict(zip(pids, read_all_cpu_ns(self._host, pids), strict=True))
        before, interval_ns = self._before, t_ns - self._before_ns
        self._before, self._before_ns = after, t_ns
        deltas = to_deltas(before, after)
        self._owners_due_ns = t_ns + to_rest_ns(time.thread_time_ns() - begin_ns)
        if not before:
            return
        reused = {pid for pid in self._owners if after.get(pid, -1) < before.get(pid, 0)}
        for pid in reused:
            del self._owners[pid]
        self._service -= reused  # its pid may be a stranger's by now
        chosen = choose(deltas, interval_ns, self._service)
        for pid in chosen:
            yield self._to_row(pid, t_ns, interval_ns, deltas[pid])
        rest_ns = sum(deltas.values()) - sum(deltas[pid] for pid in chosen)
        rest = (OTHERS, "", rest_ns, 0, -1, "", "other", -1, "", -1, -1)
        yield Row(OWNERS.name, (t_ns, interval_ns, 0, *rest))

    def _to_row(self, pid: int, t_ns: int, interval_ns: int, run_ns: int) -> Row:
        owner = self._owners.get(pid)
        if owner is None or t_ns - owner.read_ns > OWNER_KEPT_NS:
            owner = self._owners[pid] = self._read_owner(pid, t_ns)
        values = (owner.name, owner.cgroup, run_ns, owner.nice, owner.policy, owner.cpus_allowed)
        place = (owner.role, owner.parent_pid, owner.relation, owner.weight, owner.target_weight)
        return Row(OWNERS.name, (t_ns, interval_ns, pid, *values, *place))

    def _read_owner(self, pid: int, t_ns: int) -> _Owner:
        try:
            stat = read_stat(self._host, pid)
        except Unavailable:
            # It went since its clock was read; its time counts all the same.
            return _Owner(role="service" if pid in self._service else "other")
        role = self._role_of(pid, stat.parent_pid)
        is_stranger = role in ("sibling", "other")
        before = self._owners.get(pid)
        weight, target_weight = self._weights.of(pid) if is_stranger else (-1, -1)
        return _Owner(
            name=stat.name,
            cgroup=read_cpu_path(self._host, pid),
            nice=stat.nice,
            policy=stat.policy,
            cpus_allowed=read_fields(self._host, pid, CPUS).get(CPUS, ""),
            role=role,
            parent_pid=stat.parent_pid,
            relation=self._relation_of(pid, t_ns, before) if is_stranger else "",
            weight=weight,
            target_weight=target_weight,
            read_ns=t_ns,
        )

    def _relation_of(self, pid: int, t_ns: int, before: _Owner | None) -> str:
        """Once known it stays; a stranger is asked again when the tables are read anew."""
        if self._target.kind == "host":
            return ""
        is_due = t_ns >= self._ends_due_ns
        if before is not None and (before.relation or not is_due):
            return before.relation
        if is_due:
            self._read_ends()
        return relation_of(self._host, pid, self._ends)

    def _read_ends(self) -> None:
        t_ns, begin_ns = self._host.now_ns(), time.thread_time_ns()
        self._ends = read_ends(self._host, self._target)
        spent_ns = time.thread_time_ns() - begin_ns
        rest_ns = max(PARTNERS_KEPT_NS, int(spent_ns / PARTNERS_COST_RATIO))
        self._ends_due_ns = t_ns + rest_ns

    def _role_of(self, pid: int, parent_pid: int) -> str:
        if os.getpid() in (pid, parent_pid):
            return "self"
        if pid in self._service or parent_pid in self._service:
            self._service.add(pid)
            return "service"
        return "sibling" if pid in self._siblings else "other"

    def _poll_usage(self) -> Iterator[Item]:
        if self._mount is None:
            return
        begin_ns = time.thread_time_ns()
        name = "cpuacct.usage" if self._mount.version == 1 else "cpu.stat"
        base, root = mount_folder(self._host, self._mount), self._mount.root.rstrip("/")
        top = str(base)
        row_count = dropped_count = 0
        for parts, is_leaf in walk(base, CGROUP_WALK_LIMIT):
            path = "/".join([root, *parts]) or "/"
            if not is_leaf and path not in self._ancestors:
                continue
            if row_count >= CGROUP_ROW_LIMIT:
                dropped_count += 1
                continue
            usage_ns = read_usage_ns("/".join((top, *parts, name)), self._mount.version)
            if usage_ns >= 0:
                row_count += 1
                yield Row(CGROUP_USAGE.name, (self._host.now_ns(), path, usage_ns))
        if dropped_count:
            yield Rows(CGROUP_USAGE.name, (), 0, dropped_count)
        spent_ns = time.thread_time_ns() - begin_ns
        self._usage_read_ns = self._host.now_ns()
        self._usage_due_ns = self._usage_read_ns + int(spent_ns / CGROUP_COST_RATIO)


def find_usage_mount(host: Host) -> Mount | None:
    """The hierarchy that accounts CPU time: v1 cpuacct, else the unified one. Missing: None."""
    try:
        mounts = read_mounts(host)
    except Unavailable:
        return None
    accounting = [mount for mount in mounts if "cpuacct" in mount.controllers]
    return next(iter(accounting or [mount for mount in mounts if mount.version == 2]), None)


def find_ancestors(host: Host, target: Target) -> frozenset[str]:
    """The paths of the target's cgroups and all above them, where CPU time is accounted."""
    mount = find_usage_mount(host)
    if mount is None:
        return frozenset(("/",))
    controller = "cpuacct" if mount.version == 1 else UNIFIED
    found = {"/"}
    for process in target.processes[:CHAIN_READ_LIMIT]:
        found.update(path for path, _, _ in find_chain(host, (mount,), process.pid, controller))
    return frozenset(found)


def read_usage_ns(path: str, version: int) -> int:
    """Reads one cgroup's CPU time; -1 where it is gone or refused."""
    try:
        return parse_usage_ns(read_text(path, 4096), version)
    except Unavailable:
        return -1


COLLECTOR = Collector(
    "owners",
    metrics=(),
    tables=(OWNERS, CGROUP_USAGE),
    scope="host",
    interval_s=POLL_NS / 1e9,
    timeout_s=0.5,
    open=_Session,
)
