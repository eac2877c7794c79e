"""`perfkit dump`: what every thread does at this moment, on real programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs import build, running

from perfkit import _native
from perfkit.agent.dump import take_dump
from perfkit.cli.main import main
from perfkit.errors import TargetError
from perfkit.report.dumped import Group, Readable, read_dump
from perfkit.symbols.symbolizer import Symbolizer

FOLDER = Path(__file__).parent / "native"
PYTHONS = ("python3.11", "python3.12", "python3.13")
PLACES = {
    "wait_for_mutex": ("lock", r"waits for the lock at 0x[0-9a-f]+, held by \d+ \(blocked\)"),
    "wait_for_condition": ("condition", r"waits on the condition at 0x[0-9a-f]+"),
    "wait_for_semaphore": ("semaphore", r"waits for the semaphore at 0x[0-9a-f]+"),
    "wait_at_barrier": ("barrier", r"waits at the barrier at 0x[0-9a-f]+"),
    "wait_for_join": ("join", r"waits for \d+ \(blocked\) to end"),
    "wait_in_sleep": ("sleep", r"sleeps, [0-9.]+ s left"),
    "wait_for_pipe": ("read", r"reads from fd \d+ \(a pipe\)"),
    "wait_for_socket": ("read", r"reads from fd \d+ \(Unix socket\)"),
    "wait_for_accept": (
        "accept",
        r"waits for connections at fd \d+ \(listening at 127.0.0.1:\d+\)",
    ),
    "wait_in_epoll": ("epoll", r"waits for events of 1 descriptors in epoll \d+"),
    "wait_in_poll": ("poll", r"polls to read from fd \d+ \(Unix socket\)"),
    "wait_in_select": ("poll", r"polls to read from fd \d+ \(a pipe\)"),
    "wait_for_signal": ("signal", r"waits for a signal"),
}
# Threads of one interpreter in known functions; one of them always runs.
SERVICE = """
import queue, socket, threading, time
gate, jobs, pair = threading.Lock(), queue.Queue(), socket.socketpair()
def hold():
    with gate:
        time.sleep(1000)
def wait_for_lock():
    with gate:
        pass
def wait_for_job():
    jobs.get()
def wait_for_peer():
    pair[0].recv(1)
def wait_in_sleep():
    time.sleep(1000)
def wait_under_sort():  # C calls Python again
    sorted([1], key=lambda _: wait_in_sleep())
threading.Thread(target=hold, daemon=True).start()
time.sleep(0.1)
waits = wait_for_lock, wait_for_job, wait_for_job, wait_for_peer, wait_in_sleep, wait_under_sort
for one in waits:
    threading.Thread(target=one, daemon=True).start()
time.sleep(0.1)
print("ready", flush=True)
input()
"""
# A C function that keeps the interpreter's lock while it sleeps, as careless extensions do.
GREEDY = """
import ctypes, threading, time
library = ctypes.PyDLL(None)
def hold_lock():
    library.sleep(1000)
def want_lock():
    while True:
        sum(range(100))
for one in (want_lock, want_lock):
    threading.Thread(target=one, daemon=True).start()
