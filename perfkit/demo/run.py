"""One run of the demo: start, warm up, switch the fault on, see latency move, look, undo."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from perfkit import discover
from perfkit.demo import cgroups, look
from perfkit.demo.injection import Healthy, Injection, Prepare, Start
from perfkit.demo.latency import Latency, describe, has_moved, ratios
from perfkit.demo.options import FAULTS, Plan, WorldOptions
from perfkit.demo.world import DemoError, World, service_cpu_ns, start_world

HEALTHY_COUNT = 20
HEALTHY_TIMEOUT_S = 20.0
SETTLE_S = 1.0
WINDOW_S = 3.0
MOVED_TIMEOUT_S = 15.0
STEP_S = 0.25
# The load reports four times a second; a window is read when its last report has come.
REPORT_LAG_S = 0.3
PROGRESS_S = 5.0


class Stopped(BaseException):
    """A signal asks the demo to end; everything is undone on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def say(text: str) -> None:
    """Writes one line of progress."""
    sys.stderr.write(f"demo: {text}\n")
    sys.stderr.flush()


@contextmanager
def stopping_by_signal() -> Iterator[None]:
    """Turns signals into `Stopped`, once: what follows them is the orderly end."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pick_fault(asked: str | None) -> str:
    """The fault asked for; by default the one that most machines allow. Raises `DemoError`."""
    is_root = os.geteuid() == 0
    if asked is None:
        return "cpu_throttled" if is_root and cgroups.can_limit() else "gil_contention"
    if asked != "none" and discover.load(FAULTS, asked, "NEEDS_ROOT") and not is_root:
        others = [name for name in discover.names(FAULTS) if name != asked]
        fix = f"run as root, or choose one of none, {', '.join(others)}"
        raise DemoError(f"the fault {asked} needs root", fix=fix)
    return asked


def run(options: WorldOptions, plan: Plan) -> int:
    """Runs the demo. The exit code is that of the command run, 1 where latency did not move."""
    with stopping_by_signal():
        try:
            plan = msgspec.structs.replace(plan, fault=pick_fault(plan.fault))
            with ExitStack() as stack:
                stack.callback(say, "all processes are stopped, nothing is left behind")
                return _run_in(stack, prepare(options, plan.fault or "none"), plan)
        except Stopped as stopped:
            return 128 + stopped.number


def prepare(options: WorldOptions, fault: str) -> WorldOptions:
    """The world that a fault needs to show what it does: most take it as it is."""
    if fault == "none":
        return options
    needs: Prepare | None = discover.find(FAULTS, fault, "prepare")
    return needs(options) if needs else options


def _run_in(stack: ExitStack, options: WorldOptions, plan: Plan) -> int:
    front, load = options.service.front, options.load
    rate = f"{load.rate_hertz:.0f} requests/s, {load.arrivals}"
    rate = rate if load.loop == "open" else f"{load.connection_count} clients in a closed loop"
    say(f"starting 4 shards, the service (front: {front}) and its load ({rate})")
    world = start_world(options, stack)
    wait_healthy(world)
    say(f"service pid {world.service.pid} answers on 127.0.0.1:{world.service_port}; warming up")
    before, cpu_ratio = measure_healthy(world, plan.warm_up_s)
    say(f"healthy: {describe(before)}  service uses {cpu_ratio * 100:.0f} % of one core")
    state = State(world, plan, before)
    state.write("healthy")
    moved = True
    if plan.fault and plan.fault != "none":
        start: Start = discover.load(FAULTS, plan.fault, "start")
        on_ns = time.monotonic_ns()
        injection = start(world, Healthy(needed_cpu_ratio(world, before, cpu_ratio)))
        stack.callback(injection.undo)
        say(f"fault {plan.fault} on: {injection.text}")
        after = wait_mild(world) if options.mild else wait_moved(world, before, on_ns)
        moved = options.mild or has_moved(before, after)
        say(describe_move(before, after, has_moved(before, after)))
        state.fault_on(injection, after, moved)
    exit_code = _look(world, plan)
    return exit_code or int(not moved)


def _look(world: World, plan: Plan) -> int:
    if plan.diagnose:
        return look.diagnose(world.service.pid, Path(plan.out), say)
    if plan.exec:
        return look.run_command(shlex.split(plan.exec.replace("{pid}", str(world.service.pid))))
    hold(world, plan.seconds)
    return 0


def wait_healthy(world: World) -> None:
    """Waits until enough requests were answered without an error. Raises `DemoError`."""
    end_s = time.monotonic() + HEALTHY_TIMEOUT_S
    while time.monotonic() < end_s:
        if sum(one.ok for one in world.watch.asked()) >= HEALTHY_COUNT:
            return
        check_running(world)
        time.sleep(STEP_S)
    raise DemoError(f"the service did not answer {HEALTHY_COUNT} requests in time")


def check_running(world: World) -> None:
    """Raises `DemoError` when a part of the world has ended."""
    for child in (world.service, world.load, *world.shards):
        if not child.is_running():
            raise DemoError(f"the demo's {child.role} ended", fix="see its message above")


def measure_healthy(world: World, warm_up_s: float) -> tuple[Latency, float]:
    """The latency, and the cores used, of the warm-up after its first second."""
    pause(world, SETTLE_S)
    start_ns, cpu_ns = time.monotonic_ns(), service_cpu_ns(world.service.pid)
    pause(world, max(1.0, warm_up_s - SETTLE_S))
    end_ns, used_ns = time.monotonic_ns(), service_cpu_ns(world.service.pid) - cpu_ns
    pause(world, REPORT_LAG_S)
    latency = world.watch.measure(start_ns, end_ns)
    return latency, used_ns / (end_ns - start_ns)


def needed_cpu_ratio(world: World, before: Latency, cpu_ratio: float) -> float:
    """The cores that the planned load needs; a short window may see more or fewer arrivals."""
    load = world.options.load
    if load.loop == "closed" or not before.answers_per_second:
        return cpu_ratio
    return cpu_ratio * load.rate_hertz / before.answers_per_second


def wait_moved(world: World, before: Latency, on_ns: int) -> Latency:
    """Waits until a full window since the fault is clearly slower, or time is up."""
    end_s = time.monotonic() + MOVED_TIMEOUT_S
    while True:
        pause(world, STEP_S)
        now_ns = time.monotonic_ns() - int(REPORT_LAG_S * 1e9)
        start_ns = max(on_ns, now_ns - int(WINDOW_S * 1e9))
        after = world.watch.measure(start_ns, now_ns)
        full = now_ns - on_ns >= WINDOW_S * 1e9
        if (full and has_moved(before, after)) or time.monotonic() > end_s:
            return after


def wait_mild(world: World) -> Latency:
    """One window of a mild fault, which is not meant to move anything."""
    start_ns = time.monotonic_ns()
    pause(world, WINDOW_S + REPORT_LAG_S)
    return world.watch.measure(start_ns, start_ns + int(WINDOW_S * 1e9))


def describe_move(before: Latency, after: Latency, moved: bool) -> str:
    """Says by how much latency moved, or that it did not."""
    p50_ratio, p99_ratio = ratios(before, after)
    figures = (
        f"p50 {before.p50_ms:.1f} -> {after.p50_ms:.1f} ms ({p50_ratio:.1f}x), "
        f"p99 {before.p99_ms:.1f} -> {after.p99_ms:.1f} ms ({p99_ratio:.1f}x)"
    )
    return f"latency moved: {figures}" if moved else f"latency did NOT move clearly: {figures}"


def hold(world: World, seconds: float) -> None:
    """Stays for a while and says every few seconds how the service fares."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        start_ns = time.monotonic_ns()
        pause(world, min(left_s, PROGRESS_S))
        say(describe(world.watch.measure(start_ns, time.monotonic_ns())))


