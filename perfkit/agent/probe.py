"""Tells a slow path from a slow peer: a few connects to the peers that the service waited for most.

A peer's kernel answers a connect, its program is not asked; so a fast connect beside slow answers
means that the peer itself is slow. Made once, after the window, from the target's own network.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
import time
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct

from perfkit.host import Host
from perfkit.model import Column, ColumnType, Row, Table, TableSchema, Target

PEER_LIMIT = 4
CONNECTS_PER_PEER = 3
CONNECT_TIMEOUT_S = 0.3
ALL_TIMEOUT_S = 0.95
_CLONE_NEWNET = 0x40000000

PROBES = TableSchema(
    "probes",
    (
        Column("peer", type=ColumnType.TEXT, help="ip:port"),
        Column("t_ns", "ns", help="when the connect began"),
        Column("connect_ns", "ns", help="until the peer's kernel answered; -1 it did not"),
        Column("error", help="errno, 0 connected"),
    ),
    source="connect() from the target's network namespace, after the window",
    help="At most 3 connects to each of the at most 4 peers that were waited for most.",
)


class PeerRun(Struct, frozen=True):
    """What of a `socket_runs` row of an outgoing socket matters for choosing."""

    peer: str
    tick_count: int
    last_sent_ms: int
    last_received_ms: int
    data_segments_out: int


def run(
    host: Host, target: Target, tables: Mapping[str, Table], strings: Sequence[str]
) -> tuple[Row, ...]:
    """Probes the peers that a recording shows as waited for; takes at most a second.

    Missing: no rows where nothing was waited for, or the target's network cannot be entered.
    """
    peers = choose_peers(read_runs(tables, strings))
    path = host.proc / str(target.main_pid) / "ns" / "net"
    return connect_all(os.fspath(path), peers)


def choose_peers(runs: Sequence[PeerRun], limit: int = PEER_LIMIT) -> tuple[str, ...]:
    """The peers with the most polls in which a socket had sent last, so waited for them.

    Shape: most waited for first; equal ones by name.
    """
    polls: Counter[str] = Counter()
    for seen in runs:
        has_asked = seen.data_segments_out > 0 and seen.last_sent_ms >= 0
        if has_asked and seen.last_sent_ms < seen.last_received_ms:
            polls[seen.peer] += seen.tick_count
    ordered = sorted(polls.items(), key=lambda item: (-item[1], item[0]))
    return tuple(peer for peer, _ in ordered[:limit])


def read_runs(tables: Mapping[str, Table], strings: Sequence[str]) -> list[PeerRun]:
    """Takes the outgoing sockets' rows out of the tables `sockets` and `socket_runs`."""
    sockets, runs = tables.get("sockets"), tables.get("socket_runs")
    if sockets is None or runs is None:
        return []
    names = ("socket_index", "role", "peer")
    peer_of = {
        index: strings[peer]
        for index, role, peer in zip(*(_values(sockets, name) for name in names), strict=True)
        if strings[role] == "outgoing"
    }
    wanted = ("socket_index", *PeerRun.__struct_fields__[1:])
    rows = zip(*(_values(runs, name) for name in wanted), strict=True)
    return [PeerRun(peer_of[index], *rest) for index, *rest in rows if index in peer_of]


def connect_all(namespace_path: str | None, peers: Sequence[str]) -> tuple[Row, ...]:
    """Connects to all peers side by side, each a few times, and gives up after a second."""
    rows: list[Row] = []
    threads = [
        threading.Thread(
            target=_probe_peer,
            args=(namespace_path, peer, rows),
            name=f"perfkit probe {peer}",
            daemon=True,
        )
        for peer in peers[:PEER_LIMIT]
    ]
    deadline = time.monotonic() + ALL_TIMEOUT_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return tuple(sorted(rows, key=lambda row: row.values[1]))


def to_table(rows: Sequence[Row], strings: Sequence[str]) -> tuple[Table, tuple[str, ...]]:
    """Packs probe rows as the table `probes`; gives it with the strings, extended by its text."""
    index = {text: place for place, text in enumerate(strings)}
    packed = []
    for place, column in enumerate(PROBES.columns):
        values = [row.values[place] for row in rows]
        if column.type is ColumnType.TEXT:
            texts = [index.setdefault(str(text), len(index)) for text in values]
            packed.append(array("I", texts).tobytes())
        else:
            packed.append(array("q", (int(value) for value in values)).tobytes())
    return Table(PROBES.name, PROBES.columns, tuple(packed), len(rows)), tuple(index)


def parse_address(text: str) -> tuple[socket.AddressFamily, str, int] | None:
    """Reads "10.0.0.1:80" or "[::1]:80"; None for anything else."""
    name, _, port = text.rpartition(":")
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        return None
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, str(address), int(port)


def _probe_peer(namespace_path: str | None, peer: str, rows: list[Row]) -> None:
    """Runs on a thread of its own, because it moves into the target's network."""
    address = parse_address(peer)
    if address is None or not _enter_namespace(namespace_path):
        return
    for _ in range(CONNECTS_PER_PEER):
        rows.append(_connect(peer, *address))


def _connect(peer: str, family: socket.AddressFamily, name: str, port: int) -> Row:
    begin_ns = time.monotonic_ns()
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(CONNECT_TIMEOUT_S)
            begin_ns = time.monotonic_ns()
            probe.connect((name, port))
            return Row(PROBES.name, (peer, begin_ns, time.monotonic_ns() - begin_ns, 0))
    except TimeoutError:
        return Row(PROBES.name, (peer, begin_ns, -1, errno.ETIMEDOUT))
    except OSError as error:
        return Row(PROBES.name, (peer, begin_ns, -1, error.errno or errno.EIO))


def _enter_namespace(path: str | None) -> bool:
    """Moves the calling thread, and only it, into a network namespace, unless it is there."""
    if path is None:
        return True
    try:
        wanted = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.path.samestat(os.fstat(wanted), Path("/proc/thread-self/ns/net").stat()):
            return True
        # os.setns is there from Python 3.12 on.
        return bool(ctypes.CDLL(None).setns(wanted, _CLONE_NEWNET) == 0)
    except OSError:
        return False
    finally:
        os.close(wanted)


def _values(table: Table, name: str) -> array[int]:
    place = next(at for at, column in enumerate(table.columns) if column.name == name)
    is_text = table.columns[place].type is ColumnType.TEXT
    return array("I" if is_text else "q", table.packed[place])
