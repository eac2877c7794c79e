"""A capture -> the profile that flame graphs show: the CPU time of every Python stack."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct

from perfkit.analysis.case import Case, build_case
from perfkit.analysis.columns import sum_by
from perfkit.analysis.stacks import Function, charge_cpu, charge_rest, read_running
from perfkit.analysis.states import State
from perfkit.errors import RunError
from perfkit.model import Capture

Origin = Literal["group", "application", "package", "library", "unknown"]
SERVING, BACKGROUND = "threads that serve requests", "other threads"
NOT_SEEN = "(not sampled)"
NS_PER_US = 1000


class ProfileFrame(Struct, frozen=True, order=True):
    """One function as flame graphs show it; `name` and `file` are untrusted text."""

    name: str
    file: str
    origin: Origin


class ProfileStack(Struct, frozen=True):
    """The CPU time that was spent in one stack, outermost frame first."""

    frames: tuple[ProfileFrame, ...]
    time_us: int


class Profile(Struct, frozen=True):
    """All stacks of one capture, in order of their frames, and whose they are."""

    run: str
    host: str
    target: str
    seconds: float
    stacks: tuple[ProfileStack, ...]

    @property
    def time_us(self) -> int:
        """All CPU time of the service's threads."""
        return sum(stack.time_us for stack in self.stacks)


def make_profile(capture: Capture, run: str) -> Profile:
    """Joins the sampled stacks and the exact CPU time of the threads.

    Raises: `RunError` where the capture holds no stacks.
    """
    case = build_case(capture)
    spent = _sum_stacks(case)
    if not any(frames[-1].name != NOT_SEEN for frames in spent):
        raise _missing(capture, run)
    stacks = (
        ProfileStack(frames, round(ns / NS_PER_US))
        for frames, ns in sorted(spent.items())
        if ns >= NS_PER_US
    )
    header = capture.header
    return Profile(run, header.host, header.target.name, case.window_ns / 1e9, tuple(stacks))


def _sum_stacks(case: Case) -> dict[tuple[ProfileFrame, ...], float]:
    timeline = case.timeline
    cpu = charge_rest(charge_cpu(timeline, read_running(case.aligned)), timeline)
    serving = np.array([thread in case.serving for thread in timeline.threads], dtype=bool)
    running = timeline.states() == State.ON_CPU
    spent: dict[tuple[ProfileFrame, ...], float] = {}
    for serves, group in ((True, SERVING), (False, BACKGROUND)):
        root = ProfileFrame(group, "", "group")
        mine = serving[cpu.thread] == serves
        sums = sum_by(cpu.stack[mine], cpu.ns[mine], len(cpu.frames))
        for frames, ns in zip(cpu.frames, sums.tolist(), strict=True):
            if ns > 0:
                key = (root, *(to_frame(one) for one in reversed(frames)))
                spent[key] = spent.get(key, 0.0) + ns
        whole = float(timeline.ns[running & (serving[timeline.thread] == serves)].sum())
        rest = whole - float(sums.sum())
        if rest >= NS_PER_US:
            spent[root, ProfileFrame(NOT_SEEN, "", "unknown")] = rest
    return spent


def to_frame(function: Function) -> ProfileFrame:
    """A function with where it comes from: the service's own code, a package, Python's library."""
    file = function.file
    origin: Origin = "application"
    if "/site-packages/" in file or "/dist-packages/" in file:
        origin = "package"
    elif "/lib/python3" in file or file.startswith("<"):
        origin = "library"
    return ProfileFrame(function.name, file.rpartition("/")[2], origin)


def _missing(capture: Capture, run: str) -> RunError:
    statuses = [one for one in capture.header.statuses if one.collector == "python_stacks"]
    why = statuses[0].reason if statuses else "they were not recorded"
    return RunError(
        f"run {run or 'without a name'} holds no Python stacks"
        + (f": {why}" if why else ": no interpreter ran in the service"),
        fix=statuses[0].grant if statuses else "",
    )
