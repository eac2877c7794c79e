"""The sockets collector on real sockets: which it finds, and what it says of them."""

from __future__ import annotations

import socket
import subprocess
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import callers
import pytest
from msgspec import structs

from perfkit import _native
from perfkit.collectors import sockets as collector
from perfkit.collectors._proc import list_descriptors
from perfkit.collectors._socket_text import LOST, TextSession
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Item, ProcessRef, Row, Rows, Session, Target

pytestmark = pytest.mark.system

ECHO = """
import selectors, socket, sys
family = socket.AF_INET6 if sys.argv[1] == "dual" else socket.AF_INET
name = {"dual": "::", "any": "0.0.0.0"}.get(sys.argv[1], "127.0.0.1")
server = socket.create_server((name, 0), family=family, dualstack_ipv6=sys.argv[1] == "dual")
print(server.getsockname()[1], flush=True)
ready = selectors.DefaultSelector()
ready.register(server, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is server:
            ready.register(server.accept()[0], selectors.EVENT_READ)
        elif part := key.fileobj.recv(65536):
            key.fileobj.sendall(part)
        else:
            ready.unregister(key.fileobj)
            key.fileobj.close()
"""
DEAF = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0), backlog=7)
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
held = server.accept()[0]
sys.stdin.readline()
"""
CALLER = """
import socket, sys
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
server.sendall(b"question")
print("asked", flush=True)
sys.stdin.readline()
"""
ELSEWHERE = (
    """
import ctypes, subprocess
assert ctypes.CDLL(None).unshare(0x40000000) == 0
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
import threading, time
def call():
    with socket.create_connection(server.getsockname()) as client:
        for _ in range(100):
            client.sendall(b"x"); client.recv(9); time.sleep(0.02)
threading.Timer(0.1, call).start()
"""
    + ECHO
)
UNPRIVILEGED = """
import os, sys
from perfkit import _native
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    _native.SocketSampler(f"/proc/{sys.argv[1]}/ns/net")
except OSError as error:
    print(error.filename, flush=True)
else:
    print("entered", flush=True)
"""
Spawn = Callable[..., "subprocess.Popen[str]"]


def to_target(pid: int) -> Target:
    """A service of one process."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        start_ticks = int(file.read().rpartition(")")[2].split()[19])
    process = ProcessRef(pid, 1, start_ticks, "python", "python", "/", "main")
    return Target("process", pid, "python", "a test", (process,))


def port_of(child: subprocess.Popen[str]) -> int:
    """The port that a spawned server told."""
    return int(child.first_line)  # type: ignore[attr-defined]


def go_on(child: subprocess.Popen[str]) -> None:
    """Lets a spawned program take its next step."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def held_by(pid: int) -> list[int]:
    """The inodes of the sockets that a process holds."""
    return collector.to_socket_inodes(list_descriptors(Host(), pid))


class Seen:
    """All that a session has told, by table."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[int | float | str, ...]]] = {
            table.name: [] for table in collector.COLLECTOR.tables
        }

    def take(self, items: Iterator[Item]) -> None:
        for item in items:
            if isinstance(item, Row):
                self.rows[item.table].append(item.values)
            elif isinstance(item, Rows) and item.row_count:
                columns = (array("q", column) for column in item.columns)
                self.rows[item.table] += zip(*columns, strict=True)

    def column(self, table: str, name: str) -> list[int | float | str]:
        """One column of a table."""
        schema = next(t for t in collector.COLLECTOR.tables if t.name == table)
        place = [column.name for column in schema.columns].index(name)
        return [row[place] for row in self.rows[table]]


def record(pid: int, act: Callable[[], None] = lambda: time.sleep(0.5)) -> Seen:
    """Runs the collector on a process while something happens."""
    session = collector.COLLECTOR.open(Host(), to_target(pid))
    seen = Seen()
    try:
        act()
        seen.take(iter(session.poll()))
    finally:
        seen.take(iter(session.close()))
    return seen


@pytest.mark.parametrize("kind", ["loopback", "any", "dual"])
def test_accepted_sockets_are_found_by_their_listener(spawn: Spawn, kind: str) -> None:
    """A connection that comes in mid-window is told as accepted, with inode, owner and peer."""
    server = spawn(ECHO, kind)

    def act() -> None:
        time.sleep(0.2)
        client.connect(("127.0.0.1", port_of(server)))
        client.sendall(b"x")
        time.sleep(1.5)  # listings may have to wait for each other

    with socket.socket() as client:  # held till the end: owners are looked up after the window
        seen = record(server.pid, act)
        peer = "{}:{}".format(*client.getsockname())
    roles = dict(zip(seen.column("sockets", "peer"), seen.rows["sockets"], strict=True))

    row = roles[peer]
    assert row[5] == "accepted" and row[6] == server.pid and int(row[2]) > 0
    assert row[3] == f"127.0.0.1:{port_of(server)}"


