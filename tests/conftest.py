"""Shared fixtures. No test may leave a thread or a child process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from measuring import alone

from perfkit import allowance
from perfkit.collectors import sockets, threads
from perfkit.host import Host

TREES = Path(__file__).parent / "host"
GRACE_S = 2.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the one way in which golden text changes."""
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")


def pytest_configure() -> None:
    """Lets Ctrl-C through to the programs under test, also where a shell has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keeps other measurements waiting where live matrices are about to run."""
    is_run = not session.config.option.collectonly
    if is_run and any(item.get_closest_marker("slow") for item in session.items):
        measuring = ExitStack()
        session.config.add_cleanup(measuring.close)
        measuring.enter_context(alone())


def _descendants() -> set[int]:
    """The processes below this one; read thousands of times a run, so by the kernel's lists."""
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return {child.pid for child in psutil.Process().children(recursive=True)}
    found, open_pids = set[int](), [os.getpid()]
    while open_pids:
        words: list[str] = []
        for task in Path(f"/proc/{open_pids.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                words += task.read_text().split()
        open_pids += [int(word) for word in words]
        found |= {int(word) for word in words}
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "that has just ended"


def _left_over(threads: set[threading.Thread], children: set[int]) -> list[str]:
    """What lives now and did not live before the test."""
    late = [f"child {pid} {_name(pid)}" for pid in sorted(_descendants() - children)]
    return late + [f"thread {t.name}" for t in threading.enumerate() if t not in threads]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Fails a test that leaves a thread or a child process."""
    threads = set(threading.enumerate())
    children = _descendants()
    yield
    deadline = time.monotonic() + GRACE_S
    while (left := _left_over(threads, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"the test left behind: {left}"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with a golden file, or writes it with --update-golden."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; write it with pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def tree() -> Callable[[str], Host]:
    """Gives the host of a fixture tree, with a clock that stands still."""

    def open_tree(name: str) -> Host:
        return Host(TREES / name / "proc", TREES / name / "sys", lambda: 1_000_000_000)

    return open_tree


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python programs, waits for the first line that each prints, and ends them all."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(child)
        assert child.stdout is not None
        child.first_line = child.stdout.readline().strip()  # type: ignore[attr-defined]
        return child

    yield start
    for child in started:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    """Ends a child and everything that it started in its session."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()
    for stream in (child.stdin, child.stdout):
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):
            stream.close()
    child.wait()


@pytest.fixture
def needs_root() -> None:
    """Skips a test that only root can run."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def full_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets threads and sockets be sampled at their full rates, however slow the machine is.

    How right a count or a share can be at the most is asked of these; a slow machine pays for less.
    """
    plenty = allowance.Want(start_ratio=0.04, ratio_min=0.04, ratio_max=0.06, weight=5)
    monkeypatch.setattr(allowance, "WHOLE_RATIO", 0.15)
    monkeypatch.setattr(threads, "WANT", plenty)
    monkeypatch.setattr(sockets, "WANT", plenty)
