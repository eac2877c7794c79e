"""Python stacks by our own reader and by py-spy, on real interpreters."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from programs import running

from perfkit._native import PythonSampler
from perfkit.agent.cost import read_spent
from perfkit.agent.target import resolve
from perfkit.analysis.stacks import COLLECTION
from perfkit.collectors import _pyspy
from perfkit.collectors._pyoffsets import KNOWN
from perfkit.collectors.python_stacks import COLLECTOR
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Item, Row, Session

pytestmark = pytest.mark.system

VERSIONS = pytest.mark.parametrize(
    "version", ["3.11", pytest.param("3.12", marks=pytest.mark.slow), "3.13"]
)

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


KNOWN_SHARES = """
import hashlib, threading, time
lock = threading.Lock()
def often():
    end = time.thread_time_ns() + 1_000_000
    while time.thread_time_ns() < end: pass
def seldom():
    end = time.thread_time_ns() + 80_000_000
    while time.thread_time_ns() < end: pass
    yield
def hashes():
    end = time.thread_time_ns() + 10_000_000
    while time.thread_time_ns() < end: hashlib.sha256(block).digest()
block = b"x" * 20_000
def serve(work, pause_s):
    while True:
        work()
        time.sleep(pause_s)
def turn():
    while True:
        for _ in range(40): often(); time.sleep(0.001)
        list(seldom())
        for _ in range(4): hashes(); time.sleep(0.005)
for _ in range(2): threading.Thread(target=turn, daemon=True).start()
print(flush=True)
time.sleep(60)
"""
ODD = """
import threading, time
exec("def " + "é" * 300 + "(): time.sleep(60)")
threading.Thread(target=globals()["é" * 300], daemon=True).start()
control = eval("lambda: time.sleep(60)")
control.__code__ = control.__code__.replace(co_qualname="\\x1b[31m\\udc80\\0red")
threading.Thread(target=control, daemon=True).start()
def deep(left):
    if left: return deep(left - 1)
    time.sleep(60)
time.sleep(0.05)
print(flush=True)
deep(900)
"""
COLLECTING = """
import gc, random, time
kept = [[number, {}] for number in range(150_000)]
def evict():
    begin = time.thread_time_ns()
    gc.collect()
    return time.thread_time_ns() - begin
def think(nanoseconds):
    end = time.thread_time_ns() + nanoseconds
    while time.thread_time_ns() < end: pass
print(flush=True)
# Of no fixed length, so that looks at a fixed rate do not keep step with it.
while True: think(int(evict() / 3 * random.uniform(0, 2)))
"""
BORN = """
import threading, time
def a(n): return b(n - 1) if n else 0
def b(n): return a(n - 1) if n else 0
def churn():
    while True:
        for n in range(30): a(n); (lambda: b(n))()
        sum(range(3000))
def brief(): sum(range(1000))
threading.Thread(target=churn, daemon=True).start()
print(flush=True)
while True:
    threading.Thread(target=brief).start()
    time.sleep(0.002)
"""


PAUSING = """
import threading, time
def pause():
    while True: time.sleep(0.004)
for _ in range(20): threading.Thread(target=pause, daemon=True).start()
print(flush=True)
while True: time.sleep(9)
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


def call_run_ns(items: list[Item]) -> dict[tuple[str, str], int]:
    """CPU time by innermost function and who called it ("": it is the outermost)."""
    rows = [item for item in items if isinstance(item, Row)]
    names: dict[object, list[str]] = {}
    for row in rows:
        if row.table == "stacks":
            names.setdefault(row.values[0], []).append(str(row.values[2]))
    spent: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.table == "stack_samples" and row.values[4] == "frames":
            inner, outer, *_ = [*names[row.values[5]], ""]
            spent[inner, outer] = spent.get((inner, outer), 0) + int(row.values[6])
    return spent


def leaf_run_ns(items: list[Item]) -> dict[str, int]:
    """CPU time by innermost function, of stretches that tell it."""
    rows = [item for item in items if isinstance(item, Row)]
    leaf = {
        row.values[0]: str(row.values[2])
        for row in rows
        if row.table == "stacks" and not row.values[1]
    }
    spent: dict[str, int] = {}
    for row in rows:
        if row.table == "stack_samples" and row.values[4] == "frames":
            name = leaf[row.values[5]]
            spent[name] = spent.get(name, 0) + int(row.values[6])
    return spent


def interpreter(version: str) -> str:
    """A CPython of a version, or the test is skipped."""
    found = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}"))
    on_path = shutil.which(f"python{version}")
    programs = [str(one) for one in found] or ([on_path] if on_path else [])
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        programs = [sys.executable]
    if not programs:
        pytest.skip(f"no Python {version} on this machine")
    return programs[0]


@pytest.mark.parametrize("thread_count", [0, 9])
def test_python_stacks_name_the_function_that_runs(thread_count: int) -> None:
    """What burns the CPU is named, and nothing else is said to run."""
    with running(sys.executable, "-c", BUSY.format(thread_count=thread_count)) as (pid, _):
        items, _ = sample(pid, 1.5)

    assert functions(items)["frames"] == {"burn_brightly"}


