"""Native stacks sampled of real programs, whose functions, shares and waits are known."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from elf_programs import needs
from elf_programs import run as compile_with
from programs import build, running
from unwinding import FOLDER

from perfkit._native import NativeSampler
from perfkit.agent.target import resolve
from perfkit.collectors.native_stacks import COLLECTOR
from perfkit.host import Host, StackWish
from perfkit.model import Row, Rows

pytestmark = pytest.mark.system

MILLISECOND_NS = 1_000_000
FAST = {"interval_ns": MILLISECOND_NS, "budget_ratio": 1.0}
PYTHON = "import json\nprint(flush=True)\nwhile True: json.loads(json.dumps({'a': [1, {'b': 2}]}))"
READS_ZEROS = """
piece = bytearray(1 << 20)
print(flush=True)
while True: open("/dev/zero", "rb", 0).readinto(piece)
"""
NAPS = """
import sys, time
print(flush=True)
sys.stdin.readline()
for _ in range(23): time.sleep(0.011)
print(flush=True)
sys.stdin.readline()
"""
BEGETS = "echo; while :; do head -c 60000000 /dev/zero | sha1sum > /dev/null; done"
MANY_MAPPINGS = """
import mmap
kept = []
for _ in range(12_000):
    kept.append(mmap.mmap(-1, 8192, prot=mmap.PROT_READ | mmap.PROT_EXEC))
    kept.append(mmap.mmap(-1, 4096, prot=mmap.PROT_READ))
print(flush=True)
while True: sum(range(1000))
"""
AS_NOBODY = """
import os, sys, time
from perfkit.agent.target import resolve
from perfkit.collectors._proc import read_cpu_ns
from perfkit.collectors.native_stacks import COLLECTOR
from perfkit.errors import Unavailable
from perfkit.host import Host
os.setgroups([]); os.setgid(65534); os.setuid(65534)
child = os.getppid()
if sys.argv[1:]:
    silent = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], {}, file_actions=silent)
try:
    session = COLLECTOR.open(Host(), resolve(Host(), child, only_pid=True))
    begin_ns = read_cpu_ns(Host(), child)
    time.sleep(0.7)
    ran_s = (read_cpu_ns(Host(), child) - begin_ns) / 1e9
    told = sum(item.row_count for item in session.close() if "samples" in item.table)
    print(told, ran_s, session.rate().note)
except Unavailable as absent:
    print(absent.reason, absent.grant)
if sys.argv[1:]: os.kill(child, 9)
"""


class Frame(msgspec.Struct, frozen=True):
    """One frame of a stack."""

    kind: int
    path: str
    offset: int
    flags: int


class Sample(msgspec.Struct, frozen=True):
    """One row of samples with its stack, leaf first."""

    t_ns: int
    pid: int
    tid: int
    cpu: int
    kind: int
    stack: tuple[Frame, ...]
    weight_ns: int
    end: int
    is_open: int


class Watched:
    """A sampler, and the stacks and objects that it has told of so far."""

    def __init__(self, sampler: NativeSampler) -> None:
        self.sampler = sampler
        self._stacks: dict[int, list[Frame]] = {-1: []}
        self._objects: list[tuple[int, int, bytes, str]] = []

    def take(self) -> list[Sample]:
        """What is new."""
        rows, frames, objects, _ = self.sampler.take()
        self._objects += objects
        for stack, _, number, offset, flags in zip(*map(to_numbers, frames), strict=True):
            _, kind, path, _ = self._objects[number]
            frame = Frame(kind, os.fsdecode(path), offset, flags)
            self._stacks.setdefault(stack, []).append(frame)
        return [
            Sample(*row[:5], tuple(self._stacks[row[5]]), *row[6:])
            for row in zip(*map(to_numbers, rows), strict=True)
        ]

    def watch(self, seconds: float) -> list[Sample]:
        """What is new after a while, when it has ended."""
        time.sleep(seconds)
        assert self.sampler.stop()
        return self.take()


Start = Callable[..., Watched]


@pytest.fixture
def sampler() -> Iterator[Start]:
    """Starts samplers, which are stopped at the end; skips where the kernel refuses."""
    started: list[NativeSampler] = []

    def start(pids: list[int] | None, proc: str = "/proc", **options: Any) -> Watched:
        try:
            started.append(NativeSampler(proc, **options))
        except OSError as refused:
            pytest.skip(f"perf_event_open: {refused}")
        started[-1].set_wanted(pids)
        return Watched(started[-1])

    yield start
    for one in started:
        one.stop()


def to_numbers(column: bytes) -> array[int]:
    """A packed column."""
    return array("q", column)


def to_offsets(pid: int, words: list[str]) -> dict[str, range]:
    """Where functions lie in the program's file, of "name begin end name ..."."""
    maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    code = next(row for row in maps if "x" in row[1] and row[4] != "0")
    shift = int(code[2], 16) - int(code[0].partition("-")[0], 16)
    return {
        name: range(int(begin, 16) + shift, int(end, 16) + shift)
        for name, begin, end in zip(words[::3], words[1::3], words[2::3], strict=True)
    }


