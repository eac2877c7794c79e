"""Python stacks through py-spy, on real interpreters."""

from __future__ import annotations

import os
import sys
import time

import pytest
from programs import running

from perfkit.agent.cost import read_spent
from perfkit.agent.target import resolve
from perfkit.collectors import _pyspy
from perfkit.collectors.python_stacks import COLLECTOR
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Item, Row, Session

pytestmark = pytest.mark.system

BUSY = """
import threading, time
def burn_brightly():
    while True: sum(range(200))
for _ in range({thread_count}): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(flush=True)
burn_brightly()
"""
ASLEEP = """
import time
def doze_off(): time.sleep(60)
print(flush=True)
doze_off()
"""


def sample(pid: int, seconds: float) -> tuple[list[Item], Session]:
    """All that the collector tells of a process in one window."""
    session = COLLECTOR.open(Host(), resolve(Host(), pid, only_pid=True))
    time.sleep(seconds)
    items = [*session.poll(), *session.close()]
    return items, session


def functions(items: list[Item]) -> dict[str, set[str]]:
    """The innermost function's name of each stack by kind of sample."""
    rows = [item for item in items if isinstance(item, Row)]
    leaf = {
        row.values[0]: row.values[2] for row in rows if row.table == "stacks" and not row.values[1]
    }
    found: dict[str, set[str]] = {}
    for row in rows:
        if row.table == "stack_samples":
            found.setdefault(str(row.values[4]), set()).add(str(leaf[row.values[5]]))
    return found


@pytest.mark.parametrize(("thread_count", "kind"), [(0, "wall"), (9, "gil")])
def test_python_stacks_name_the_function_that_runs(thread_count: int, kind: str) -> None:
    """What burns the CPU is named, whether all threads are sampled or the lock's holder only."""
    with running(sys.executable, "-c", BUSY.format(thread_count=thread_count)) as (pid, _):
        items, _ = sample(pid, 1.5)

    assert functions(items) == {kind: {"burn_brightly"}}


def test_python_stacks_name_a_function_that_is_blocked() -> None:
    """A process with few threads tells what it waits in, too."""
    with running(sys.executable, "-c", ASLEEP) as (pid, _):
        items, _ = sample(pid, 1.0)

    assert functions(items) == {"wall": {"doze_off"}}


def test_python_stacks_lie_inside_the_window() -> None:
    """Times are those of the monotonic clock, to some milliseconds."""
    before_ns = time.monotonic_ns()
    with running(sys.executable, "-c", BUSY.format(thread_count=0)) as (pid, _):
        items, _ = sample(pid, 1.0)
    rows = [
        item.values for item in items if isinstance(item, Row) and item.table == "stack_samples"
    ]

    assert before_ns <= rows[0][0] < rows[0][1] <= time.monotonic_ns()


def test_python_stacks_are_none_where_there_is_no_python() -> None:
    """A service without an interpreter is no failure."""
    with running("sh", "-c", "echo; exec sleep 60") as (pid, _):
        items, session = sample(pid, 0.1)

    assert (items, session.rate()) == ([], None)  # type: ignore[attr-defined]


def test_python_stacks_of_a_process_that_goes_are_unavailable() -> None:
    """py-spy's own reason is given, and no second py-spy is started for that process."""
    recorder = _pyspy.start(2**22 - 7, 25.0, ("--gil",), time.monotonic_ns())

    with pytest.raises(Unavailable, match="py-spy: "):
        _pyspy.finish(recorder, 5.0)


def test_pyspy_that_hangs_is_killed() -> None:
    """One that does not end in time is killed and reaped."""
    with running(sys.executable, "-c", ASLEEP) as (pid, _):
        recorder = _pyspy.start(pid, 10.0, ("--gil",), time.monotonic_ns())
        with pytest.raises(Unavailable, match="killed"):
            _pyspy.finish(recorder, 0.0)

    assert not os.path.exists(f"/proc/{recorder.pid}")  # noqa: PTH110


@pytest.mark.parametrize("raw", [b"", b"{}", b"[{]", b'[{"name": 1}]', b"\xff" * 50])
def test_pyspy_trace_that_is_none_is_refused(raw: bytes) -> None:
    """Whatever py-spy writes, it is a trace or a reason."""
    with pytest.raises(Unavailable, match="no trace"):
        list(_pyspy.parse_trace(raw, 0))


def test_pyspy_trace_survives_events_that_do_not_match() -> None:
    """Frames left that were never entered, and times that run backwards, yield no stretch."""
    event = '{"name": "%s", "ph": "%s", "tid": 1, "ts": %d, "args": {"filename": "f"}}'
    events = [event % ("x", "E", 5), event % ("thread (7): a", "B", 5), event % ("f", "B", 3)]
    raw = f"[{','.join(events)}]".encode()

    assert list(_pyspy.parse_trace(raw, 0)) == []


def test_pyspy_trace_is_read_leaf_first() -> None:
    """A stretch lasts from the event that completed its stack to the next one."""
    event = '{"name": "%s", "ph": "%s", "tid": 1, "ts": %d, "args": {"filename": "f"}}'
    events = [
        *(event % (name, "B", 5) for name in ("thread (7): a", "outer", "inner")),
        event % ("inner", "E", 9),
    ]

    (stretch,) = _pyspy.parse_trace(f"[{','.join(events)}]".encode(), 1_000)

    assert (stretch.begin_ns, stretch.end_ns, stretch.tid) == (6_000, 10_000, 7)
    assert [frame.function for frame in stretch.stack] == ["inner", "outer"]


def test_cost_counts_a_child_that_still_runs() -> None:
    """A sampler's CPU time is perfkit's, before the kernel books it."""
    with running(sys.executable, "-c", BUSY.format(thread_count=0)) as (pid, _):
        before = read_spent([pid])
        time.sleep(0.4)
        after = read_spent([pid])

    assert after.children_ns - before.children_ns > 50_000_000