def test_only_the_services_sockets_are_told(spawn: Spawn) -> None:
    """Neither the client's end, nor perfkit's own sockets, nor other listeners make a row."""
    server = spawn(ECHO, "loopback")
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        socket.create_connection(own.getsockname()),
        socket.create_connection(("127.0.0.1", port_of(server))),
    ):
        seen = record(server.pid)

    locals_ = set(seen.column("sockets", "local"))
    assert locals_ == {f"127.0.0.1:{port_of(server)}"}


def test_outgoing_sockets_have_their_owner_and_unanswered_age(spawn: Spawn) -> None:
    """A socket that asked and got no answer sent later than it received."""
    peer = spawn(DEAF)
    caller = spawn(CALLER, str(port_of(peer)))

    seen = record(caller.pid)

    (row,) = seen.rows["sockets"]
    assert row[4:7] == (f"127.0.0.1:{port_of(peer)}", "outgoing", caller.pid)
    assert seen.column("socket_runs", "bytes_sent") == [8]
    assert seen.column("socket_runs", "data_segments_out") == [1]


def test_listener_rows_tell_the_accept_queue(spawn: Spawn) -> None:
    """Connections that nobody accepts are counted, beside the limit of the queue."""
    server = spawn(DEAF)
    clients = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(3)]

    seen = record(server.pid)

    listeners = [row for row in seen.rows["socket_runs"] if row[4] == 10]
    assert [row[5:7] for row in listeners] == [(3, 7)]
    for client in clients:
        client.close()


def test_unread_bytes_are_told_and_a_late_accept_gives_the_inode(spawn: Spawn) -> None:
    """A request in a connection that was accepted late keeps its index and gets its inode."""
    server = spawn(DEAF)
    with socket.create_connection(("127.0.0.1", port_of(server))) as client:
        client.sendall(b"seven b")

        def act() -> None:
            time.sleep(0.4)
            go_on(server)
            time.sleep(0.4)

        seen = record(server.pid, act)

    accepted = [row for row in seen.rows["sockets"] if row[5] == "accepted"]
    runs = [row for row in seen.rows["socket_runs"] if row[0] == accepted[0][0]]
    assert len(accepted) == 1 and int(accepted[0][2]) > 0
    assert {row[5] for row in runs} == {7}


def test_rows_are_one_after_another_and_count_every_poll(spawn: Spawn) -> None:
    """For each socket the rows do not overlap, lie on poll instants and add up to the polls."""
    server = spawn(ECHO, "loopback")

    def act() -> None:
        with socket.create_connection(("127.0.0.1", port_of(server))) as client:
            for _ in range(40):
                client.sendall(b"x")
                client.recv(1)
                time.sleep(0.02)
            seen_polls.append(time.monotonic_ns())

    seen_polls: list[int] = []
    seen = record(server.pid, act)
    polls = [int(t) for t in seen.column("socket_polls", "t_ns")]
    index = next(row[0] for row in seen.rows["sockets"] if row[5] == "accepted")
    runs = sorted(row[1:4] for row in seen.rows["socket_runs"] if row[0] == index)
    inside = [t for t in polls if int(runs[0][0]) <= t <= int(runs[-1][1])]

    assert all(int(a[1]) < int(b[0]) for a, b in pairwise(runs))
    assert {t for row in runs for t in row[:2]} <= set(polls)
    assert sum(int(row[2]) for row in runs) == len(inside)


def test_an_idle_socket_makes_one_row(spawn: Spawn) -> None:
    """Nothing new means a longer row, not more rows."""
    server = spawn(ECHO, "loopback")
    with socket.create_connection(("127.0.0.1", port_of(server))):
        seen = record(server.pid, lambda: time.sleep(1.0))

    assert len(seen.rows["socket_runs"]) == 2  # the listener and the connection
    assert min(int(ticks) for ticks in seen.column("socket_runs", "tick_count")) >= 10


