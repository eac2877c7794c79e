"""Which processes of this host talk to the service over TCP: its clients, and the peers it asks.

What they burn comes with the service's own load, so it must be told from what a stranger burns. A
socket of the service and its other end name each other's addresses in one TCP table.
"""

from __future__ import annotations

import re

from msgspec import Struct

from perfkit.collectors._proc import DESCRIPTOR_LIMIT, list_descriptors
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Target

TABLE_LIMIT_BYTES = 4 << 20
SOCKSTAT_LIMIT_BYTES = 4096
PROCESS_LIMIT = 64
FIRST_COUNT = 128
LISTEN = "0A"
_MAPPED = "0000000000000000FFFF0000"  # ::ffff:0:0/96, IPv4 within IPv6, as the kernel prints it

# Of a line: local and remote address, state, and behind six more columns the inode, 1 to 19 digits.
# One that nobody holds (it waits to be forgotten) has the inode 0.
_SOCKET = re.compile(
    r"^ *\d+: ([0-9A-F:]+) ([0-9A-F:]+) ([0-9A-F]{2}) \S+ \S+ \S+ +\d+ +\d+ ([1-9]\d{0,18}) ",
    re.MULTILINE,
)


class TcpRow(Struct, frozen=True):
    """One socket of a TCP table; addresses as the kernel prints them, IPv4 always in short."""

    local: str
    remote: str
    state: str
    inode: int


class Ends(Struct, frozen=True):
    """The inodes of the other ends of the service's connections, by what they are to it."""

    clients: frozenset[int] = frozenset()
    peers: frozenset[int] = frozenset()


def parse_rows(text: str) -> list[TcpRow]:
    """Reads a tcp or tcp6 table; lines that are no sockets are left out."""
    found = _SOCKET.findall(text.replace(_MAPPED, ""))
    return [TcpRow(local, remote, state, int(inode)) for local, remote, state, inode in found]


def find_ends(rows: list[TcpRow], own: frozenset[int]) -> Ends:
    """The other ends of the sockets `own` (inodes) within one table."""
    heard = {row.local.rpartition(":")[2] for row in rows if row.state == LISTEN}
    mine = {(row.local, row.remote) for row in rows if row.inode in own}
    others = [row for row in rows if row.inode and (row.remote, row.local) in mine]
    is_client = [row.remote.rpartition(":")[2] in heard for row in others]
    pairs = list(zip(others, is_client, strict=True))
    return Ends(
        frozenset(row.inode for row, asks in pairs if asks),
        frozenset(row.inode for row, asks in pairs if not asks),
    )


def read_ends(host: Host, target: Target) -> Ends:
    """Reads the tables of the service's network namespace; empty where they are refused."""
    rows: list[TcpRow] = []
    # The kernel walks the whole hash of sockets for each of the files, some 5 ms.
    for name in ("tcp", "tcp6") if _has_tcp6(host, target) else ("tcp",):
        try:
            rows += parse_rows(host.read_proc(f"{target.main_pid}/net/{name}", TABLE_LIMIT_BYTES))
        except Unavailable:
            continue
    pids = [process.pid for process in target.processes[:PROCESS_LIMIT]]
    own = frozenset[int]().union(*(read_inodes(host, pid) for pid in pids))
    return find_ends(rows, own)


def _has_tcp6(host: Host, target: Target) -> bool:
    """Whether the service's namespace has TCP sockets of IPv6; where that is not told, it may."""
    try:
        text = host.read_proc(f"{target.main_pid}/net/sockstat6", SOCKSTAT_LIMIT_BYTES)
    except Unavailable:
        return True
    return "TCP6: inuse 0\n" not in text


def read_inodes(host: Host, pid: int, limit: int = DESCRIPTOR_LIMIT) -> frozenset[int]:
    """The inodes of sockets among a process's first descriptors; empty where gone or refused."""
    try:
        links = list_descriptors(host, pid, limit)
    except OSError:
        return frozenset()
    inodes = (link[8:-1] for _, link in links if link.startswith("socket:["))
    return frozenset(int(inode) for inode in inodes if inode.isdecimal())


def relation_of(host: Host, pid: int, ends: Ends) -> str:
    """What a process is to the service: `client`, `peer`, or "" for a stranger."""
    if not ends.clients and not ends.peers:
        return ""
    # A client of thousands of connections shows it by the first of them; to list all is dear.
    if read_inodes(host, pid, FIRST_COUNT) & ends.clients:
        return "client"
    held = read_inodes(host, pid)
    if held & ends.clients:
        return "client"
    return "peer" if held & ends.peers else ""
