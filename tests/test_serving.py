"""Which threads serve: also those that their load leaves no pause, in whatever language."""

from __future__ import annotations

from typing import Any

import pytest
from simulate import MS, RUNNING, Step
from test_requests import Load, _events, _rows
from test_saturation import SECONDS, World

from perfkit.analysis import analyse
from perfkit.analysis.case import build_case

MAIN, POOL, WATCHER, OTHER = 100, 101, 102, 103
EPOLL, FUTEX, NANOSLEEP, RECV = 232, 202, 35, 45
WORD = 0x55D000001000
CROWD = Load(service_ms=250, think_ms=10, connections=16)
# Where its requests come in, the loop's descriptor, and the interpreter's own memory.
BUSY = [Step(RUNNING, 100 * MS)]
IDLE_POOL = [Step(FUTEX, 49 * MS, arg0=WORD), Step(RUNNING, 1 * MS)]
NEVER_WOKEN = [Step(EPOLL, 1000 * MS)]
WOKEN = [Step(EPOLL, 18 * MS), Step(RUNNING, 2 * MS)]


def world(load: Load, *scripts: list[Step], is_python: bool = False) -> World:
    """A process with these threads, the first its main one, that holds all connections."""
    made = World()
    made.add_threads(*scripts)
    rows: list[dict[str, Any]] = []
    for index in range(load.connections):
        rows += _rows(index, _events(load, SECONDS, seed=index), SECONDS)
    made.add("socket_runs", rows)
    made.add(
        "sockets",
        [
            {
                "socket_index": index,
                "inode": 1000 + index,
                "role": "accepted",
                "pid": 100,
                "local": "127.0.0.1:80",
                "peer": f"127.0.0.1:{2000 + index}",
            }
            for index in range(load.connections)
        ],
    )
    made.add("epoll_members", [{"pid": 100, "epoll_fd": 5, "fd": 9, "inode": 1000}])
    if is_python:
        runtime = {"pid": 100, "start_address": 1, "end_address": 2}
        made.add("python_runtimes", [runtime])
    return made


def serving(made: World) -> set[int]:
    """The tids of the threads that serve."""
    return {tid for _, tid in build_case(made.capture()).serving}


def test_main_thread_without_a_pause_serves_where_nobody_else_can() -> None:
    """Workers of a garbage collector and a thread that is never woken take no requests in."""
    assert MAIN in serving(world(CROWD, BUSY, IDLE_POOL, NEVER_WOKEN))


@pytest.mark.parametrize("is_python", [False, True])
def test_thread_that_spins_beside_a_front_does_not_serve(is_python: bool) -> None:
    """Where a thread is woken for the requests, one that never pauses is a background thread."""
    assert serving(world(CROWD, WOKEN, BUSY, is_python=is_python)) == {MAIN}


def test_of_an_interpreters_eager_threads_the_main_one_serves() -> None:
    """A thread that never pauses beside a loop that never does holds it up; it serves nobody."""
    assert serving(world(CROWD, BUSY, BUSY, is_python=True)) == {MAIN}


def test_of_other_programs_all_threads_alike_serve() -> None:
    """Fronts side by side, none of which ever pauses."""
    assert serving(world(CROWD, BUSY, BUSY, NEVER_WOKEN)) == {MAIN, POOL, WATCHER}


def test_only_loop_that_waits_in_one_call_is_blocked() -> None:
    """A loop that never comes back to epoll in the window, since one call follows another."""
    waits = [Step(FUTEX, 150 * MS, arg0=WORD), Step(RUNNING, 20 * MS)]

    report = analyse(world(CROWD, waits, NEVER_WOKEN).capture())

    assert [cause.id for cause in report.causes] == ["event_loop_blocked"]
    assert report.causes[0].culprit.name.startswith("thread 100 (serve): waiting for a lock")


def test_threads_that_take_turns_are_no_event_loop() -> None:
    """Where several threads compute, a wait of one of them holds up nobody."""
    waits = [Step(FUTEX, 150 * MS, arg0=WORD), Step(RUNNING, 20 * MS)]
    load = Load(service_ms=20, think_ms=200, connections=4)

    report = analyse(world(load, waits, WOKEN, WOKEN).capture())

    assert [cause.id for cause in report.causes] == []


WORKER = [Step(NANOSLEEP, 97 * MS), Step(RUNNING, 3 * MS)]


def waiter(word: int, *, is_worker_too: bool = False) -> list[Step]:
    """A thread that waits on a word of its own, and now and then reads the next request."""
    work = [Step(RUNNING, 40 * MS)] if is_worker_too else []
    first_ms = 1 + 15 * word
    parts = [Step(FUTEX, ms * MS, arg0=WORD + 64 * word) for ms in (first_ms, 95 - first_ms)]
    return [parts[0], Step(RECV, 5 * MS, arg0=9), *work, parts[1]]


def test_workers_that_never_pause_serve_those_who_wait_for_them() -> None:
    """Threads that read requests and hand them to a pool at its limit: the pool is known by it."""
    readers = [waiter(number) for number in range(6)]

    report = analyse(world(CROWD, *readers, WORKER, WORKER).capture())

    assert [cause.id for cause in report.causes] == ["thread_pool_exhausted"]


def test_thread_that_never_pauses_beside_workers_serves_nobody() -> None:
    """Where threads that serve work themselves, one that never pauses is in the background."""
    readers = [waiter(number, is_worker_too=True) for number in range(6)]

    assert 106 not in serving(world(CROWD, *readers, WORKER))


def test_many_who_wait_while_few_work_wait_for_the_one_that_never_pauses() -> None:
    """A batch thread at its limit behind a pool whose threads also work by themselves."""
    waiting = [waiter(number) for number in range(8)]
    at_work = [waiter(8 + number, is_worker_too=True) for number in range(4)]

    assert 112 in serving(world(CROWD, *waiting, *at_work, WORKER))
