"""The collector "threads" on real services, and the facts about whole processes."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import running
from sampling import to_rows

from perfkit import _native
from perfkit.agent.target import resolve
from perfkit.collectors._descriptors import parse_epoll, parse_link
from perfkit.collectors.threads import (
    COLLECTOR,
    parse_name,
    to_pace_remark,
    to_remarks,
)
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Item, Rate, Row, Rows, Session, Target

NOBODY = 65534
Sampled = tuple[dict[str, int], list[SimpleNamespace]]
SERVICE = """
import os, select, socket, threading, time
pair = socket.socketpair()
epoll = select.epoll()
epoll.register(pair[0].fileno())
named = threading.Thread(target=time.sleep, args=(30,), daemon=True)
named.start()
open(f"/proc/self/task/{named.native_id}/comm", "w").write("worker one")
print(epoll.fileno(), pair[0].fileno(), os.fstat(pair[0].fileno()).st_ino, flush=True)
time.sleep(0.7)
if os.fork() == 0:
    while True:
        pass
time.sleep(30)
"""


def open_session(pid: int) -> Session:
    """A session on one service."""
    return COLLECTOR.open(Host(), resolve(Host(), pid, False))


def rows_of(items: Iterable[Item], table: str) -> list[tuple[int | float | str, ...]]:
    """The rows of one table, packed ones unpacked."""
    found: list[tuple[int | float | str, ...]] = []
    for item in items:
        if isinstance(item, Row) and item.table == table:
            found.append(item.values)
        elif isinstance(item, Rows) and item.table == table:
            found += zip(*(array("q", column) for column in item.columns), strict=True)
    return found


@pytest.fixture(scope="module")
def recorded() -> tuple[int, list[str], list[Item], Rate]:
    """One service with an epoll and a named thread that forks a burner, watched for 2.3 s."""
    with running(sys.executable, "-c", SERVICE) as (pid, words):
        session = open_session(pid)
        items = list(session.poll())
        for _ in range(2):
            time.sleep(1.1)
            items += session.poll()
        items += session.close()
        rate = session.rate()  # type: ignore[attr-defined]
    return pid, words, items, rate


Recorded = tuple[int, list[str], list[Item], Rate]


def test_threads_of_a_forked_process_are_found(recorded: Recorded) -> None:
    """A process that the service starts is sampled within a poll, as a burner."""
    pid, _, items, _ = recorded

    runs = rows_of(items, "thread_runs")
    child_ns = sum(int(row[6]) for row in runs if row[0] != pid)
    assert {row[0] for row in rows_of(items, "threads")} == {row[0] for row in runs}
    assert len({row[0] for row in runs}) == 2
    assert child_ns > 100_000_000


def test_threads_table_has_each_thread_once_with_its_name(recorded: Recorded) -> None:
    """Names given after the thread began are told; so are affinity, policy and start."""
    pid, _, items, _ = recorded

    threads = rows_of(items, "threads")
    names = {row[3] for row in threads}
    [main] = [row for row in threads if row[1] == pid]
    cpus = len(os.sched_getaffinity(0))
    ticks = int(Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19])
    assert len(threads) == 3
    assert "worker one" in names
    assert (main[4], main[5]) == (0, 0)
    assert str(main[6]).endswith(str(cpus - 1))
    assert int(main[2]) >= ticks


def test_threads_epoll_members_are_read_once(recorded: Recorded) -> None:
    """What an epoll watches is told with the socket's inode, once for each process."""
    pid, (epoll_fd, fd, inode), items, _ = recorded

    members = [row for row in rows_of(items, "epoll_members") if row[0] == pid]
    assert members == [(pid, int(epoll_fd), int(fd), int(inode))]


def test_threads_descriptors_are_told_once(recorded: Recorded) -> None:
    """Every open descriptor is one row, unless it changes."""
    pid, (epoll_fd, fd, inode), items, _ = recorded

    fds = {row[2]: row for row in rows_of(items, "fds") if row[1] == pid}
    assert len(fds) == len([row for row in rows_of(items, "fds") if row[1] == pid])
    assert fds[int(epoll_fd)][3:] == ("eventpoll", -1, "anon_inode:[eventpoll]")
    assert fds[int(fd)][3:] == ("socket", int(inode), f"socket:[{inode}]")


def test_threads_rate_tells_what_was_reached(recorded: Recorded) -> None:
    """The rate is near 100 Hz, and ticks and misses add up to the plan."""
    _, _, items, rate = recorded

    assert (rate.sampler, rate.requested_hertz) == ("threads", 100.0)
    assert rate.achieved_hertz > 40
    assert rate.tick_count == len(rows_of(items, "sampler_ticks"))


def test_threads_cgroups_have_rows_at_both_ends(recorded: Recorded) -> None:
    """Each cgroup of the chain that has a cpu.stat is told at the start and at the end."""
    _, _, items, _ = recorded

    rows = rows_of(items, "cgroup_ticks")
    if not rows:
        pytest.skip("no cgroup file system with a cpu controller is mounted")
    ends = {index: [r for r in rows if r[1] == index] for index in {r[1] for r in rows}}
    assert min(len(found) for found in ends.values()) >= 2
    assert all(int(found[-1][0]) - int(found[0][0]) > 2e9 for found in ends.values())


def test_threads_without_a_service_are_unavailable() -> None:
    """A report about a host has no threads, and says why."""
    with pytest.raises(Unavailable, match="no service"):
        COLLECTOR.open(Host(), Target("host", 0, "", ""))


