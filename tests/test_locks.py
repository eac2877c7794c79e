"""Who holds a lock and what it does: scripted threads that wait for one futex word."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulate import MS, RUNNING, WAIT_FOR_CPU, Step
from test_saturation import FUTEX, RECV, WORD, World, find

from perfkit.analysis.case import build_case
from perfkit.analysis.locks import find_locks
from perfkit.analysis.rules import lock_contention
from perfkit.analysis.states import State
from perfkit.codec import decode
from perfkit.findings import Finding, Rejection, Report

CAPTURES = Path(__file__).parent / "captures"
NANOSLEEP = 35
CAUSE = "lock_contention"


def waits(duration_ms: int, owner: int = 0) -> Step:
    """A wait for the lock, whose word may name its owner."""
    return Step(FUTEX, duration_ms * MS, arg0=WORD, futex_owner=owner)


def runs(duration_ms: int) -> Step:
    """Time on a CPU."""
    return Step(RUNNING, duration_ms * MS)


def report_of(*scripts: list[Step]) -> Report:
    """The report on threads that repeat these cycles."""
    made = World()
    made.add_threads(*scripts)
    return made.report()


def found(report: Report) -> Finding:
    """The finding, which must be the first cause."""
    said = report.causes[0]
    assert said.id == CAUSE
    return said


def ruled_out(report: Report) -> Rejection:
    """The number by which the cause is rejected."""
    said = find(report, CAUSE)
    assert isinstance(said, Rejection)
    return said


SLEEP = Step(NANOSLEEP, 40 * MS)
IN_TURN = [[SLEEP, runs(8), waits(72)], [waits(40), SLEEP, runs(8), waits(32)]]
IN_TURN += [[runs(8), waits(72), SLEEP]]


def test_lock_that_threads_hold_in_turn_is_the_culprit() -> None:
    """Three threads sleep with the lock, one after the other: the lock is named, and the sleep."""
    said = found(report_of(*IN_TURN))

    assert (said.culprit.kind, said.culprit.name) == ("lock", f"lock {WORD:x} of pid 100")
    assert "in a timed wait" in said.title
    assert said.share == pytest.approx(0.6, abs=0.05)


REFRESHER = [Step(NANOSLEEP, 55 * MS), waits(3), runs(2)]


def test_one_thread_that_keeps_the_lock_is_the_culprit() -> None:
    """Where one thread has the lock most of the time the others wait for, it is named."""
    said = found(report_of(REFRESHER, [waits(50), runs(10)], [runs(5), waits(50), runs(5)]))

    assert (said.culprit.kind, said.culprit.name) == ("thread", "thread 100 (serve)")
    assert "thread 100 (serve), is in a timed wait" in said.title


def test_owner_in_the_word_is_believed() -> None:
    """A mutex that names its owner needs no inference, and the peer it waits for is evidence."""
    made = World()
    holder = Step(RECV, 50 * MS, arg0=7, fd_inode=777)
    made.add_threads([holder, runs(5)], [waits(50, owner=100), runs(5)])
    peer = {"inode": 777, "role": "outgoing", "local": "127.0.0.1:9", "peer": "10.0.0.9:80"}
    made.add("sockets", [{"socket_index": 0} | peer])

    said = next(one for one in made.report().causes if one.id == CAUSE)

    assert (said.culprit.kind, said.culprit.name) == ("thread", "thread 100 (serve)")
    told = [one for one in said.evidence if "waiting for a peer 10.0.0.9:80" in one.metric]
    assert told[0].observed > 0.8
    assert "named in the lock's word" in told[0].source


def test_owner_is_believed_until_another_is_told() -> None:
    """A word read when a long wait began names the first of many holders, not all of them."""
    sleep, count = Step(NANOSLEEP, 40 * MS), 5
    scripts = [
        [waits(40 * place, owner=100), sleep, waits(160 - 40 * place, owner=101 + place)]
        for place in range(1, count - 1)
    ]
    scripts = [[sleep, waits(160, owner=101)], *scripts, [waits(160, owner=100), sleep]]
    made = World()
    made.add_threads(*scripts)

    lock = find_locks(build_case(made.capture()))[0]

    assert lock.known_ratio > 0.85
    assert {state for state, _, ratio in lock.doing if ratio > 0.05} == {State.TIMER_WAIT}
    assert len([name for name, ratio in lock.holders if ratio > 0.1]) == count


def test_lock_held_for_moments_is_silent() -> None:
    """A lock that costs a twentieth of the time is no cause."""
    said = ruled_out(report_of([runs(38), waits(2)], [waits(2), runs(38)]))

    assert said.observed < 0.1


def test_word_that_idle_workers_wait_on_is_no_lock() -> None:
    """Threads that nearly always wait on one word are a pool without work."""
    pool = [waits(390), runs(10)]

    assert ruled_out(report_of(pool, pool, pool)).observed == 0


def test_holder_that_waits_for_a_cpu_is_not_to_blame() -> None:
    """Where the lock is slow since its holder gets no CPU, the lock is rejected by that."""
    holder = [Step(WAIT_FOR_CPU, 50 * MS), runs(5)]

    said = ruled_out(report_of(holder, [waits(50, owner=100), runs(5)]))

    assert "waits for a CPU" in said.metric
    assert said.observed > 0.8


def test_lock_without_a_known_holder_is_not_a_cause() -> None:
    """Threads that wait together, with nobody who ever got the lock, prove no holder."""
    waiter = [waits(50), runs(10)]

    said = ruled_out(report_of(waiter, waiter))

    assert "a holder is known" in said.metric
    assert said.observed < said.limit


def test_a_lock_behind_which_logs_are_written_is_not_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each handler of a logging library has one; of this run its holder is known too seldom."""
    monkeypatch.setattr(lock_contention, "KNOWN_MIN", 0.05)
    raw = (CAPTURES / "logging_overhead.fires.threads.perfkit").read_bytes()

    (rejection,) = lock_contention.find(build_case(decode(raw)))

    assert isinstance(rejection, Rejection)
    assert "logging_overhead comes first" in rejection.why