def test_every_short_connection_is_counted(spawn: Spawn) -> None:
    """Of 300 connections that live for one request each, 300 closed ones are told whole."""
    server = spawn(ECHO, "loopback")

    def act() -> None:
        time.sleep(0.3)
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", port_of(server))) as client:
                client.sendall(b"12345")
                client.recv(5)
        time.sleep(0.3)

    seen = record(server.pid, act)

    assert len(seen.rows["socket_closed"]) == 300
    assert set(seen.column("socket_closed", "role")) == {"accepted"}
    assert set(seen.column("socket_closed", "bytes_received")) == {6}  # 5 and the FIN
    assert set(seen.column("socket_closed", "bytes_sent")) == {5}
    assert len(set(seen.column("socket_closed", "peer"))) == 300


def test_the_end_of_a_short_connection_is_told_within_moments(spawn: Spawn) -> None:
    """The ages of its data hold for the moment of its end, which is known as soon as it is read."""
    server = spawn(ECHO, "loopback")
    closed: list[int] = []

    def act() -> None:
        time.sleep(0.3)
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", port_of(server))) as client:
                client.sendall(b"12345")
                client.recv(5)
            closed.append(time.monotonic_ns())
            time.sleep(0.06)

    told = sorted(int(t) for t in record(server.pid, act).column("socket_closed", "t_ns"))
    late_ms = sorted((one - true) / 1e6 for one, true in zip(told, closed, strict=True))

    assert late_ms[len(late_ms) * 9 // 10] < 50, late_ms


def test_connections_opened_for_one_call_are_told_once_their_peer_is_known(spawn: Spawn) -> None:
    """All that led where the service was met calling are told, those of before it was met too."""
    asked, others = spawn(callers.UPSTREAM), spawn(callers.UPSTREAM)
    caller = spawn(callers.CALLER, asked.first_line, "1")  # type: ignore[attr-defined]
    spawn(callers.CALLER, others.first_line, "1")  # type: ignore[attr-defined]
    session = collector.COLLECTOR.open(Host(), to_target(caller.pid))
    seen = Seen()

    for _ in range(6):
        time.sleep(0.5)
        seen.take(iter(session.poll()))
    seen.take(iter(session.close()))

    assert set(seen.column("socket_closed", "role")) == {"outgoing"}
    assert set(seen.column("socket_closed", "peer")) == {f"127.0.0.1:{port_of(asked)}"}
    assert 35 <= len(seen.rows["socket_closed"]) <= 52  # of 60 ms each, in 3 s


def test_sockets_of_another_network_namespace_are_read(needs_root: None, spawn: Spawn) -> None:
    """A service in its own network namespace is seen there, while perfkit stays in its own."""
    before = Path("/proc/self/ns/net").readlink()
    server = spawn(ELSEWHERE, "loopback")
    time.sleep(0.3)

    seen = record(server.pid, lambda: time.sleep(1.0))

    roles = sorted(str(role) for role in seen.column("sockets", "role"))
    assert roles == ["accepted", "listener", "outgoing"]
    assert Path("/proc/self/ns/net").readlink() == before


def test_a_refused_namespace_says_which_step(needs_root: None, spawn: Spawn) -> None:
    """Without the right to another process's namespace the sampler does not start."""
    server = spawn(ECHO, "loopback")

    child = spawn(UNPRIVILEGED, str(server.pid))

    assert child.first_line == "open_namespace"  # type: ignore[attr-defined]


def test_a_process_that_is_gone_is_unavailable() -> None:
    """A namespace that does not exist makes the source unavailable, in words."""
    target = Target("process", 2**22 + 1, "x", "a test")

    with pytest.raises(Unavailable, match="network namespace: no such file"):
        collector.COLLECTOR.open(Host(), target)


def test_text_tells_queues_and_roles_without_times(spawn: Spawn) -> None:
    """Where the namespace may not be entered, text gives owners, roles and queues, the rest -1."""
    server = spawn(DEAF)
    host, target, seen = Host(), to_target(server.pid), Seen()
    with socket.create_connection(("127.0.0.1", port_of(server))) as client:
        client.sendall(b"seven b")
        session: Session = TextSession(host, target, collector._Owners(host, target).read)

        seen.take(iter(session.poll()))
        seen.take(iter(session.close()))

    assert sorted(map(str, seen.column("sockets", "role"))) == ["accepted", "listener"]
    assert sorted(map(int, seen.column("socket_runs", "receive_queue_bytes"))) == [1, 7]
    assert set(seen.column("socket_runs", "last_sent_ms")) == {-1}
    assert session.rate().note == LOST  # type: ignore[attr-defined]


def test_text_leaves_out_what_others_hold_at_a_shared_port(spawn: Spawn) -> None:
    """Where other processes listen too, a connection not yet held is not told as accepted."""
    server = spawn(DEAF)
    port = port_of(server)
    host, seen = Host(), Seen()
    target = structs.replace(to_target(server.pid), shared_ports=(port,))
    with socket.create_connection(("127.0.0.1", port)):
        session: Session = TextSession(host, target, collector._Owners(host, target).read)

        seen.take(iter(session.poll()))

    assert seen.column("sockets", "role") == ["listener"]


def test_more_sockets_than_the_limit_are_sampled_in_turn(spawn: Spawn) -> None:
    """Beyond the limit each poll reads a part, said in its row, and every socket gets its turn."""
    server = spawn(ECHO, "loopback")
    clients = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(60)]
    sampler = _native.SocketSampler(None, get_limit=20, budget_ratio=1.0)
    inodes = held_by(server.pid)
    sampler.set_inodes(array("q", inodes).tobytes())

    time.sleep(0.8)
    sampler.stop()
    runs, _, polls, _ = sampler.take()

    known, read = (array("q", polls[0][place])[-2] for place in (1, 2))  # the last lists all
    assert (known, read) == (61, 21)
    assert set(array("q", runs[0][0])) == set(range(61))
    for client in clients:
        client.close()


