"""The connect probe: which peers it chooses, and what it finds out about them."""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
from simulate import make_table

from perfkit.agent import probe
from perfkit.agent.probe import PeerRun, choose_peers, connect_all, parse_address
from perfkit.model import Row, Table

LISTENER_ELSEWHERE = """
import ctypes, socket, subprocess, sys, threading
assert ctypes.CDLL(None).unshare(0x40000000) == 0, "unshare refused"
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def deaf_listener() -> Iterator[str]:
    """The address of a listener whose accept queue is full, so that the kernel answers nobody."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        time.sleep(0.05)
        yield to_text(server)
        for client in waiting:
            client.close()


def to_text(server: socket.socket) -> str:
    """The address of a listener as a capture has it."""
    name, port = server.getsockname()
    return f"{name}:{port}"


def test_choose_peers_takes_those_waited_for_most() -> None:
    """Peers are ordered by the polls in which a socket had sent last, ages compared strictly."""
    runs = [
        PeerRun("a:1", 5, 4, 8, 3),
        PeerRun("b:1", 9, 4, 8, 3),
        PeerRun("a:1", 6, 0, 4, 3),
        PeerRun("answered:1", 50, 8, 4, 3),
        PeerRun("tied:1", 50, 4, 4, 3),
        PeerRun("silent:1", 50, 4, 8, 0),
        PeerRun("unread:1", 50, -1, 8, 3),
    ]

    chosen = choose_peers(runs)

    assert chosen == ("a:1", "b:1")


def test_choose_peers_never_takes_more_than_four() -> None:
    """However many peers were waited for, four are probed."""
    runs = [PeerRun(f"10.0.0.{n}:80", n, 0, 4, 1) for n in range(1, 9)]

    chosen = choose_peers(runs)

    assert chosen == ("10.0.0.8:80", "10.0.0.7:80", "10.0.0.6:80", "10.0.0.5:80")


def test_read_runs_takes_outgoing_sockets_only() -> None:
    """The rows of accepted sockets never make a peer."""
    from perfkit.collectors.sockets import SOCKET_RUNS, SOCKETS

    strings = ("accepted", "outgoing", "tcp4", "10.0.0.1:80", "10.0.0.2:80")
    cells = {"family": [2, 2], "local": [3, 3], "peer": [3, 4], "role": [0, 1]}
    sockets = [
        array("I", cells[c.name]) if c.name in cells else array("q", [0, 1])
        for c in SOCKETS.columns
    ]
    runs = [array("q", [0, 1]) for _ in SOCKET_RUNS.columns]
    tables = {
        "sockets": Table("sockets", SOCKETS.columns, tuple(a.tobytes() for a in sockets), 2),
        "socket_runs": Table(
            "socket_runs", SOCKET_RUNS.columns, tuple(a.tobytes() for a in runs), 2
        ),
    }

    found = probe.read_runs(tables, strings)

    assert found == [PeerRun("10.0.0.2:80", 1, 1, 1, 1)]


def test_peers_of_brief_connections_are_probed_too() -> None:
    """What never was polled counts by how many polls its waits would have met."""
    strings = ["accepted", "outgoing", "a:1", "b:1"]
    columns = {
        "role": (1, 1, 1, 0),
        "peer": (2, 3, 2, 3),
        "socket_index": (-1, -1, 7, -1),  # the third was polled
        "last_sent_ms": (120, 524, 9000, 9000),
        "last_received_ms": (0, 4, 0, 0),
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for row in rows:
        row |= {name: strings[row[name]] for name in ("role", "peer")}  # type: ignore[dict-item]
    tables = {"socket_closed": make_table("socket_closed", rows, strings)}  # type: ignore[arg-type]

    calls = probe.read_calls(tables, strings)

    assert calls == {"a:1": 3, "b:1": 11}
    assert choose_peers([PeerRun("c:1", 5, 0, 4, 1)], calls) == ("b:1", "c:1", "a:1")


def test_connect_to_a_listener_is_timed(listener: socket.socket) -> None:
    """Three connects reach a listening peer, each within milliseconds."""
    rows = connect_all(None, [to_text(listener)])

    assert [row.values[3] for row in rows] == [0, 0, 0]
    assert all(0 < int(row.values[2]) < 200_000_000 for row in rows)


def test_connect_to_a_closed_port_says_refused(listener: socket.socket) -> None:
    """A peer that nobody listens at gives its errno and no time."""
    address = to_text(listener)
    listener.close()

    rows = connect_all(None, [address])

    assert [row.values[2:] for row in rows] == [(-1, errno.ECONNREFUSED)] * 3


def test_silent_peers_cost_no_more_than_a_second(deaf_listener: str) -> None:
    """Peers whose kernel does not answer are given up together, within a second."""
    begin = time.monotonic()

    rows = connect_all(None, [deaf_listener] * 4)

    assert time.monotonic() - begin < 1.0
    assert {row.values[2:] for row in rows} == {(-1, errno.ETIMEDOUT)}


def test_connect_runs_in_the_targets_network(
    needs_root: None, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    """A peer that only the target's network namespace can reach is reached."""
    child = spawn(LISTENER_ELSEWHERE)
    address = f"127.0.0.1:{child.first_line}"  # type: ignore[attr-defined]

    rows = connect_all(f"/proc/{child.pid}/ns/net", [address])

    assert [row.values[3] for row in rows] == [0, 0, 0]


def test_a_namespace_that_is_gone_gives_no_rows() -> None:
    """Without the target's network nothing is probed, rather than something else."""
    rows = connect_all("/proc/0/ns/net", ["127.0.0.1:1"])

    assert rows == ()


def test_to_table_packs_rows_and_extends_the_strings() -> None:
    """Probe rows become a table whose text indexes the capture's strings."""
    rows = (Row("probes", ("a:1", 5, 7, 0)), Row("probes", ("b:1", 6, -1, 111)))

    table, strings = probe.to_table(rows, ("x", "b:1"))

    assert strings == ("x", "b:1", "a:1")
    assert array("I", table.packed[0]).tolist() == [2, 1]
    assert array("q", table.packed[2]).tolist() == [7, -1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", (socket.AF_INET, "10.0.0.1", 80)),
        ("[::1]:443", (socket.AF_INET6, "::1", 443)),
        ("[::1]:0", None),
        ("host:80", None),
        ("", None),
        ("10.0.0.1:99999", None),
        ("10.0.0.1:٣", None),
    ],
)
def test_parse_address_takes_only_addresses(text: str, expected: object) -> None:
    """Only numeric addresses with a real port are ever connected to."""
    assert parse_address(text) == expected
