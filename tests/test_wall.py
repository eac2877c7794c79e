"""Stacks of blocked threads, taken by the thread sampler in passing, out of a small budget."""

from __future__ import annotations

import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import build, running
from unwinding import NOUNS

from perfkit import _native
from perfkit.agent.target import resolve
from perfkit.collectors.threads import COLLECTOR
from perfkit.host import Host
from perfkit.model import Row, Rows

FOLDER = Path(__file__).parent / "native"
NATIVE = Path(__file__).parents[1] / "native"
COLUMNS = (
    "t_ns", "pid", "tid", "moved_ns", "stack", "weight_ns", "end", "python_stack", "is_exact",
)  # fmt: skip
PARTS = (*NOUNS, "walk", "guess", "unwind", "procfile", "remote", "ring", "process", "wait")
PYTHON_PARTS = ("pylayout", "pylist", "pyname", "pyprocess", "pystack", "pywalk")
LOOK_PARTS = (*PARTS, *PYTHON_PARTS, "nativestack", "look", "dump")
RESTLESS = """
import threading, time
def rest_a_moment():
    while True:
        time.sleep(0.011)
for _ in range(30):
    threading.Thread(target=rest_a_moment, daemon=True).start()
print("ready", flush=True)
input()
"""
Sample = dict[str, int]


def sample(pid: int, seconds: float, budget_ratio: float) -> tuple[list[Sample], dict[str, int]]:
    """The samples of some time, and what the sampler says of itself."""
    sampler = _native.ThreadSampler(
        "/proc", [pid], budget_ratio=0.05, wall_budget_ratio=budget_ratio
    )
    time.sleep(seconds)
    sampler.stop()
    columns = [array("q", column) for column in sampler.take()["wall_samples"][0]]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows, sampler.wall_status()


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The pid of the program with thirteen blocked threads."""
    program = build(FOLDER / "blocked.c", tmp_path_factory.mktemp("wall") / "blocked", "-O2", "-w")
    with running(str(program)) as (pid, _):
        yield pid


def test_many_threads_met_at_once_are_not_all_looked_at_in_one_tick() -> None:
    """Three hundred threads that stand still cost what is paid for, and a few first looks."""
    crowd = RESTLESS.replace("time.sleep(0.011)", "time.sleep(100)").replace("30", "300")
    with running(sys.executable, "-c", crowd) as (pid, _):
        _, status = sample(pid, 1.0, budget_ratio=0.0004)

    assert 0 < status["look_count"] < 60
    assert status["spent_ns"] < 4_000_000


def test_each_blocked_thread_has_its_time(blocked: int) -> None:
    """What the samples of an idle thread stand for adds up to the window, from few looks."""
    rows, status = sample(blocked, 1.0, budget_ratio=0.05)

    weights: Counter[int] = Counter()
    for row in rows:
        weights[row["tid"]] += row["weight_ns"]
    assert len(weights) == 14
    assert all(0.7e9 < weight < 1.3e9 for weight in weights.values())
    assert {(row["end"], row["is_exact"]) for row in rows} == {(0, 1)}
    assert status["look_count"] < 40


def test_budget_is_kept_and_weights_stay_true() -> None:
    """Threads that move all the time are drawn so rarely as is paid for, and counted for more."""
    with running(sys.executable, "-c", RESTLESS) as (pid, _):
        rows, status = sample(pid, 2.0, budget_ratio=0.004)

    assert status["passed_count"] > 3 * status["look_count"] > 0
    assert status["spent_ns"] < 0.004 * 2e9 + 6e6
    assert 0.6 < sum(row["weight_ns"] for row in rows) / (31 * 2e9) < 1.6


def test_program_that_executes_itself_is_followed(tmp_path: Path) -> None:
    """Mappings that change under the looks lead to no crash, and to whole stacks in the end."""
    program = build(FOLDER / "execing.c", tmp_path / "execing", "-O1")
    child = subprocess.Popen([program, "40"])
    try:
        rows, _ = sample(child.pid, 2.8, budget_ratio=0.2)
    finally:
        child.kill()
        child.wait()

    assert rows[-1]["end"] == 0
    assert {row["pid"] for row in rows} == {child.pid}


def test_collector_tells_both_kinds_of_stacks() -> None:
    """The tables refer to one another: objects, native stacks, Python functions, samples."""
    with running(sys.executable, "-c", RESTLESS) as (pid, _):
        target = resolve(Host(), pid, only_pid=True)
        session = COLLECTOR.open(Host(), target)
        time.sleep(0.7)
        items = [*session.poll(), *session.close()]

    found: dict[str, list[tuple[int | str, ...]]] = {}
    for item in items:
        match item:
            case Row(table, values):
                found.setdefault(table, []).append(values)
            case Rows(table, columns, count, _) if table.startswith("wall_") and count:
                lists = (array("q", column) for column in columns)
                found.setdefault(table, []).extend(zip(*lists, strict=True))
    stacks = {row[0] for row in found["wall_stacks"]}
    objects = {row[0] for row in found["wall_objects"]}
    told = {row[0] for row in found["wall_python_stacks"]}
    seen = [dict(zip(COLUMNS, row, strict=True)) for row in found["wall_samples"]]
    assert {row["stack"] for row in seen} - {-1} <= stacks
    assert {row[2] for row in found["wall_stacks"]} <= objects
    assert {row["python_stack"] for row in seen} - {-1} <= told
    assert "rest_a_moment" in {row[2] for row in found["wall_python_stacks"]}
    assert any(str(row[3]).endswith("libc.so.6") and row[4] for row in found["wall_objects"])


@pytest.mark.parametrize("call", ["take_stacks", "wall_status"])
def test_sampler_without_a_budget_takes_no_stacks(call: str) -> None:
    """Nothing is looked at that nobody asked for, and who asks is told why there is nothing."""
    sampler = _native.ThreadSampler("/proc", [])

    with pytest.raises(ValueError, match="wall_budget_ratio"):
        getattr(sampler, call)()


@pytest.mark.slow
def test_looks_survive_any_memory_under_sanitizers(tmp_path: Path) -> None:
    """Whatever stack pointers, stacks and interpreters hold, a look ends, and reads no more."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", f"-I{NATIVE}"]
    sources = [str(NATIVE / f"pk_{one}.c") for one in LOOK_PARTS]
    try:
        program = build(FOLDER / "fuzz_look.c", tmp_path / "fuzz", *flags, "-w", *sources)
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no -fsanitize=address,undefined")

    done = subprocess.run(
        [program, "42", "25"], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.returncode, done.stdout[:3]) == (0, "ok "), (done.stdout, done.stderr[-2000:])
