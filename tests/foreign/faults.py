"""Faults in and around a server: each is switched on, and undone when the block is left.

From outside: a CPU quota, a neighbour, a binding to one CPU. From inside: a slow peer and a hot
handler, each as one of several alike, as beginning within the window, and as constant.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from foreign.lab import Lab
from perfkit.demo import cgroups

BURN = "while True: pass"
FORMS = ("one_of", "midway", "constant")
MIDWAY_S = 4.5
# The scheduler favours who seldom runs: a server that is mostly idle needs many beside it to wait.
BOUND_BURNERS = 16
BURNERS_PER_CPU = 4
SETTLE_S = 2.5
FAULTS = ("none", "quota", "neighbour", "affinity", "slow_peer", "hot_handler")
CAUSES = {
    "quota": "cpu_throttled",
    "neighbour": "cpu_contention_neighbour",
    "affinity": "cpu_affinity",
    "slow_peer": "downstream_slow",
    "hot_handler": "hot_function",
}


class Truth(Struct, frozen=True):
    """What is wrong: the cause, and texts (| between) of which the culprit's name holds one."""

    cause: str
    culprit: str


class Plan(Struct, frozen=True):
    """One run's fault; `begin` is called `MIDWAY_S` into the window where the form says so."""

    truth: Truth
    begin: Callable[[], None]
    is_midway: bool = False


@contextmanager
def inject(lab: Lab, fault: str, form: str, seed: int) -> Iterator[Plan]:
    """Switches a fault on; one that begins midway is only made ready."""
    strength = random.Random(f"{fault} {seed}").uniform(0.85, 1.25)
    with ExitStack() as stack:
        if fault == "none":
            yield Plan(Truth("", ""), lambda: None)
            return
        maker = _MAKERS[fault]
        plan = maker(lab, stack, form, strength)
        if not plan.is_midway:
            plan.begin()
            time.sleep(SETTLE_S)
        yield plan


def _quota(lab: Lab, stack: ExitStack, form: str, strength: float) -> Plan:
    used = _cpu_share(lab)
    home = cgroups.own_group(os.getpid())
    group = cgroups.make_child_group(home, f"batch-{os.getpid()}")
    stack.callback(cgroups.remove_group, group)
    for pid in lab.server_pids():
        cgroups.enter(group, pid)
        stack.callback(_leave, home, pid)
    quota_us = int(100_000 * used * 0.95 / strength)
    return Plan(
        Truth("cpu_throttled", group.folder.name), lambda: cgroups.set_quota(group, quota_us)
    )


def _neighbour(lab: Lab, stack: ExitStack, form: str, strength: float) -> Plan:
    home = cgroups.own_group(os.getpid())
    group = cgroups.make_child_group(home, f"batch-{os.getpid()}")
    stack.callback(cgroups.remove_group, group)
    cgroups.set_weight(group, 2.0 * strength)

    def begin() -> None:
        for _ in range(BURNERS_PER_CPU * (os.cpu_count() or 1)):
            cgroups.enter(group, _burn(stack))

    return Plan(Truth("cpu_contention_neighbour", group.folder.name), begin)


def _affinity(lab: Lab, stack: ExitStack, form: str, strength: float) -> Plan:
    cpu = min(os.sched_getaffinity(0))

    def begin() -> None:
        for pid in [*lab.server_pids(), *(_burn(stack) for _ in range(BOUND_BURNERS))]:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {cpu})

    return Plan(Truth("cpu_affinity", f"CPU {cpu}"), begin)


def _slow_peer(lab: Lab, stack: ExitStack, form: str, strength: float) -> Plan:
    chosen = random.Random(strength).randrange(len(lab.peer_controls))

    def begin() -> None:
        lab.peer_controls[chosen].write_text(str(25 * strength))

    truth = Truth("downstream_slow", f":{lab.peer_ports[chosen]}")
    return Plan(truth, begin, form == "midway")


def _hot_handler(lab: Lab, stack: ExitStack, form: str, strength: float) -> Plan:
    if lab.server == "redis":
        truth = Truth("hot_function", "lookupKeyByPattern|sortCommandGeneric")

        def set_share(share: float) -> None:
            assert lab.load.stdin is not None
            lab.load.stdin.write(f"{share}\n")
            lab.load.stdin.flush()

        return Plan(truth, lambda: set_share(0.03 * strength), form == "midway")
    names = ("search", "suggest", "related", "history")
    chosen = names[:1] if form == "one_of" else names
    extra = dict.fromkeys(chosen, (40 if form == "one_of" else 13) * strength)
    truth = Truth("hot_function", "normalise_titles")
    return Plan(truth, lambda: _write(lab.control, json.dumps(extra)), form == "midway")


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


_MAKERS = {
    "quota": _quota,
    "neighbour": _neighbour,
    "affinity": _affinity,
    "slow_peer": _slow_peer,
    "hot_handler": _hot_handler,
}


def begin_midway(plan: Plan) -> threading.Timer:
    """Has the fault begin within the window that starts about now."""
    timer = threading.Timer(MIDWAY_S, plan.begin)
    timer.start()
    return timer


def _burn(stack: ExitStack) -> int:
    process = subprocess.Popen([sys.executable, "-c", BURN])
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process.pid


def _leave(home: cgroups.Group, pid: int) -> None:
    try:
        cgroups.enter(home, pid)
    except OSError:
        return


def _cpu_share(lab: Lab, seconds: float = 3.0) -> float:
    """How much of one core the server uses now."""
    before, start = _cpu_s(lab), time.monotonic()
    time.sleep(seconds)
    return (_cpu_s(lab) - before) / (time.monotonic() - start)


def _cpu_s(lab: Lab) -> float:
    ticks = 0
    for pid in lab.server_pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
