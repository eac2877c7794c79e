"""The loop while its target exits, execs, or restarts its workers."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from perfkit.agent import loop
from perfkit.agent.loop import Recording
from perfkit.agent.target import resolve
from perfkit.errors import TargetError
from perfkit.host import Host
from perfkit.model import Collector, Item, Kind, Metric, Reading, Target, polled

Spawn = Callable[..., "subprocess.Popen[str]"]
BEATS = Metric("beats_total", Kind.COUNTER, "", source="test", help="Polls so far.")


def beat(host: Host, target: Target) -> Iterator[Item]:
    """One reading."""
    yield Reading(BEATS.name, (), 1.0)


BEAT = Collector("test", (BEATS,), (), "host", 0.1, 0.05, polled(beat))

SLEEPER = """
import os, subprocess, sys
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "restart":
        subprocess.Popen(["sleep", "60"]); os._exit(0)
    if line.strip() == "exec":
        os.execvp("sleep", ["sleep", "60"])
"""


def run_on(child: subprocess.Popen[str], after_s: float, act: Callable[[], object]) -> Recording:
    """Records a child for two seconds while something happens to it."""
    host = Host()
    target = resolve(host, child.pid, only_pid=False, own_pid=-1)
    timer = threading.Timer(after_s, act)
    timer.start()
    recording = loop.run(host, target, [BEAT], 2.0, stop=threading.Event(), progress=None)
    timer.join()
    return recording


@pytest.mark.system
def test_target_that_goes_ends_the_window(spawn: Spawn) -> None:
    """When the last process of the target has gone, what was recorded so far is kept."""
    child = spawn(SLEEPER)

    recording = run_on(child, 0.5, child.kill)

    assert recording.gone_ns is not None
    gone_after_ns = recording.gone_ns - recording.clock.start_ns
    assert 0.5e9 < gone_after_ns < 1.2e9
    assert recording.interrupted == f"target gone after {gone_after_ns / 1e9:.1f} of 2 s"
    assert recording.statuses[0].state == "ok"


@pytest.mark.system
def test_target_that_execs_is_still_there(spawn: Spawn) -> None:
    """A process that turns into another program is the same target."""
    child = spawn(SLEEPER)

    recording = run_on(child, 0.5, lambda: tell(child, "exec"))

    assert (recording.gone_ns, recording.interrupted) == (None, "")


def tell(child: subprocess.Popen[str], word: str) -> None:
    """Writes one line to a child."""
    assert child.stdin is not None
    child.stdin.write(word + "\n")
    child.stdin.flush()


PARENT = """
import subprocess, sys, time
one = lambda: subprocess.Popen(["sleep", "60"])
child = one()
print("ready", flush=True)
for line in sys.stdin:
    fresh = one(); time.sleep(1.2); child.kill(); child.wait(); sys.stdin.close(); break
import os; os._exit(0)
"""


@pytest.mark.system
def test_target_lives_on_in_its_restarted_workers(spawn: Spawn) -> None:
    """A worker that came in the window keeps the target alive when all others have gone."""
    child = spawn(PARENT)

    recording = run_on(child, 0.1, lambda: tell(child, "restart"))

    assert (recording.gone_ns, recording.interrupted) == (None, "")


@pytest.mark.system
def test_target_that_died_before_the_window_is_an_error(spawn: Spawn) -> None:
    """Nothing was measured when the target had gone before the window began."""
    child = spawn(SLEEPER)
    target = resolve(Host(), child.pid, only_pid=False, own_pid=-1)
    child.kill()
    child.wait()

    with pytest.raises(TargetError, match="exited before anything was measured") as caught:
        loop.run(Host(), target, [], 1.0, stop=threading.Event())

    assert caught.value.fix.startswith("name a process that lives on")