def test_where_sockets_are_sampled_each_listing_counts_all_of_them(spawn: Spawn) -> None:
    """A sample meets a socket too seldom: a listing at the start and one at the end count all."""
    server = spawn(ECHO, "loopback")
    clients = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(60)]
    hour_ns = 3_600_000_000_000
    sampler = _native.SocketSampler(
        None, get_limit=1, dump_interval_ns=hour_ns, accept_interval_ns=hour_ns
    )
    sampler.set_inodes(array("q", held_by(server.pid)).tobytes())

    time.sleep(0.5)
    for client in clients:
        client.sendall(b"x")
        client.recv(1)
    sampler.stop()
    runs, _, polls, _ = sampler.take()

    names = [one.name for one in collector.SOCKET_RUNS.columns]
    asked = array("q", runs[0][names.index("data_segments_in")])
    counts: dict[int, set[int]] = {}
    for index, count in zip(array("q", runs[0][0]), asked, strict=True):
        counts.setdefault(index, set()).add(count)
    assert sum(seen == {0, 1} for seen in counts.values()) == 60
    read = array("q", polls[0][2])
    assert read.count(2) >= 4 and sum(count >= 60 for count in read) == 2
    for client in clients:
        client.close()


def test_a_small_budget_lowers_the_rate_and_says_so(spawn: Spawn) -> None:
    """When the budget pays for less, polls are rarer, and the rate's note tells."""
    server = spawn(ECHO, "loopback")
    sampler = _native.SocketSampler(None, budget_ratio=1e-5)
    sampler.set_inodes(array("q", held_by(server.pid)).tobytes())

    time.sleep(1.0)
    stats = sampler.stats()
    sampler.stop()

    assert stats["interval_ns"] == 250_000_000
    assert "slowed to 4.0 Hz" in next(collector._remarks(stats, stuck=False))


def test_rate_follows_a_changed_budget(spawn: Spawn) -> None:
    """A budget that is raised in mid-window is used: polls come several times as often."""
    server = spawn(ECHO, "loopback")
    sampler = _native.SocketSampler(None, budget_ratio=1e-5)
    sampler.set_inodes(array("q", held_by(server.pid)).tobytes())
    time.sleep(1.5)
    before = sampler.stats()["poll_count"]

    sampler.set_budget(0.5)
    time.sleep(1.5)
    after = sampler.stats()["poll_count"] - before

    sampler.stop()
    assert after > 2 * before
    with pytest.raises(ValueError, match="budget_ratio"):
        sampler.set_budget(0.0)


def test_a_small_budget_reads_fewer_sockets_in_each_poll(spawn: Spawn) -> None:
    """Where one poll a block is too much each reads a part of the sockets, in turn, at least 32."""
    server = spawn(ECHO, "loopback")
    clients = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(60)]
    sampler = _native.SocketSampler(None, budget_ratio=1e-5)
    inodes = held_by(server.pid)
    sampler.set_inodes(array("q", inodes).tobytes())

    time.sleep(1.5)
    sampler.stop()
    polls = sampler.take()[2]

    known, read = (array("q", polls[0][place]).tolist() for place in (1, 2))
    parts = [count for count in read if count < 60]  # listings tell of all that polls leave out
    assert known[-2:] == [61, 61]
    assert sorted(parts[-2:]) == [29, 33]
    for client in clients:
        client.close()


