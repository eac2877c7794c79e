"""Work that has a name of its own, whoever does it: matching patterns, writing logs.

Such work is many small functions of a library, none of which is worth naming; it is told as one
frame, and who calls for it is named.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import sum_by
from perfkit.analysis.own_code import is_own
from perfkit.analysis.places import NATIVE
from perfkit.analysis.stacks import (
    RUNTIME,
    CpuByStack,
    Function,
    charge_cpu,
    read_running,
    without_repeats,
)

LOGGING = Function("(logging)", "", RUNTIME)
MATCHING = Function("(pattern matching)", "", RUNTIME)
# A function's time is that of an area where so much of it is spent there.
AREA_RATIO_MIN = 0.6
# A dozen samples know a share to a factor of two.
FEW_RATIO_MIN = 0.3
# Less than this of a function's time is known by chance.
KNOWN_NS_MIN = 20e6
FUNCTIONS_MAX = 1 << 14
_PYTHON = (
    (LOGGING, re.compile(r"(?:.*/)?(?:logging/(?:__init__|handlers)|loguru/\w+)\.py")),
    (MATCHING, re.compile(r"(?:.*/)?(?:re/__init__|python3\.\d+/re|regex/_?regex)\.py")),
)
# Engines that go back and try again: CPython's sre, regex, PCRE, Oniguruma, the C++ library's.
_NATIVE = (
    (LOGGING, re.compile(r"(?:spdlog|fmt::.*spdlog|google::LogMessage|boost::log)\b.*")),
    (
        MATCHING,
        re.compile(
            r"_?sre_\w+|(?:_sre_SRE_)?SRE_?\w*|pattern_\w+|basic_match|pcre2?_\w+|match_at"
            r"|.*std::__detail::_Executor<.*|boost::re_detail.*"
        ),
    ),
)


@dataclass(frozen=True)
class Inside:
    """What a function's CPU time is spent in: `ratio` of it in `area`, called for by `caller`.

    `caller_ratio` is the part of the area's time for which that is so; `source` says what told it.
    """

    area: Function
    ratio: float
    caller: Function | None
    caller_ratio: float
    source: str


@functools.lru_cache(maxsize=FUNCTIONS_MAX)
def to_area(function: Function) -> Function:
    """The area that a function is part of; else the function."""
    if function.kind not in ("", NATIVE):
        return function
    text = function.name if function.kind else function.file
    known = _NATIVE if function.kind else _PYTHON
    return next((area for area, pattern in known if pattern.fullmatch(text)), function)


def tell_areas(cpu: CpuByStack) -> CpuByStack:
    """The same time with each area as one frame."""
    frames = tuple(without_repeats([to_area(one) for one in stack]) for stack in cpu.frames)
    return CpuByStack(frames, cpu.thread, cpu.slot, cpu.stack, cpu.ns)


def find_inside(case: Case, function: Function) -> Inside | None:
    """The area in which most of a function's CPU time is spent; None where that is not so.

    Python stacks end where an engine in C begins: that is seen by native samples only.
    """
    python, native = list(_python_stacks(case)), list(_native_stacks(case))
    whole_ns = sum(ns for frames, ns in python if function in frames)
    part = whole_ns / max(sum(ns for _, ns in python), 1.0)
    near_ns = sum(ns for frames, ns in native if function in frames)
    found = [_sum_up("Python stacks", python, function, whole_ns)]
    found.append(_sum_up("native stacks", native, function, near_ns))
    if near_ns < KNOWN_NS_MIN and not function.kind:
        # Few samples were near a look at its frames: all that have no Python frames may be its.
        expected_ns = part * sum(ns for _, ns in native)
        native = [_with(frames, function) for frames in native]
        found.append(_sum_up("native stacks", native, function, expected_ns, FEW_RATIO_MIN))
    return max((one for one in found if one), key=lambda one: one.ratio, default=None)


def _with(
    stack: tuple[tuple[Function, ...], float], function: Function
) -> tuple[tuple[Function, ...], float]:
    """A stack as if this Python function had called it, where no other is known to have."""
    frames, ns = stack
    is_known = any(not one.kind for one in frames)
    return (frames if is_known else (*frames, function), ns)


def _sum_up(
    source: str,
    stacks: list[tuple[tuple[Function, ...], float]],
    function: Function,
    whole_ns: float,
    ratio_min: float = AREA_RATIO_MIN,
) -> Inside | None:
    """The area in which a function is for most of `whole_ns`."""
    if whole_ns < KNOWN_NS_MIN:
        return None
    for area in (MATCHING, LOGGING):
        callers: dict[Function | None, float] = {}
        for frames, ns in stacks:
            if function in frames and area in frames[: frames.index(function) + 1]:
                caller = _caller(frames, area)
                callers[caller] = callers.get(caller, 0.0) + ns
        inside_ns = sum(callers.values())
        if inside_ns >= ratio_min * whole_ns:
            ordered = sorted(callers, key=lambda one: (callers[one], one is not None))
            ratio = min(1.0, inside_ns / whole_ns)
            return Inside(area, ratio, ordered[-1], callers[ordered[-1]] / inside_ns, source)
    return None


def _caller(frames: tuple[Function, ...], area: Function) -> Function | None:
    """Who calls for the area's outermost part: Python, else other code of the service's own."""
    last = max(at for at, one in enumerate(frames) if one == area)
    outer = frames[last + 1 :]
    python = next((one for one in outer if not one.kind), None)
    return python or next((one for one in outer if is_own(one)), None)


def _python_stacks(case: Case) -> Iterator[tuple[tuple[Function, ...], float]]:
    cpu = tell_areas(charge_cpu(case.timeline, read_running(case.aligned)))
    serving = np.array([one in case.serving for one in case.timeline.threads], dtype=bool)
    mine = serving[cpu.thread]
    sums = sum_by(cpu.stack[mine], cpu.ns[mine], len(cpu.frames)).tolist()
    return ((frames, ns) for frames, ns in zip(cpu.frames, sums, strict=True) if ns > 0)


def _native_stacks(case: Case) -> Iterator[tuple[tuple[Function, ...], float]]:
    samples = case.native_samples
    threads = zip(samples.pid.tolist(), samples.tid.tolist(), strict=True)
    serving = np.array([one in case.serving for one in threads], dtype=bool)
    weights = samples.weight_ns[serving].astype(np.float64)
    sums = sum_by(samples.stack[serving], weights, len(samples.frames)).tolist()
    for frames, ns in zip(samples.frames, sums, strict=True):
        if ns > 0:
            yield without_repeats([to_area(one) for one in frames]), ns