time.sleep(0.1)
print("ready", flush=True)
time.sleep(0.1)
threading.Thread(target=hold_lock).start()
input()
"""


def find_python(name: str) -> str:
    """An interpreter of this version, or the test is skipped."""
    here = Path(sys.base_prefix).parent.glob(f"{name.removeprefix('python')}*/bin/{name}")
    found = next(map(str, here), None) or shutil.which(name)
    if found is None or subprocess.run([found, "-V"], check=False, capture_output=True).returncode:
        pytest.skip(f"{name} is not installed")
    return found


def look(pid: int, *, whole_service: bool = False) -> Readable:
    """A dump with names."""
    return read_dump(take_dump(pid, whole_service=whole_service), Symbolizer())


def group_of(readable: Readable, function: str) -> Group:
    """The group of threads that are in a function."""
    return next(
        group
        for group in readable.processes[0].groups
        if any(frame.function == function for frame in group.frames)
    )


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_dump(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; gives its exit code and what it wrote."""

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = main(["dump", *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The pid of the program with thirteen blocked threads."""
    program = build(
        FOLDER / "blocked.c", tmp_path_factory.mktemp("blocked") / "blocked", "-O2", "-w"
    )
    with running(str(program)) as (pid, _):
        yield pid


@pytest.fixture(scope="module")
def blocked_look(blocked: int) -> Readable:
    """One look at it."""
    return look(blocked)


@pytest.mark.parametrize("function", sorted(PLACES))
def test_thread_is_named_with_its_wait(function: str, blocked_look: Readable) -> None:
    """A thread that waits in a known function is found there, whole, and its wait is worded."""
    kind, words = PLACES[function]

    group = group_of(blocked_look, function)

    assert (group.kind, group.end, len(group.threads)) == (kind, "root", 1)
    assert re.fullmatch(words, group.waits[0][0])


def test_look_at_blocked_threads_is_exact(blocked_look: Readable) -> None:
    """Threads that sleep are told to have been as shown all at one moment."""
    [process] = blocked_look.processes

    assert len(process.facts.threads) == 14
    assert all(one.is_exact and one.is_still for one in process.facts.threads)


def test_nobody_is_stopped(blocked: int) -> None:
    """During a thousand looks no thread of the target is ever seen stopped or traced."""
    seen: set[str] = set()
    tasks = [path / "stat" for path in Path(f"/proc/{blocked}/task").iterdir()]
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for path in tasks:
                seen.add(path.read_text().rpartition(")")[2].split()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(40):  # each looks at 14 threads twice
        _native.dump_threads("/proc", blocked, 0, None, 64)
    ended.set()
    watcher.join()

    assert seen == {"S"}


@pytest.mark.parametrize("name", PYTHONS)
def test_python_frames_stand_where_they_belong(name: str) -> None:
    """Both kinds of frames of a blocked thread make one stack, exactly."""
    with running(find_python(name), "-c", SERVICE) as (pid, _):
        readable = look(pid)

    groups = {
        function: group_of(readable, function)
        for function in ("wait_for_lock", "wait_for_job", "wait_for_peer", "wait_under_sort")
    }
    assert {group.grade for group in groups.values()} == {"exact"}
    assert len(groups["wait_for_job"].threads) == 2
    kinds = {function: group.kind for function, group in groups.items()}
    assert kinds["wait_for_lock"] == kinds["wait_for_job"] == "python lock"
    assert (kinds["wait_for_peer"], kinds["wait_under_sort"]) == ("read", "sleep")
    names = [frame.function for frame in groups["wait_for_job"].frames if frame.is_python]
    assert names[:3] == ["Condition.wait", "Queue.get", "wait_for_job"]
    assert all(group.frames[0].place == "libc.so.6" for group in groups.values())


@pytest.mark.parametrize("name", PYTHONS)
def test_holder_of_the_interpreter_is_named(name: str) -> None:
    """Threads that wait for the GIL name the one that has it, even if that sleeps in C."""
    with running(find_python(name), "-c", GREEDY) as (pid, _):
        deadline = time.monotonic() + 5
        told = find_holder(look(pid))
        while not (told[0] >= 2 and told[1]) and time.monotonic() < deadline:
            time.sleep(0.1)
            told = find_holder(look(pid))

    assert told[0] >= 2
    assert told[1]


def find_holder(readable: Readable) -> tuple[int, bool]:
    """How many wait for the thread that most wait for, and whether it is where it has to be."""
    [process] = readable.processes
    if not process.holding:
        return 0, False
    tid, _, count = process.holding[0]
    frames = [
        frame.function
        for group in process.groups
        for frame in group.frames
        if any(one == tid for one, _ in group.threads)
    ]
    return count, "hold_lock" in frames


@pytest.mark.parametrize(("options", "count"), [((), 1), (("--service",), 2)])
def test_service_is_all_its_processes(options: tuple[str, ...], count: int) -> None:
    """With the whole service, children are looked at too; without, only the one named."""
    program = "import os,time\nos.fork()\nprint('ready', flush=True)\ntime.sleep(1000)"
    with running(sys.executable, "-c", program) as (pid, _):
        done = subprocess.run(  # on its own: what we started ourselves is no part of a service
            [sys.executable, "-m", "perfkit", "dump", "--pid", str(pid), "--json", *options],
            capture_output=True,
            check=False,
            timeout=60,
        )

    assert len(json.loads(done.stdout)["processes"]) == count


def test_process_that_is_gone_is_an_error_that_says_so() -> None:
    """There is nothing to look at, and the error names the process."""
    with running("sh", "-c", "echo ready; exec sleep 1000") as (pid, _):
        pass

    with pytest.raises(TargetError, match=str(pid)):
        take_dump(pid, whole_service=False)


def look_until_it_is_dead(pid: int) -> list[int]:
    """How many threads each look found; 0 where there was no such process any more."""
    counts = [14]
    deadline = time.monotonic() + 10
    while counts[-1] > 1 and time.monotonic() < deadline:
        try:
            counts.append(len(_native.dump_threads("/proc", pid, 0, None, 64)[0]))
        except ProcessLookupError:
            counts.append(0)
    return counts


@pytest.mark.parametrize("delay_s", [0.005, 0.008, 0.011, 0.02])
def test_process_that_dies_meanwhile_is_no_crash(delay_s: float, tmp_path: Path) -> None:
    """Looks at a process that is ended under them give what there is; a zombie has one thread."""
    program = build(FOLDER / "blocked.c", tmp_path / "blocked", "-O2", "-w")
    with running(str(program)) as (pid, _):
        killer = threading.Timer(delay_s, os.kill, (pid, signal.SIGKILL))
        killer.start()
        counts = look_until_it_is_dead(pid)
        killer.join()

    assert counts[-1] <= 1
    assert max(counts) == 14


def test_without_permission_it_says_what_is_missing() -> None:
    """Another user's process is shown by what is open to all, with the right for the rest."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    program = (
        "import perfkit.agent.dump as a, sys, msgspec\n"
        "print(msgspec.json.encode(a.take_dump(int(sys.argv[1]), whole_service=False)).decode())"
    )
    with running("sh", "-c", "echo ready; exec sleep 1000") as (pid, _):
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
             sys.executable, "-c", program, str(pid)],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    if "Permission denied" in done.stderr:
        pytest.skip("this user may not read the interpreter")

    [process] = json.loads(done.stdout)["processes"]
    [thread] = process["threads"]
    assert (thread["syscall"], thread["stack"], thread["state_letter"]) == (-3, -1, "S")
    assert "CAP_SYS_PTRACE" in process["problems"][0]["grant"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_text_fits_the_width(width: int, blocked: int, run_dump: Run) -> None:
    """No line is wider than the terminal, and the places stand in it."""
    code, out, _ = run_dump(".", "--pid", str(blocked), COLUMNS=str(width))

    lines = out.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= width
    assert sum("wait_for_semaphore" in line for line in lines) == 1


def test_json_has_facts_and_words(blocked: int, run_dump: Run) -> None:
    """One document holds what was read, and what is made of it."""
    _, out, _ = run_dump("--pid", str(blocked), "--json")

    told = json.loads(out)
    [process] = told["processes"]
    assert (told["schema"], len(process["threads"])) == ("perfkit.dump/1", 14)
    assert {"lock", "sleep", "epoll"} <= {group["kind"] for group in process["groups"]}


def test_names_of_the_target_are_escaped(run_dump: Run) -> None:
    """A thread that is named with escape codes does not reach the terminal with them."""
    program = (
        "import ctypes, time\n"
        "ctypes.CDLL(None).prctl(15, b'\\x1b[31mred')\n"
        "print('ready', flush=True)\ntime.sleep(1000)"
    )
    with running(sys.executable, "-c", program) as (pid, _):
        _, out, _ = run_dump("--pid", str(pid))

    assert "\\x1b[31mred" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("arguments", [(), ("host-1", "--pid", "1")])
def test_what_cannot_be_dumped_is_refused(arguments: tuple[str, ...], run_dump: Run) -> None:
    """A missing pid, and another host, are errors of the command line, with a way on."""
    code, _, err = run_dump(*arguments)

    assert (code, "perfkit dump . --pid N" in err) == (2, True)