def pause(world: World, seconds: float) -> None:
    """Sleeps while all parts run. Raises `DemoError`."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(left_s, STEP_S))
        check_running(world)


class State:
    """The file that tells tests and scripts where a run stands; absent unless asked for."""

    def __init__(self, world: World, plan: Plan, before: Latency) -> None:
        self._path = plan.state_file
        self._fields: dict[str, Any] = {
            "service_pid": world.service.pid,
            "service_port": world.service_port,
            "shards": [
                {"pid": shard.pid, "port": port}
                for shard, port in zip(world.shards, world.shard_ports, strict=True)
            ],
            "load_pid": world.load.pid,
            "front": world.options.service.front,
            "fault": plan.fault,
            "before": msgspec.to_builtins(before),
        }

    def fault_on(self, injection: Injection, after: Latency, moved: bool) -> None:
        """Writes what the fault did."""
        self._fields |= {
            "culprit": {"kind": injection.culprit_kind, "name": injection.culprit_name},
            "after": msgspec.to_builtins(after),
            "moved": moved,
        }
        self.write("fault")

    def write(self, name: str) -> None:
        """Replaces the file at once, so that a reader never sees half of it."""
        if not self._path:
            return
        path = Path(self._path)
        draft = path.with_name(path.name + ".draft")
        draft.write_text(json.dumps({"state": name} | self._fields, indent=1) + "\n")
        draft.replace(path)
