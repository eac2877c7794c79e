"""The thread sampler on real threads of known behaviour."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from programs import build, running
from sampling import Row, by_thread, sample, to_rows

from perfkit import _native

SCRIPTED = Path(__file__).parent / "native" / "scripted_threads.c"
RECV, POLL, PSELECT, FSYNC, FUTEX, NANOSLEEP = 45, 7, 270, 74, 202, 230
RUNNING, NOT_IN_SYSCALL = -2, -1


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with scripted threads."""
    return build(SCRIPTED, tmp_path_factory.mktemp("scripted") / "scripted")


@contextmanager
def scripted(program: Path, *roles: str) -> Iterator[tuple[int, list[list[str]]]]:
    """Runs it; gives the pid, and [role, tid, details...] of each thread."""
    with running(str(program), *roles) as (pid, words):
        time.sleep(0.05)  # what they announce they do a moment later
        yield pid, [word.split(":") for word in words]


def last_row(rows: dict[str, list[Row]], tid: str) -> Row:
    """The last row of a thread."""
    return by_thread(rows["thread_runs"])[int(tid)][-1]


def test_threads_burner_uses_the_cpu_that_its_own_clock_tells(program: Path) -> None:
    """The sum of run_ns is the thread's CLOCK_THREAD_CPUTIME_ID, within 1 %."""
    command = [program, "burn"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdin is not None and child.stdout is not None
        tid = int(child.stdout.readline().split(":")[1])
        sampler = _native.ThreadSampler("/proc", [child.pid])
        time.sleep(0.2)
        child.stdin.write("go\n")
        child.stdin.flush()
        used_ns = int(child.stdout.readline())
        sampler.stop()
        child.kill()

    runs = by_thread(to_rows(sampler.take())["thread_runs"])[tid]
    assert sum(row.run_ns for row in runs) == pytest.approx(used_ns, rel=0.01)
    assert used_ns > 100_000_000
    assert sum(row.syscall in (RUNNING, NOT_IN_SYSCALL) for row in runs) > len(runs) / 3


def test_threads_receiver_is_seen_in_recv_on_its_socket(program: Path) -> None:
    """A thread blocked in recv has the call, the descriptor and the socket's inode."""
    with scripted(program, "recv") as (pid, [(_, tid, fd, inode)]):
        row = last_row(sample([pid], 0.3), tid)

    assert (row.syscall, row.arg0, row.fd_inode) == (RECV, int(fd), int(inode))
    assert (chr(row.state_letter), chr(row.end_letter)) == ("S", "S")


def test_threads_sleeper_is_one_row_over_the_window(program: Path) -> None:
    """A thread that does not move adds no rows; backed off, it is read less often."""
    with scripted(program, "sleep") as (pid, [(_, tid, _)]):
        rows = sample([pid], 1.2)

    runs = by_thread(rows["thread_runs"])[int(tid)]
    ticks = rows["sampler_ticks"]
    assert [(row.syscall, row.run_ns) for row in runs] == [(NANOSLEEP, 0)]
    assert 8 < runs[0].tick_count < len(ticks) / 2
    assert runs[0].end_ns >= ticks[-1].t_ns


def test_threads_flusher_is_seen_in_fsync(program: Path, tmp_path: Path) -> None:
    """A thread that syncs a file, where it is blocked, is blocked in fsync."""
    with running("sh", "-c", f"cd {tmp_path}; exec {program} fsync") as (pid, [word]):
        runs = by_thread(sample([pid], 0.5)["thread_runs"])[int(word.split(":")[1])]

    blocked = [row.syscall for row in runs if row.syscall >= 0]
    assert blocked.count(FSYNC) > 0.8 * len(blocked)
    assert len(blocked) > 5


def test_threads_lock_waiter_names_the_holder(program: Path) -> None:
    """A waiter for a mutex of glibc bears the lock's address and the thread that holds it."""
    with scripted(program, "hold", "lock") as (pid, [(_, holder, _), (_, tid, _, address)]):
        row = last_row(sample([pid], 0.3), tid)

    assert (row.syscall, row.arg0, row.futex_owner) == (FUTEX, int(address), int(holder))


def test_threads_poll_of_one_bears_its_inode(program: Path) -> None:
    """A poll of a single descriptor is a wait for that one."""
    with scripted(program, "poll1") as (pid, [(_, tid, fd, inode)]):
        rows = sample([pid], 0.3)

    members = [(row.tid, row.fd, row.events, row.inode) for row in rows["poll_members"]]
    row = last_row(rows, tid)
    assert (row.syscall, row.arg1, row.fd_inode) == (POLL, 1, int(inode))
    assert members == [(int(tid), int(fd), 1, int(inode))]


def test_threads_poll_of_three_lists_its_members(program: Path) -> None:
    """A poll of several has no inode of its own, and a row for each of them."""
    with scripted(program, "poll3") as (pid, [(_, tid, *inodes)]):
        rows = sample([pid], 0.3)

    members = [(row.events, row.inode) for row in rows["poll_members"]]
    row = last_row(rows, tid)
    assert (row.syscall, row.arg1, row.fd_inode) == (POLL, 3, 0)
    assert members == list(zip((1, 3, 1), map(int, inodes), strict=True))
    assert {row.moved_ns for row in rows["poll_members"]} == {row.moved_ns}


def test_threads_select_lists_its_members(program: Path) -> None:
    """The bitmaps of select become members too."""
    with scripted(program, "select2") as (pid, [(_, tid, low, low_inode, high, high_inode)]):
        rows = sample([pid], 0.3)

    members = [(row.fd, row.events, row.inode) for row in rows["poll_members"]]
    assert last_row(rows, tid).syscall == PSELECT
    assert members == [(int(low), 1, int(low_inode)), (int(high), 1, int(high_inode))]


def test_threads_rows_cover_the_window_without_gap_or_overlap(program: Path) -> None:
    """For every thread each row begins where the one before ended, to the last tick."""
    roles = ("wander", "sleep", "recv", "wander", "poll1")
    with scripted(program, *roles) as (pid, _):
        rows = sample([pid], 1.0)

    threads = by_thread(rows["thread_runs"])
    ticks = rows["sampler_ticks"]
    joints = [(a.end_ns, b.start_ns) for t in threads.values() for a, b in pairwise(t)]
    assert len(threads) == len(roles) + 1
    assert joints == [(end_ns, end_ns) for end_ns, _ in joints]
    assert max(t[0].start_ns for t in threads.values()) < ticks[2].t_ns
    assert min(t[-1].end_ns for t in threads.values()) >= ticks[-1].t_ns
    assert all(row.start_ns <= row.moved_ns <= row.end_ns for t in threads.values() for row in t)


def test_threads_ticks_keep_their_mean_rate_and_are_jittered(program: Path) -> None:
    """100 Hz on the average, with intervals that differ by up to 40 %."""
    with scripted(program, "wander") as (pid, _):
        ticks = sample([pid], 2.0)["sampler_ticks"]

    times = [row.t_ns - row.late_ns for row in ticks[:-1]]
    gaps_ms = [(b - a) / 1e6 for a, b in pairwise(times)]
    on_time = [gap for gap in gaps_ms if gap < 14.1]  # a busy host skips slots
    assert statistics.mean(on_time) == pytest.approx(10, rel=0.04)
    assert statistics.stdev(on_time) == pytest.approx(1.63, rel=0.25)  # 4 / sqrt(6)
    assert len(on_time) > 100
    assert all(row.cpu_ns > 0 for row in ticks)


def test_threads_name_with_brackets_is_kept(program: Path) -> None:
    """A name that imitates the fields behind it is a name."""
    with scripted(program, "rename") as (pid, [(_, tid, _)]):
        rows = sample([pid], 0.2)

    [met] = [row for row in rows["threads_met"] if row.tid == int(tid)]
    name = b"".join(word.to_bytes(8, "little", signed=True) for word in (met.name0, met.name1))
    assert name.rstrip(b"\0") == b"a) R (b"
    assert chr(last_row(rows, tid).end_letter) == "S"


def test_threads_started_and_ended_in_the_window_are_met() -> None:
    """A thread that lives for half a second is found, and its rows end with it."""
    source = (
        "import threading, time, sys\nprint('up', flush=True)\ntime.sleep(0.3)\n"
        "t = threading.Thread(target=time.sleep, args=(0.5,))\nt.start(); t.join()\ntime.sleep(9)"
    )
    with running(sys.executable, "-c", source) as (pid, _):
        rows = sample([pid], 1.5)

    [short] = [t for tid, t in by_thread(rows["thread_runs"]).items() if tid != pid]
    lived_ns = short[-1].end_ns - short[0].start_ns
    assert 150_000_000 < lived_ns < 600_000_000
    assert short[-1].end_letter == 0


def test_threads_vanish_in_an_exec(program: Path) -> None:
    """After an exec only the leader's id goes on; the other threads end without a letter."""
    with scripted(program, "exec", "sleep", "wander") as (pid, threads):
        rows = sample([pid], 1.6)
        alive = {int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()}

    found = by_thread(rows["thread_runs"])
    gone = {int(tid) for _, tid, _ in threads}
    assert {found[tid][-1].end_letter for tid in gone} == {0}
    assert {chr(found[tid][-1].end_letter) for tid in alive} == {"S"}
    assert alive <= found.keys()


def test_threads_zombie_is_told_by_its_letter() -> None:
    """A process that exited and was not reaped ends in state Z."""
    source = (
        "import os, time\npid = os.fork()\nif pid == 0:\n    time.sleep(0.4)\n    os._exit(0)\n"
        "print(pid, flush=True)\ntime.sleep(9)"
    )
    with running(sys.executable, "-c", source) as (_, [child]):
        rows = sample([int(child)], 1.0)

    assert chr(last_row(rows, child).end_letter) == "Z"


def test_threads_of_a_process_added_later_are_sampled(program: Path) -> None:
    """add_pids takes a process in; adding it again, or one that does not exist, changes nothing."""
    with scripted(program, "sleep") as (pid, _):
        sampler = _native.ThreadSampler("/proc", [])
        sampler.add_pids([pid, pid, 4_000_000])
        time.sleep(0.6)
        sampler.stop()
        rows = to_rows(sampler.take())

    tids = sorted(by_thread(rows["thread_runs"]))
    assert (tids[0], len(tids)) == (pid, 2)
    assert len(rows["threads_met"]) == 2


def test_threads_beyond_the_limit_are_counted(program: Path) -> None:
    """A full table leaves threads out and says so."""
    with scripted(program, *["sleep"] * 6) as (pid, _):
        sampler = _native.ThreadSampler("/proc", [pid], thread_limit=4)
        time.sleep(0.2)
        sampler.stop()
        status, rows = sampler.status(), to_rows(sampler.take())

    assert len(by_thread(rows["thread_runs"])) == 4
    assert status["over_limit_count"] >= 3


def test_threads_rows_beyond_the_limit_are_counted(program: Path) -> None:
    """A full ring drops new rows and counts them; later rows come through again."""
    with scripted(program, *["wander"] * 4) as (pid, _):
        sampler = _native.ThreadSampler("/proc", [pid], row_limit=50)
        time.sleep(0.5)
        first = sampler.take()["thread_runs"]
        time.sleep(0.1)
        sampler.stop()
        second = sampler.take()["thread_runs"]

    assert first[1] == 50
    assert first[2] > 50
    assert second[1] > 10


def test_threads_rate_falls_to_what_the_budget_pays_for(program: Path) -> None:
    """With a tenth of a per cent of a core the rate falls, the ticks missed are counted."""
    with scripted(program, *["wander"] * 16) as (pid, _):
        sampler = _native.ThreadSampler("/proc", [pid], budget_ratio=0.001)
        time.sleep(3.0)
        sampler.stop()
        status = sampler.status()

    seconds = (status["last_tick_ns"] - status["started_ns"]) / 1e9
    assert status["tick_count"] + status["missed_count"] == pytest.approx(100 * seconds, abs=3)
    assert status["spent_ns"] / 1e9 < 0.003 * seconds
    assert status["interval_ns"] > 20_000_000


def test_threads_rate_follows_a_changed_budget(program: Path) -> None:
    """A budget that is raised in mid-window is used: the ticks come several times as often."""
    with scripted(program, *["wander"] * 16) as (pid, _):
        sampler = _native.ThreadSampler("/proc", [pid], budget_ratio=0.001)
        time.sleep(1.5)
        before = sampler.status()["tick_count"]
        sampler.set_budget(0.05)
        time.sleep(1.5)
        after = sampler.status()["tick_count"] - before
        sampler.stop()

    assert after > 3 * before
    with pytest.raises(ValueError, match="budget_ratio"):
        sampler.set_budget(-1.0)


def test_threads_are_sampled_without_kept_descriptors(program: Path) -> None:
    """Where no descriptor may be kept files are opened for each read, at a lower rate."""
    with scripted(program, "wander", "recv") as (pid, [(_, tid, _), (_, other, _, inode)]):
        sampler = _native.ThreadSampler("/proc", [pid], descriptor_limit=0)
        time.sleep(1.0)
        descriptors = sampler.status()["descriptor_count"]
        sampler.stop()
        rows = to_rows(sampler.take())

    assert descriptors == 0
    assert 15 < len(by_thread(rows["thread_runs"])[int(tid)]) < 40
    assert last_row(rows, other).fd_inode == int(inode)


def test_threads_cgroup_is_read_at_the_thread_tick(tmp_path: Path, program: Path) -> None:
    """cpu.stat has a row at the start, at each change within a tick, and at the end."""
    stat = tmp_path / "cpu.stat"
    stat.write_text("nr_periods 10\nnr_throttled 1\nthrottled_time 500\n")
    with scripted(program, "sleep") as (pid, _):
        sampler = _native.ThreadSampler("/proc", [pid])
        sampler.add_cgroup(7, str(stat), 1)
        sampler.add_cgroup(8, str(tmp_path / "missing"), 2)
        time.sleep(0.3)
        changed_ns = time.monotonic_ns()
        stat.write_text("nr_periods 12\nnr_throttled 2\nthrottled_usec 0\nthrottled_time 900\n")
        time.sleep(0.3)
        sampler.stop()
        rows = to_rows(sampler.take())["cgroup_ticks"]

    values = [(r.cgroup_index, r.period_count, r.throttled_count, r.throttled_ns) for r in rows]
    assert values == [(7, 10, 1, 500), (7, 12, 2, 900), (7, 12, 2, 900)]
    assert 0 <= rows[1].t_ns - changed_ns < 40_000_000


def test_threads_sampler_leaves_nothing_behind(program: Path) -> None:
    """Made and dropped again and again it leaves no descriptor, no thread, and the memory flat."""
    with scripted(program, *["sleep"] * 20) as (pid, _):
        _use_and_drop(pid, 5)
        before = (_count("/proc/self/fd"), _count("/proc/self/task"))
        resident_kb = _resident_kb()
        _use_and_drop(pid, 30)
        after = (_count("/proc/self/fd"), _count("/proc/self/task"))

    assert before == after
    assert _resident_kb() - resident_kb < 2000


def _use_and_drop(pid: int, times: int) -> None:
    for _ in range(times):
        sampler = _native.ThreadSampler("/proc", [pid])
        time.sleep(0.02)
        sampler.take()


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def _resident_kb() -> int:
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x]
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("pids", "options"),
    [
        ([0], {}),
        ([-1], {}),
        ([1 << 40], {}),
        (["1"], {}),
        ([1], {"interval_ns": 0}),
        ([1], {"budget_ratio": 0.0}),
        ([1], {"budget_ratio": float("nan")}),
        ([1], {"row_limit": 0}),
        ([1], {"thread_limit": 1 << 30}),
    ],
)
def test_threads_sampler_refuses_absurd_arguments(
    pids: list[int], options: dict[str, float]
) -> None:
    """What cannot be sampled is an error at once, and nothing is started."""
    with pytest.raises((OSError, ValueError, TypeError, OverflowError)):
        _native.ThreadSampler("/proc", pids, **options)  # type: ignore[arg-type]
