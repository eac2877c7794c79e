"""All processes of the host at one moment, and which of them hold which listening sockets."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path

from msgspec import Struct

from perfkit.agent.tcptable import Listener, TcpTable, read_tcp_table
from perfkit.collectors._proc import ProcStat, list_pids, parse_number, read_link, read_stat
from perfkit.errors import Unavailable
from perfkit.host import Host

PROCESS_LIMIT = 32_768
DESCRIPTOR_LIMIT = 4096
SCAN_BUDGET_S = 0.35
CLOSED_LIMIT = 1024
NAMESPACE_LIMIT = 256
COMMAND_LIMIT_S = 0.1
_INTERPRETERS = ("python", "pypy", "node", "ruby", "perl", "java")


class Census(Struct, frozen=True):
    """Every user process by pid, the children of each, and perfkit's own, which are left out."""

    processes: dict[int, ProcStat]
    children: dict[int, tuple[int, ...]]
    own: frozenset[int]


class Holders(Struct, frozen=True):
    """Who holds listening sockets: pid -> listeners. `denied` pids' descriptors are closed to us.

    `skipped_count` processes were not looked at because the time for it was up.
    """

    listeners: dict[int, frozenset[Listener]]
    denied: frozenset[int]
    skipped_count: int = 0


def take_census(host: Host, own_pid: int) -> Census:
    """Reads the stat of every process; perfkit itself and its children are set apart."""
    processes: dict[int, ProcStat] = {}
    for pid in list_pids(host)[:PROCESS_LIMIT]:
        try:
            stat = read_stat(host, pid)
        except Unavailable:
            continue
        if not stat.is_kernel and not stat.is_gone:
            processes[pid] = stat
    children: dict[int, list[int]] = defaultdict(list)
    for stat in processes.values():
        children[stat.parent_pid].append(stat.pid)
    families = {pid: tuple(pids) for pid, pids in children.items()}
    own = descend(families, (own_pid,))
    kept = {pid: stat for pid, stat in processes.items() if pid not in own}
    return Census(kept, families, own)


def descend(children: dict[int, tuple[int, ...]], roots: Iterable[int]) -> frozenset[int]:
    """The roots and all their descendants."""
    found = set(roots)
    waiting = list(found)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return frozenset(found)


def read_namespace(host: Host, pid: int) -> int:
    """The inode of a process's network namespace; 0 where it is gone or refused."""
    link = read_link(host, f"{pid}/ns/net")
    inode = link.removeprefix("net:[").removesuffix("]")
    return parse_number(inode, 0)


def read_tables(host: Host, pids: Iterable[int]) -> dict[int, TcpTable]:
    """The TCP table of each network namespace that the processes live in, by its inode."""
    tables: dict[int, TcpTable] = {}
    for pid in pids:
        namespace = read_namespace(host, pid)
        if namespace and namespace not in tables and len(tables) < NAMESPACE_LIMIT:
            table = read_tcp_table(host, pid)
            if table is not None:
                tables[namespace] = table
    return tables


def find_holders(host: Host, pids: Iterable[int], wanted: Iterable[Listener]) -> Holders:
    """Which processes hold the wanted listening sockets, from their descriptors."""
    by_inode = {listener.inode: listener for listener in wanted}
    found: dict[int, frozenset[Listener]] = {}
    denied, skipped_count = set(), 0
    deadline = time.monotonic() + SCAN_BUDGET_S
    for pid in pids if by_inode else ():
        if time.monotonic() > deadline:
            skipped_count += 1
            continue
        inodes = read_socket_inodes(host, pid)
        if inodes is None:
            denied.add(pid)
        elif held := by_inode.keys() & inodes:
            found[pid] = frozenset(by_inode[inode] for inode in held)
    return Holders(found, frozenset(denied), skipped_count)


def read_socket_inodes(host: Host, pid: int) -> set[int] | None:
    """The inodes of a process's sockets. Missing: None where the descriptors are refused to us."""
    from perfkit import (
        _native,
    )  # not at the top: without it `record` must still say what is missing

    try:
        links = _native.list_fds(str(host.proc), pid, DESCRIPTOR_LIMIT)
    except PermissionError:
        return None
    except OSError:
        return set()
    sockets = (link[8:-1] for _, link in links if link.startswith("socket:["))
    return {int(inode) for inode in sockets if inode.isdecimal()}


def count_closed(host: Host, pids: Iterable[int]) -> int:
    """How many processes' descriptors are refused to us, of as many as there is time for."""
    deadline = time.monotonic() + SCAN_BUDGET_S
    count = 0
    for pid in islice(pids, CLOSED_LIMIT):
        if time.monotonic() > deadline:
            break
        count += read_socket_inodes(host, pid) is None
    return count


def read_name(host: Host, stat: ProcStat) -> str:
    """What a service is called: its program, or the script or module that its interpreter runs.

    Arguments are left out, they may hold secrets. The kernel takes the target's mmap lock for
    reading a command line, so it is read aside and given up when it does not come at once.
    """
    lines: list[str] = []
    reader = threading.Thread(target=_read_command, args=(host, stat.pid, lines), daemon=True)
    reader.start()
    reader.join(COMMAND_LIMIT_S)
    return to_service_name(lines[0].split("\0")) or stat.name if lines else stat.name


def to_service_name(words: list[str]) -> str:
    """The program, script or module that a command line runs; "" where it does not say."""
    program = Path(words[0]).name
    if not program.startswith(_INTERPRETERS):
        return program
    for before, word in pairwise(words):
        if word == "-c":
            return program
        if before == "-m":
            return word
        if word and not word.startswith("-") and before not in ("-X", "-W", "-cp", "-r"):
            return Path(word).name
    return program


def _read_command(host: Host, pid: int, lines: list[str]) -> None:
    try:
        lines.append(host.read_proc(f"{pid}/cmdline", 4096))
    except Unavailable:
        return