@pytest.mark.usefixtures("needs_root")
def test_threads_of_another_user_give_times_but_no_calls() -> None:
    """Without the right to read system calls run and wait times remain, and the refusal counts."""
    with running(sys.executable, "-c", "print('up', flush=True)\nwhile True: pass") as (pid, _):
        status, runs = run_as_nobody(lambda: sample_briefly(pid))

    assert {row.syscall for row in runs} == {-3}
    assert sum(row.run_ns for row in runs) > 100_000_000
    assert status["refused_count"] > 0


def sample_briefly(pid: int) -> Sampled:
    """Status and rows of half a second."""
    sampler = _native.ThreadSampler("/proc", [pid])
    time.sleep(0.5)
    sampler.stop()
    return sampler.status(), list(to_rows(sampler.take())["thread_runs"])


def run_as_nobody(work: Callable[[], Sampled]) -> Sampled:
    """Runs a function in a child without rights and gives what it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(writer, pickle.dumps(work()))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        raw = stream.read()
    os.waitpid(child, 0)
    result: Sampled = pickle.loads(raw)
    return result


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, ""),
        ({"missed_count": 40}, ""),
        (
            {"tick_count": 440, "missed_count": 560, "spent_ns": 105_000_000},
            "slowed to 44 Hz to stay within 1.1 % of a core",
        ),
        ({"tick_count": 700, "missed_count": 300}, "slowed to 70 Hz by a busy host"),
        ({"put_off_count": 10}, ""),
        (
            {"put_off_count": 40},
            "threads came and went faster than they could be listed: some were missed",
        ),
        ({"is_abandoned": 1}, "the sampler did not end in time and was left behind"),
    ],
)
def test_threads_remarks_tell_what_held_the_sampler_back(
    changes: dict[str, int], note: str
) -> None:
    """A few missed ticks are no news; many are, with the reason."""
    none = ("refused_count", "over_limit_count", "put_off_count", "is_abandoned", "started_ns")
    healthy = dict.fromkeys(none, 0) | {"tick_count": 1000, "missed_count": 0}
    healthy |= {"spent_ns": 5 * 10**7, "last_tick_ns": 10**10}

    status = healthy | changes
    remarks = [*to_pace_remark(status, 0.011), *to_remarks(status, 0, 0)]
    assert "; ".join(remarks) == note


def test_process_cpu_ns_agrees_with_the_process_itself() -> None:
    """The CPU clock read from outside is the one read inside; a process that is gone gives -1."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    before_ns = time.process_time_ns()
    used = array("q", _native.process_cpu_ns(array("q", [os.getpid(), gone.pid, 0, -5, 1 << 40])))
    after_ns = time.process_time_ns()

    assert before_ns <= used[0] <= after_ns
    assert list(used[1:]) == [-1] * 4


def test_process_cpu_ns_refuses_odd_sizes() -> None:
    """A buffer that is not whole 64-bit values is an error."""
    with pytest.raises(ValueError, match="64-bit"):
        _native.process_cpu_ns(b"1234567")


def test_list_fds_agrees_with_the_links() -> None:
    """Every descriptor of ours that stays open is listed with its link's text."""
    with socket.socket() as open_socket, select.epoll() as epoll:
        found = dict(_native.list_fds("/proc", os.getpid(), 4096))
        opened = (open_socket.fileno(), epoll.fileno())
        expected = {fd: str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in opened}
        count = psutil.Process().num_fds()

    assert expected.items() <= found.items()
    assert abs(len(found) - count) <= 1


def test_list_fds_stops_at_its_limit() -> None:
    """No more than the limit are listed."""
    assert len(_native.list_fds("/proc", os.getpid(), 2)) == 2


def test_list_fds_of_nobody_is_an_error() -> None:
    """A process that does not exist raises."""
    with pytest.raises(FileNotFoundError):
        _native.list_fds("/proc", 1 << 22, 10)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("socket:[12]", ("socket", 12)),
        ("pipe:[7]", ("pipe", 7)),
        ("anon_inode:[eventpoll]", ("eventpoll", -1)),
        ("anon_inode:[eventfd]", ("eventfd", -1)),
        ("anon_inode:[timerfd]", ("other", -1)),
        ("/var/log/a b", ("file", -1)),
        ("socket:[x]", ("socket", -1)),
        ("", ("other", -1)),
    ],
)
def test_link_tells_kind_and_inode(link: str, expected: tuple[str, int]) -> None:
    """The text of a descriptor's link is sorted into kinds."""
    assert parse_link(link) == expected


def test_epoll_fdinfo_is_read_with_and_without_inodes() -> None:
    """Members of older kernels have no inode; lines of other kinds are passed over."""
    text = (
        "pos:\t0\nflags:\t02000002\n"
        "tfd:       14 events:       1b data:     7f000000000e  pos:0 ino:c8a1 sdev:8\n"
        "tfd:        9 events:       19 data:  9\n"
    )

    assert list(parse_epoll(text)) == [(14, 0xC8A1), (9, -1)]


@given(st.text(max_size=300))
def test_epoll_fdinfo_never_raises(text: str) -> None:
    """Any text gives members or none."""
    list(parse_epoll(f"tfd: {text}\ntfd:{text}"))


@given(st.binary(min_size=16, max_size=16))
def test_thread_name_is_always_text(raw: bytes) -> None:
    """Any 16 bytes give a name that can be encoded."""
    parse_name(list(array("q", raw))).encode("utf-8")
