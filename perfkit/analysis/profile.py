"""A capture -> the profile that flame graphs show: what the service's time went to, stack by stack.

Of CPU time, of time off the CPUs, of wall-clock time, or of the CPU time of the whole host.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from perfkit.analysis._profiles import (
    BACKGROUND,
    NOT_SEEN,
    ON_CPU,
    SERVING,
    Parts,
    sum_cpu,
    sum_host,
    sum_off_cpu,
    sum_wall,
    tell_quality,
)
from perfkit.analysis.case import build_case
from perfkit.analysis.own_code import is_own
from perfkit.analysis.places import KERNEL
from perfkit.analysis.stacks import Function
from perfkit.errors import RunError
from perfkit.model import Capture

__all__ = ["BACKGROUND", "NOT_SEEN", "SERVING", "Profile", "ProfileFrame", "ProfileStack"]

Origin = Literal["group", "application", "package", "library", "unknown", "kernel"]
Subject = Literal["cpu", "off-cpu", "wall", "host"]
NS_PER_US = 1000
UNSEEN = (NOT_SEEN, ON_CPU)
_SUMS = {"cpu": sum_cpu, "off-cpu": sum_off_cpu, "wall": sum_wall, "host": sum_host}
# Whose status says why there are none, and what they are called.
_SOURCES = {
    "cpu": ("python_stacks", "Python stacks"),
    "off-cpu": ("native_stacks", "stacks of threads off the CPUs"),
    "wall": ("threads", "wall-clock stacks"),
    "host": ("native_stacks", "native stacks"),
}


class ProfileFrame(Struct, frozen=True, order=True):
    """One function as flame graphs show it; `name` and `file` are untrusted text.

    `kind` is "" for Python and groups, else `native`, `kernel` or `runtime`.
    """

    name: str
    file: str
    origin: Origin
    kind: str = ""


class ProfileStack(Struct, frozen=True):
    """The time that was spent in one stack, outermost frame first.

    Of `near_us` of it the Python frames are those of a moment nearby.
    """

    frames: tuple[ProfileFrame, ...]
    time_us: int
    near_us: int = 0


class Profile(Struct, frozen=True):
    """All stacks of one capture, in order of their frames, and whose they are.

    `notes` say how good the stacks are, as sentences.
    """

    run: str
    host: str
    target: str
    seconds: float
    stacks: tuple[ProfileStack, ...]
    of: Subject = "cpu"
    notes: tuple[str, ...] = ()

    @property
    def time_us(self) -> int:
        """All time of the service's threads."""
        return sum(stack.time_us for stack in self.stacks)

    @property
    def is_native(self) -> bool:
        """Whether native frames were seen."""
        return any(frame.kind for stack in self.stacks for frame in stack.frames)


def make_profile(capture: Capture, run: str, of: Subject = "cpu") -> Profile:
    """Joins the sampled stacks and, of CPU time, the exact time of the threads.

    Raises: `RunError` where the capture holds no stacks.
    """
    case = build_case(capture)
    parts: Parts = _SUMS[of](case)
    if not any(frames[-1].name not in UNSEEN for _, frames in parts):
        raise _missing(capture, run, of)
    spent: dict[tuple[ProfileFrame, ...], tuple[float, float]] = {}
    for (group, frames), (ns, near_ns) in parts.items():
        key = (ProfileFrame(group, "", "group"), *(to_frame(one) for one in frames))
        before = spent.get(key, (0.0, 0.0))
        spent[key] = (before[0] + ns, before[1] + near_ns)
    stacks = (
        ProfileStack(frames, round(ns / NS_PER_US), round(near_ns / NS_PER_US))
        for frames, (ns, near_ns) in sorted(spent.items())
        if ns >= NS_PER_US
    )
    header = capture.header
    name = header.target.name if of != "host" else ""
    seconds = case.window_ns / 1e9
    notes = tell_quality(case, of)
    return Profile(run, header.host, name, seconds, tuple(stacks), of, notes)


def to_frame(function: Function) -> ProfileFrame:
    """A function with where it comes from: the service's own code, a package, a library."""
    file = function.file
    origin: Origin = "application"
    if not file and function.name in UNSEEN:
        origin = "unknown"
    elif function.kind == KERNEL:
        origin = "kernel"
    elif "/site-packages/" in file or "/dist-packages/" in file:
        origin = "package"
    elif _is_library(function):
        origin = "library"
    return ProfileFrame(function.name, file.rpartition("/")[2], origin, function.kind)


def _is_library(function: Function) -> bool:
    file = function.file
    if function.kind:
        return file.startswith(("/lib", "/usr/lib")) or not is_own(function)
    return "/lib/python3" in file or file.startswith("<")


def _missing(capture: Capture, run: str, of: Subject) -> RunError:
    collector, words = _SOURCES[of]
    statuses = [one for one in capture.header.statuses if one.collector == collector]
    told = [one for one in statuses if one.reason]
    why = told[0].reason if told else ""
    if not why and of == "cpu" and statuses:
        why = "no interpreter ran in the service"
    return RunError(
        f"run {run or 'without a name'} holds no {words}: {why or 'they were not recorded'}",
        fix=statuses[0].grant if statuses else "",
    )