def test_listings_take_a_small_part_of_a_core_however_often_they_are_due() -> None:
    """Listings due at every poll take 12 ms of CPU at once, then 0.2 % of a core."""
    sampler = _native.SocketSampler(None, dump_interval_ns=1, accept_interval_ns=1)

    time.sleep(3.0)
    stats = sampler.stats()
    sampler.stop()

    span_ns = stats["last_poll_ns"] - stats["start_ns"]
    each_ns = stats["dump_cpu_ns"] / stats["dump_count"]
    assert stats["full_dump_count"] == stats["dump_count"] >= 2
    assert stats["dump_cpu_ns"] < 12_000_000 + 0.002 * span_ns + 2 * each_ns


def test_listings_rarer_than_asked_for_are_remarked() -> None:
    """Where a listing is dear the rate's note says how often all sockets were listed, and why."""
    stats = dict.fromkeys(_stats_names(), 0)
    stats |= {"last_poll_ns": 10 * 10**9, "interval_ns": collector.POLL_INTERVAL_NS}
    stats |= {"full_dump_count": 2, "dump_count": 2, "dump_cpu_ns": 23_000_000}

    remarks = list(collector._remarks(stats, stuck=False))

    assert remarks == ["all sockets listed every 5.0 s instead of 1 s: it takes 11.5 ms"]


def test_rate_states_what_was_asked_and_reached(spawn: Spawn) -> None:
    """A second of a small service runs at the rate asked for."""
    server = spawn(ECHO, "loopback")
    session = collector.COLLECTOR.open(Host(), to_target(server.pid))

    time.sleep(1.0)
    list(session.close())
    rate = session.rate()  # type: ignore[attr-defined]

    assert rate.requested_hertz == 20.0
    assert 17.0 < rate.achieved_hertz < 21.0
    assert rate.note == ""


def test_messages_that_the_kernel_dropped_are_remarked() -> None:
    """What is lost or refused is said in words with its number."""
    stats = dict.fromkeys(_stats_names(), 0)
    stats |= {"closed_error": 1, "lost_count": 3, "interval_ns": collector.POLL_INTERVAL_NS}

    remarks = list(collector._remarks(stats, stuck=True))

    assert remarks == [
        "requests on short connections are not counted (operation not permitted; "
        "grant CAP_NET_ADMIN)",
        "the kernel dropped messages 3 times",
        "the sampler's thread did not end and was left behind",
    ]


def _stats_names() -> list[str]:
    sampler = _native.SocketSampler(None)
    sampler.stop()
    return list(sampler.stats())


def test_stop_is_quick_and_may_be_repeated() -> None:
    """Ending takes less than 0.3 s, a second stop changes nothing, and take still works."""
    sampler = _native.SocketSampler(None)
    begin = time.monotonic()

    first, second = sampler.stop(), sampler.stop()

    assert (first, second) == (True, True)
    assert time.monotonic() - begin < 0.3
    assert len(sampler.take()) == 4


def count_own() -> tuple[int, int]:
    """How many descriptors and threads this process has."""
    fds, tasks = Path("/proc/self/fd").iterdir(), Path("/proc/self/task").iterdir()
    return len(list(fds)), len(list(tasks))


def test_samplers_leave_no_descriptor_and_no_thread_behind() -> None:
    """Made and dropped many times, the sampler gives everything back."""
    before = count_own()

    for _ in range(20):
        _native.SocketSampler("/proc/self/ns/net")

    assert count_own() == before


@pytest.mark.parametrize(
    "limits", [{"poll_interval_ns": 0}, {"get_limit": 0}, {"budget_ratio": 0.0}, {"row_limit": 0}]
)
def test_limits_out_of_range_are_refused(limits: dict[str, float]) -> None:
    """A limit that could not hold is a ValueError, not a sampler that misbehaves."""
    with pytest.raises(ValueError, match="out of range"):
        _native.SocketSampler(None, **limits)  # type: ignore[arg-type]


def test_inodes_must_be_whole_integers() -> None:
    """Bytes that are no packed 64-bit integers are refused."""
    sampler = _native.SocketSampler(None)

    with pytest.raises(ValueError, match="64-bit"):
        sampler.set_inodes(b"123")