def to_root_ratio(samples: list[Sample]) -> float:
    """The share of stacks that reach the root."""
    return sum(one.end == 0 for one in samples) / max(len(samples), 1)


@pytest.fixture(scope="module")
def burner(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program whose functions take known shares."""
    folder = tmp_path_factory.mktemp("burner")
    return str(build(FOLDER / "burn_shares.c", folder / "burn", "-O2", "-fomit-frame-pointer"))


def test_functions_get_the_shares_that_they_take(burner: str, sampler: Start) -> None:
    """60, 30 and 10 % come out within 3 points, and weights add up to the CPU time."""
    with running(burner) as (pid, words):
        offsets = to_offsets(pid, words)
        samples = sampler([pid], **FAST).watch(2.5)
        used_s = sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) / 100

    counts = {
        name: sum(any(frame.offset in place for frame in one.stack) for one in samples)
        for name, place in offsets.items()
    }
    whole = sum(counts.values())
    assert [count / whole for count in counts.values()] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    assert whole >= 0.98 * len(samples) > 300
    assert sum(one.weight_ns for one in samples) / 1e9 == pytest.approx(used_s, abs=0.15 * used_s)


def test_stacks_of_python_reach_the_root(sampler: Start) -> None:
    """The interpreter has no frame pointers, and yet its stacks are whole."""
    with running(sys.executable, "-c", PYTHON) as (pid, _):
        samples = sampler([pid], **FAST).watch(0.6)

    assert to_root_ratio(samples) >= 0.99
    assert len(samples) > 100 and min(len(one.stack) for one in samples) >= 4


def test_stacks_of_cplusplus_reach_the_root(tmp_path: Path, sampler: Start) -> None:
    """Callbacks, exceptions and the standard library, without frame pointers."""
    needs("g++")
    program = tmp_path / "busy"
    compile_with("g++", "-O2", "-fomit-frame-pointer", "-o", program, FOLDER / "busy.cc")

    with running(str(program)) as (pid, _):
        samples = sampler([pid], **FAST).watch(0.6)

    assert to_root_ratio(samples) >= 0.99
    assert len(samples) > 100
    assert any("libstdc++" in frame.path for one in samples for frame in one.stack)


def test_kernel_frames_come_before_those_of_the_program(
    sampler: Start,
) -> None:
    """Time in a system call is charged to the kernel's functions and to who called."""
    with running(sys.executable, "-c", READS_ZEROS) as (pid, _):
        samples = sampler([pid], **FAST).watch(0.6)

    in_kernel = [one for one in samples if one.stack and one.stack[0].kind == 2]
    assert len(in_kernel) > 0.5 * len(samples) > 50
    assert to_root_ratio(in_kernel) >= 0.99
    kinds = [[frame.kind for frame in one.stack] for one in in_kernel]
    assert all(one == sorted(one, key=lambda kind: kind != 2) for one in kinds)
    assert sum(len(set(one)) > 1 for one in kinds) >= 0.95 * len(kinds)
    assert all(frame.offset < 0 for one in in_kernel for frame in one.stack if frame.kind == 2)


def test_waits_have_their_lengths_and_stacks(sampler: Start) -> None:
    """23 sleeps of 11 ms are 23 waits of that length; one that goes on is said to be open."""
    with running(sys.executable, "-c", NAPS) as (pid, _):
        time.sleep(0.2)  # until it waits for us
        one = sampler([pid], has_switches=True, budget_ratio=1.0, threads=[pid])
        time.sleep(0.05)
        os.kill(pid, signal.SIGCONT)
        with open(f"/proc/{pid}/fd/0", "w") as standard_input:
            standard_input.write("go\n")
        samples = one.watch(0.7)

    waits = [each for each in samples if each.kind == 1]
    # Another program's turn on the CPU makes a nap shorter that it comes before, and longer after.
    naps = [each for each in waits if 5e6 <= each.weight_ns < 100e6]
    assert len(naps) == 23
    assert sum(11e6 <= each.weight_ns < 20e6 for each in naps) > 15
    assert [each.is_open for each in waits].count(1) == 1
    assert waits[-1].is_open and 0.2e9 < waits[-1].weight_ns < 0.6e9
    assert to_root_ratio(waits) == 1.0
    assert all(len(each.stack) > 8 for each in waits)


def test_children_are_sampled_though_they_live_for_a_moment(
    sampler: Start,
) -> None:
    """What a wanted process begets, and what that executes, has stacks of its own program."""
    with running("/bin/sh", "-c", BEGETS) as (pid, _):
        one = sampler([pid], **FAST)
        samples = one.watch(0.9)

    heirs = [each for each in samples if each.pid != pid]
    pids = {each.pid for each in heirs}
    assert len(pids) >= 3
    assert to_root_ratio(samples) >= 0.98
    assert any("sha1sum" in frame.path for each in heirs for frame in each.stack)
    # Most inherit their parent's mappings; a record that comes late has them read.
    assert one.sampler.status()["map_read_count"] <= max(5, len(pids) // 2)


def test_others_are_counted_and_get_no_stack(burner: str, sampler: Start) -> None:
    """Who is not wanted costs next to nothing, and can be wanted later on."""
    with running(burner) as (pid, _):
        one = sampler([], **FAST)
        time.sleep(0.3)
        before = one.take()
        counted = one.sampler.status()["other_count"]
        one.sampler.set_wanted([pid])
        samples = one.watch(0.5)

    assert before == [] and counted > 50
    assert {each.pid for each in samples} == {pid}


def test_many_mappings_are_survived(sampler: Start) -> None:
    """What finds no room is counted, and the sampler goes on."""
    with running(sys.executable, "-c", MANY_MAPPINGS) as (pid, _):
        one = sampler([pid], **FAST)
        samples = one.watch(0.4)

    assert len(samples) > 100
    assert one.sampler.status()["dropped_mapping_count"] > 1000


def test_budget_makes_samples_rarer(burner: str, sampler: Start) -> None:
    """Where the wanted rate costs too much it falls, and each sample stands for more."""
    with running(burner) as (pid, _):
        one = sampler([pid], interval_ns=100_000, budget_ratio=0.002)
        time.sleep(1.6)
        before = one.sampler.status()
        one.take()
        samples = one.watch(1.6)
        after = one.sampler.status()

    spent_ns = after["spent_ns"] - before["spent_ns"]
    assert spent_ns < 0.004 * (after["last_tick_ns"] - before["last_tick_ns"])
    assert after["interval_ns"] > 2.5 * 100_000
    assert min(each.weight_ns for each in samples) > 2.5 * 90_000


def test_switches_are_given_up_where_there_are_too_many(
    sampler: Start,
) -> None:
    """Above 10,000 a second they cost too much, which is said."""
    talk = "import os, sys\na, b = os.pipe(), os.pipe()\nprint(flush=True)\n"
    talk += "if os.fork():\n while os.write(a[1], b'x'): os.read(b[0], 1)\n"
    talk += "while os.read(a[0], 1): os.write(b[1], b'x')"
    with running(sys.executable, "-c", talk) as (pid, _):
        one = sampler([pid], has_switches=True, budget_ratio=1.0)
        time.sleep(0.6)
        first = one.sampler.status()
        time.sleep(0.2)
        second = one.sampler.status()

    assert first["is_stepped_down"] == 1
    assert second["switch_count"] == first["switch_count"]


def test_file_that_never_answers_does_not_hold_up_the_end(
    burner: str, tmp_path: Path, sampler: Start
) -> None:
    """A sampler whose read hangs is left behind in time."""
    with running(burner) as (pid, _):
        (tmp_path / str(pid)).mkdir()
        os.mkfifo(tmp_path / str(pid) / "maps")
        one = sampler([pid], proc=str(tmp_path), **FAST)
        time.sleep(0.3)
        begin_s = time.monotonic()
        has_ended = one.sampler.stop()
        took_s = time.monotonic() - begin_s
        os.close(os.open(tmp_path / str(pid) / "maps", os.O_WRONLY | os.O_NONBLOCK))

    assert (has_ended, one.sampler.status()["is_abandoned"]) == (False, 1)
    assert took_s < 0.6


@pytest.mark.parametrize("has_switches", [False, True])
def test_collector_fills_its_tables(burner: str, *, has_switches: bool) -> None:
    """Samples refer to stacks, and these to objects, of which files have their build-id."""
    host = Host(stacks=StackWish(has_switches=has_switches))
    with running(burner) as (pid, _):
        session = COLLECTOR.open(host, resolve(host, pid, only_pid=True))
        time.sleep(0.5)
        items = [*session.poll(), *session.close()]

    objects = [item.values for item in items if isinstance(item, Row)]
    assert objects[0] == (0, 0, "kernel", "[kernel]", "")
    assert next(one[4] for one in objects if one[3] == burner)
    packed = {
        name: [item for item in items if isinstance(item, Rows) and item.table == name]
        for name in ("native_stacks", "native_samples")
    }
    assert all(sum(item.row_count for item in found) > 5 for found in packed.values())
    assert {item.texts for item in packed["native_samples"]} == {("cpu", "off", "preempted")}


def run_as_nobody(*words: str) -> str:
    """What a user without rights reads."""
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *words], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.usefixtures("needs_root")
def test_own_processes_are_sampled_without_rights() -> None:
    """Where the host is refused, the service's own threads are sampled, and it is said."""
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) not in (1, 2):
        pytest.skip("kernel.perf_event_paranoid grants more or less than usual")
    needs("sha1sum")
    program = shutil.which("sha1sum")

    told = run_as_nobody(str(program), "/dev/zero")

    count, ran_s, note = told.split(" ", 2)
    assert int(count) > 0.6 * StackWish().rate_hertz * float(ran_s) > 1
    assert "only threads of the service" in note and "CAP_PERFMON" in note


@pytest.mark.usefixtures("needs_root")
def test_processes_of_others_are_refused_with_the_grant() -> None:
    """What nobody lets us see is unavailable, and the line says what would help."""
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) < 1:
        pytest.skip("kernel.perf_event_paranoid grants everything")

    told = run_as_nobody()

    assert told.startswith("perf_event_open: permission denied CAP_PERFMON and CAP_SYS_PTRACE")


def test_refusal_is_an_error_with_its_number() -> None:
    """A thread that is gone cannot be sampled, and odd options are none."""
    with pytest.raises(OSError, match="No such process"):
        NativeSampler("/proc", is_host_wide=False, threads=[2**22 - 1])
    with pytest.raises(ValueError, match="stack_bytes"):
        NativeSampler("/proc", stack_bytes=12)
