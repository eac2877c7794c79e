"""Tells a slow path from a slow peer: a few connects to the peers that the service waited for most.

A peer's kernel answers a connect, its program is not asked; so a fast connect beside slow answers
means that the peer itself is slow. Made once, after the window, from the target's own network.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
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
POLL_MS = 50
EMPTY: Mapping[str, int] = {}
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
    peers = choose_peers(read_runs(tables, strings), read_calls(tables, strings))
    path = host.proc / str(target.main_pid) / "ns" / "net"
    return connect_all(os.fspath(path), peers)


def choose_peers(
    runs: Sequence[PeerRun], calls: Mapping[str, int] = EMPTY, limit: int = PEER_LIMIT
) -> tuple[str, ...]:
    """The peers with the most polls in which a socket had sent last, so waited for them.

    `calls` are polls that would have met connections which lived too briefly for one.
    Shape: most waited for first; equal ones by name.
    """
    polls: Counter[str] = Counter(calls)
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
    indexes, roles, peers = (_values(sockets, name) for name in ("socket_index", "role", "peer"))
    peer_of = {
        index: strings[peer]
        for index, role, peer in zip(indexes, roles, peers, strict=True)
        if strings[role] == "outgoing"
    }
    names = ("tick_count", "last_sent_ms", "last_received_ms", "data_segments_out")
    ticks, sent, received, segments = (_values(runs, name) for name in names)
    facts = zip(ticks, sent, received, segments, strict=True)
    return [
        PeerRun(peer_of[index], *seen)
        for index, seen in zip(_values(runs, "socket_index"), facts, strict=True)
        if index in peer_of
    ]


def read_calls(tables: Mapping[str, Table], strings: Sequence[str]) -> dict[str, int]:
    """How many polls would have met the waits of connections that were never polled, by peer."""
    closed = tables.get("socket_closed")
    if closed is None:
        return {}
    names = ("role", "peer", "socket_index", "last_sent_ms", "last_received_ms")
    roles, peers, indexes, sent, received = (_values(closed, name) for name in names)
    waited_ms: Counter[str] = Counter()
    rows = zip(roles, peers, indexes, sent, received, strict=True)
    for role, peer, index, sent_ms, received_ms in rows:
        if strings[role] == "outgoing" and index < 0:
            waited_ms[strings[peer]] += max(sent_ms - received_ms, 0)
    return {peer: -(-total_ms // POLL_MS) for peer, total_ms in waited_ms.items()}


def connect_all(namespace_path: str | None, peers: Sequence[str]) -> tuple[Row, ...]:
    """Connects to all peers side by side, each a few times, and gives up after a second."""
    rows: list[Row] = []
    thread = threading.Thread(
        target=_probe_in_rounds,
        args=(namespace_path, tuple(peers[:PEER_LIMIT]), rows),
        name="perfkit probe",
        daemon=True,
    )
    thread.start()
    thread.join(ALL_TIMEOUT_S)
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


def _probe_in_rounds(namespace_path: str | None, peers: tuple[str, ...], rows: list[Row]) -> None:
    """Runs on a thread of its own, because it moves into the target's network.

    One thread for all peers: several would wait for the interpreter's lock while they take times.
    """
    if _enter_namespace(namespace_path):
        for _ in range(CONNECTS_PER_PEER):
            rows += _connect_round(peers)


def _connect_round(peers: tuple[str, ...]) -> list[Row]:
    """One connect to each peer, all begun before any is waited for."""
    rows = []
    open_probes: dict[int, tuple[str, int, socket.socket]] = {}
    ready = select.poll()
    for peer in peers:
        address = parse_address(peer)
        if address is None:
            continue
        begin_ns = time.monotonic_ns()
        try:
            probe = socket.socket(address[0], socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as refused:  # no descriptor left, or a namespace without IPv6
            rows.append(Row(PROBES.name, (peer, begin_ns, -1, refused.errno or errno.EIO)))
            continue
        probe.setblocking(False)
        begin_ns = time.monotonic_ns()
        error = probe.connect_ex(address[1:])
        if error == errno.EINPROGRESS:
            open_probes[probe.fileno()] = (peer, begin_ns, probe)
            ready.register(probe, select.POLLOUT)
        else:
            rows.append(_close(peer, begin_ns, probe, error))
    deadline_ns = time.monotonic_ns() + int(1e9 * CONNECT_TIMEOUT_S)
    while open_probes and (left_ns := deadline_ns - time.monotonic_ns()) > 0:
        for descriptor, _ in ready.poll(left_ns / 1e6):
            peer, begin_ns, probe = open_probes.pop(descriptor)
            ready.unregister(descriptor)
            error = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            rows.append(_close(peer, begin_ns, probe, error))
    return rows + [_close(*opened, errno.ETIMEDOUT) for opened in open_probes.values()]


def _close(peer: str, begin_ns: int, probe: socket.socket, error: int) -> Row:
    took_ns = time.monotonic_ns() - begin_ns
    probe.close()
    return Row(PROBES.name, (peer, begin_ns, took_ns if error == 0 else -1, error))


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
