"""Chooses what is looked at: the service around a process, the busiest serving one, or the host.

A service is the process named, those that share its listening socket with their parent, and all
descendants of these. Other processes of its cgroup are its siblings: possible culprits, no part.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Literal

from msgspec import Struct

from perfkit.agent.aside import call_aside
from perfkit.agent.census import (
    Census,
    Holders,
    count_closed,
    descend,
    find_holders,
    read_name,
    read_namespace,
    read_tables,
    take_census,
)
from perfkit.agent.tcptable import Listener, TcpTable
from perfkit.collectors._cgroup import CgroupRef, cpu_chains, is_root, read_cpu_path
from perfkit.collectors._proc import (
    PID_DIGIT_LIMIT,
    ProcStat,
    parse_cpu_list,
    read_cpu_ns,
    read_link,
    read_stat,
    read_status,
)
from perfkit.errors import TargetError, Unavailable
from perfkit.host import Host
from perfkit.model import ProcessRef, Target

CHOOSING_S = 0.3
SERVICE_LIMIT = 1024
SIBLING_LIMIT = 512
AFFINITY_READ_LIMIT = 64
NAME_LIMIT = 256
SHARED_PORT_LIMIT = 256
# Programs that start others of another kind: never part of the service that they start.
_STARTERS_TEXT = (
    "init systemd supervisord runsv runsvdir s6-svscan s6-supervise tini dumb-init docker-init "
    "catatonit containerd-shim containerd-shim-runc-v2 conmon sh bash dash zsh fish ash busybox "
    "sshd login su sudo tmux screen cron crond make xinetd inetd monit"
)
_STARTERS = frozenset(_STARTERS_TEXT.split())
# They serve the people who look, perhaps us, and whatever was started from there is their child.
_LOGINS = frozenset(["sshd", "sshd-session", "sshd-auth", "dropbear", "telnetd", "in.telnetd"])
_Kind = Literal["service", "process"]
_Role = Literal["main", "worker", "child", "sibling"]
_SILENT_FIX = "find out who holds that process, or serves that file, and try again"
_LIST_FIX = "perfkit diagnose .   (picks the busiest serving process by itself)"


class _Scene(Struct, frozen=True):
    """Everything that the choice is made from."""

    host: Host
    census: Census
    tables: dict[int, TcpTable]
    holders: Holders


class _Candidate(Struct, frozen=True):
    """One serving service: its pids, the process at its top, and its accepted connections."""

    main_pid: int
    pids: frozenset[int]
    connection_count: int


def resolve(host: Host, pid: int | None, only_pid: bool, own_pid: int | None = None) -> Target:
    """Works out the target. `own_pid` is perfkit's process, never part of any target.

    Files that do not answer are left out, see `call_aside`. Raises: `TargetError` where the pid
    does not exist, is a zombie, a kernel thread or perfkit, or where too much does not answer.
    """
    own = os.getpid() if own_pid is None else own_pid
    try:
        return call_aside(host, lambda watched: _resolve(watched, pid, only_pid, own))
    except Unavailable as absent:
        what = f"processes cannot be looked at: {absent.reason}"
        raise TargetError(what, fix=absent.grant or _SILENT_FIX) from absent


def _resolve(host: Host, pid: int | None, only_pid: bool, own: int) -> Target:
    if pid is None:
        return _choose(host, own)
    stat = _check(host, pid, own)
    census = take_census(host, own)
    census.processes.setdefault(pid, stat)
    tables = read_tables(host, (pid,))
    wanted = [listener for table in tables.values() for listener in table.listeners]
    near = sorted(census.processes, key=lambda other: _distance(census, pid, other))
    scene = _Scene(host, census, tables, find_holders(host, near, wanted))
    if only_pid:
        words = "named with --pid and --only-pid"
        family = descend(census.children, (pid,)) & census.processes.keys()
        return _to_target(scene, pid, family, words, "process")
    pids = gather(scene.host, census, scene.holders, pid)
    return _to_target(scene, pid, pids, _named(scene, pid, pids))


def gather(host: Host, census: Census, holders: Holders, pid: int) -> frozenset[int]:
    """The pids of the service around one process."""
    roots = {pid} | _sharers(host, census, holders, pid)
    parents = Counter(census.processes[root].parent_pid for root in roots)
    for parent, count in parents.items():
        if parent in roots or parent not in census.processes or count < 2:
            continue
        exe = read_link(host, f"{parent}/exe")
        alike = sum(
            read_link(host, f"{root}/exe") == exe
            for root in roots
            if census.processes[root].parent_pid == parent
        )
        if exe and alike >= 2 and parent != 1:
            roots.add(parent)
    family = descend(census.children, roots)
    return frozenset(member for member in family if member in census.processes)


def _sharers(host: Host, census: Census, holders: Holders, pid: int) -> set[int]:
    """Those that hold the same listening socket, or listen at the same address for one parent."""
    mine = holders.listeners.get(pid, frozenset())
    inodes = {listener.inode for listener in mine}
    addresses = {(listener.address, listener.port) for listener in mine}
    parent = census.processes[pid].parent_pid
    exe = read_link(host, f"{pid}/exe")
    found = set()
    for other, listeners in holders.listeners.items():
        if other in (1, pid) or other not in census.processes:
            continue
        same_parent = census.processes[other].parent_pid == parent and parent != 1
        shares = any(
            listener.inode in inodes
            or (same_parent and (listener.address, listener.port) in addresses)
            for listener in listeners
        )
        if shares and (not _is_starter(host, other) or read_link(host, f"{other}/exe") == exe):
            found.add(other)
    return found


def _is_starter(host: Host, pid: int) -> bool:
    return Path(read_link(host, f"{pid}/exe")).name in _STARTERS


def _distance(census: Census, pid: int, other: int) -> int:
    """Relatives are looked at first, since the time for reading descriptors is limited."""
    mine, theirs = census.processes[pid], census.processes[other]
    if other == pid:
        return 0
    is_near = theirs.pid == mine.parent_pid or theirs.parent_pid in (pid, mine.parent_pid)
    return 1 if is_near else 2


def _check(host: Host, pid: int, own_pid: int) -> ProcStat:
    try:
        stat = read_stat(host, pid)
    except Unavailable as gone:
        if gone.is_silent:
            raise
        raise TargetError(f"no process has the pid {pid}", fix=_LIST_FIX) from gone
    if pid == own_pid:
        raise TargetError(f"pid {pid} is perfkit itself", fix=_LIST_FIX)
    if stat.is_gone:
        fix = f"name a living process; its parent is {stat.parent_pid}"
        raise TargetError(f"process {pid} is a zombie, it has exited already", fix=fix)
    if stat.is_kernel:
        raise TargetError(f"process {pid} is a kernel thread, not a service", fix=_LIST_FIX)
    return stat


def _named(scene: _Scene, pid: int, pids: frozenset[int]) -> str:
    words = "named with --pid"
    main = _find_main(scene.census, pid, pids)
    if main != pid:
        words += f" {pid}, part of the service of pid {main}"
    if len(pids) > 1:
        words += f" ({len(pids)} processes{_limited(pids)})"
    if pid in scene.holders.denied or not scene.tables:
        words += "; its sockets cannot be read (no right), so only its descendants are counted in"
    return words + _skipped(scene.holders)


def _limited(pids: frozenset[int]) -> str:
    return f", of which {SERVICE_LIMIT} are followed" if len(pids) > SERVICE_LIMIT else ""


def _closed(scene: _Scene) -> str:
    """How many processes are not to be looked into: the service may be one of them."""
    count = count_closed(scene.host, scene.census.processes)
    closed = "1 process is" if count == 1 else f"{count} processes are"
    words = f"{closed} closed to this user; root or CAP_SYS_PTRACE may look"
    return f" ({words})" if count else ""


def _skipped(holders: Holders) -> str:
    count = holders.skipped_count
    return f"; descriptors of {count} processes were not looked at (time limit)" if count else ""


def _choose(host: Host, own_pid: int) -> Target:
    """The serving service that uses most CPU, measured while the descriptors are read."""
    census = take_census(host, own_pid)
    before = {pid: read_cpu_ns(host, pid) for pid in census.processes}
    begin_ns = time.monotonic_ns()
    tables = read_tables(host, census.processes)
    wanted = [
        listener
        for table in tables.values()
        for listener in table.listeners
        if table.count_accepted(listener)
    ]
    scene = _Scene(host, census, tables, find_holders(host, census.processes, wanted))
    candidates = _find_candidates(scene)
    if not candidates:
        words = f"no service with accepted connections was found{_closed(scene)}"
        words += ", so the host is looked at"
        return Target("host", 0, "", words + _skipped(scene.holders))
    if len(candidates) > 1 or not before:
        time.sleep(max(0.0, CHOOSING_S - (time.monotonic_ns() - begin_ns) / 1e9))
    spent = {c.main_pid: _spent_ns(host, before, c.pids) for c in candidates}
    elapsed_ns = max(1, time.monotonic_ns() - begin_ns)
    best = max(candidates, key=lambda c: (spent[c.main_pid], c.connection_count, -c.main_pid))
    words = (
        "the only serving service"
        if len(candidates) == 1
        else f"busiest of {len(candidates)} serving services: "
        f"{100 * spent[best.main_pid] / elapsed_ns:.0f} % of a core"
    )
    return _to_target(scene, best.main_pid, best.pids, words + _skipped(scene.holders))


def _spent_ns(host: Host, before: dict[int, int], pids: frozenset[int]) -> int:
    return sum(max(0, read_cpu_ns(host, pid) - before[pid]) for pid in pids if before[pid] >= 0)


def _find_candidates(scene: _Scene) -> list[_Candidate]:
    found: list[_Candidate] = []
    covered: set[int] = {1}
    for pid in sorted(scene.holders.listeners):
        if pid in covered or pid not in scene.census.processes:
            continue
        if Path(read_link(scene.host, f"{pid}/exe")).name in _LOGINS:
            continue
        pids = gather(scene.host, scene.census, scene.holders, pid)
        covered |= pids
        heard = {one for member in pids for one in scene.holders.listeners.get(member, ())}
        table = scene.tables.get(read_namespace(scene.host, pid), TcpTable((), {}))
        places = {(listener.address, listener.port): listener for listener in heard}
        count = sum(table.count_accepted(listener) for listener in places.values())
        found.append(_Candidate(_find_main(scene.census, pid, pids), pids, count))
    return found


def _find_main(census: Census, pid: int, pids: frozenset[int]) -> int:
    """The topmost process of the service above `pid`."""
    seen = {pid}
    while (parent := census.processes[pid].parent_pid) in pids and parent not in seen:
        seen.add(parent)
        pid = parent
    return pid


def _to_target(
    scene: _Scene, pid: int, pids: frozenset[int], chosen_by: str, kind: _Kind = "service"
) -> Target:
    host, census = scene.host, scene.census
    main = _find_main(census, pid, pids)
    order = sorted(pids, key=lambda member: (member != main, member))[:SERVICE_LIMIT]
    held = scene.holders.listeners
    heard: set[Listener] = set().union(*(held.get(member, ()) for member in order))
    refs = tuple(
        _to_ref(host, census.processes[member], _role(member, main, held)) for member in order
    )
    draft = Target(kind, main, "", "", refs)
    return Target(
        kind=kind,
        main_pid=main,
        name=read_name(host, census.processes[main])[:NAME_LIMIT],
        chosen_by=chosen_by,
        processes=refs,
        siblings=_find_siblings(host, cpu_chains(host, draft), pids | census.own | {os.getpid()}),
        listening=tuple(sorted({listener.text for listener in heard})),
        network_namespace=read_namespace(host, main),
        allowed_cpu_count=_count_cpus(host, order[:AFFINITY_READ_LIMIT]),
        shared_ports=_shared_ports(scene, pids, heard),
    )


def _shared_ports(scene: _Scene, pids: frozenset[int], heard: set[Listener]) -> tuple[int, ...]:
    """The ports at which processes beside the target accept too: forked alike, or reusing it."""
    mine = {(listener.address, listener.port) for listener in heard}
    shared = {
        listener.port
        for other, listeners in scene.holders.listeners.items()
        if other not in pids and other != 1
        for listener in listeners
        if (listener.address, listener.port) in mine
    }
    return tuple(sorted(shared))[:SHARED_PORT_LIMIT]


def _role(pid: int, main: int, held: dict[int, frozenset[Listener]]) -> _Role:
    return "main" if pid == main else "worker" if pid in held else "child"


def _to_ref(host: Host, stat: ProcStat, role: _Role) -> ProcessRef:
    return ProcessRef(
        pid=stat.pid,
        parent_pid=stat.parent_pid,
        start_ticks=stat.start_ticks,
        name=stat.name,
        exe=read_link(host, f"{stat.pid}/exe"),
        cgroup=read_cpu_path(host, stat.pid),
        role=role,
    )


def _find_siblings(
    host: Host, chains: tuple[CgroupRef, ...], pids: frozenset[int]
) -> tuple[ProcessRef, ...]:
    """The other processes of the service's own cgroups; the root cgroup makes no siblings."""
    found: list[ProcessRef] = []
    for ref in chains:
        if not ref.is_own or is_root(ref):
            continue
        try:
            listed = host.read_path(f"{ref.folder}/cgroup.procs").split()
        except Unavailable:
            continue
        for word in listed:
            pid = int(word) if word.isdecimal() and len(word) <= PID_DIGIT_LIMIT else 0
            if pid and pid not in pids and len(found) < SIBLING_LIMIT:
                try:
                    found.append(_to_ref(host, read_stat(host, pid), "sibling"))
                except Unavailable:
                    continue
    return tuple(found)


def _count_cpus(host: Host, pids: list[int]) -> int:
    texts = (read_status(host, pid).get("Cpus_allowed_list", "") for pid in pids)
    return len(frozenset[int]().union(*(parse_cpu_list(text) for text in texts)))