def test_python_stacks_name_a_function_that_is_blocked() -> None:
    """A thread that does not run is seen with what it waits in."""
    with running(sys.executable, "-c", ASLEEP) as (pid, _):
        items, _ = sample(pid, 1.0)

    assert functions(items) == {"frames_blocked": {"doze_off"}}


@VERSIONS
def test_python_stacks_charge_functions_what_they_used(version: str) -> None:
    """Shares of plain, generator and C code agree with the threads' own clocks within 10 points."""
    with running(interpreter(version), "-c", KNOWN_SHARES) as (pid, _):
        items, session = sample(pid, 6.0)
    spent = leaf_run_ns(items)
    whole = sum(spent.values())
    shares = {name: spent.get(name, 0) / max(whole, 1) for name in ("often", "seldom", "hashes")}

    note = session.rate().note  # type: ignore[attr-defined]
    assert shares == {
        "often": pytest.approx(0.25, abs=0.1),
        "seldom": pytest.approx(0.5, abs=0.1),
        "hashes": pytest.approx(0.25, abs=0.1),
    }, (spent, note)


@VERSIONS
def test_the_collector_stands_on_the_stack_of_who_called_it(version: str) -> None:
    """CPU time that garbage collection takes is charged to it, in the thread that collects.

    Some 160 looks know a share of three quarters to 4 points (one sigma).
    """
    with running(interpreter(version), "-c", COLLECTING) as (pid, _):
        items, _ = sample(pid, 5.0)
    spent = call_run_ns(items)
    ratio = {pair: ns / sum(spent.values()) for pair, ns in spent.items()}

    rows = [one.values for one in items if isinstance(one, Row) and one.table == "collections"]

    assert rows[-1][3] >= 5
    assert ratio[COLLECTION.name, "evict"] == pytest.approx(0.75, abs=0.15), ratio
    assert {outer for inner, outer in spent if inner == COLLECTION.name} == {"evict"}


def test_python_stacks_survive_odd_names_and_deep_recursion() -> None:
    """Names are cut and valid text, and of 900 frames the 96 innermost are kept."""
    with running(sys.executable, "-c", ODD) as (pid, _):
        items, _ = sample(pid, 1.0)
    names = [
        str(item.values[2]) for item in items if isinstance(item, Row) and item.table == "stacks"
    ]

    assert max(len(name) for name in names) == 160
    assert names.count("deep") == 96


def test_python_stacks_survive_threads_that_come_and_go() -> None:
    """Threads that live for a moment while others switch stacks cause no failure."""
    with running(sys.executable, "-c", BORN) as (pid, _):
        items, session = sample(pid, 2.0)

    status = session._reader._sampler.status()  # type: ignore[attr-defined]
    assert status["walk_count"] > 50
    assert status["torn_count"] <= 0.2 * status["walk_count"]
    assert "churn" in leaf_run_ns(items)


def test_python_stacks_of_threads_that_pause_for_moments_are_not_walked() -> None:
    """Of twenty threads that all move between two looks, those that are blocked cost no walk."""
    with running(sys.executable, "-c", PAUSING) as (pid, _):
        items, session = sample(pid, 2.0)

    status = session._reader._sampler.status()  # type: ignore[attr-defined]
    assert status["tick_count"] > 20
    assert status["walk_count"] < 5 * status["tick_count"]
    assert "frames_blocked" in functions(items)


def test_python_stacks_end_quietly_with_their_process() -> None:
    """A process that exits in the window leaves what was seen of it."""
    with running(sys.executable, "-c", BUSY.format(thread_count=0)) as (pid, _):
        session = COLLECTOR.open(Host(), resolve(Host(), pid, only_pid=True))
        time.sleep(0.6)
    time.sleep(0.2)
    items = [*session.poll(), *session.close()]

    assert set(functions(items)["frames"]) == {"burn_brightly"}


@pytest.mark.parametrize("offsets", [(), (0,) * 17, (1 << 40,) * 18, (-5,) * 18])
def test_python_sampler_refuses_offsets_that_cannot_be(offsets: tuple[int, ...]) -> None:
    """Nothing is read by offsets that no CPython has."""
    sampler = PythonSampler("/proc")

    with pytest.raises(ValueError, match="offsets"):
        sampler.add(os.getpid(), 4096, offsets)


def test_python_sampler_reads_nonsense_without_harm() -> None:
    """Where no interpreter is, no stack is seen, and nothing breaks."""
    sampler = PythonSampler("/proc", interval_ns=1_000_000, budget_ratio=0.5)
    with running(sys.executable, "-c", BUSY.format(thread_count=0)) as (pid, _):
        place = Path(f"/proc/{pid}/maps").read_text().split("-")[0]
        sampler.add(pid, int(place, 16), KNOWN["3.11"].as_tuple())
        time.sleep(0.3)
    sampler.stop()

    assert sampler.take() == ((b"",) * 7, [], [], 0)


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
