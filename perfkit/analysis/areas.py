"""Work that has a name of its own, whoever does it: matching patterns, writing logs.

Such work is many small functions of a library, none of which is worth naming; it is told as one
frame, and who calls for it is named.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import Integers, Reals, sum_by
from perfkit.analysis.own_code import is_own
from perfkit.analysis.places import NATIVE
from perfkit.analysis.stacks import (
    RUNTIME,
    STANDARD_LIBRARY,
    CpuByStack,
    Function,
    charge_cpu,
    read_running,
    without_repeats,
)

LOGGING = Function("(logging)", "", RUNTIME)
MATCHING = Function("(pattern matching)", "", RUNTIME)
SPINNING = Function("(spinning on a lock)", "", RUNTIME)
AREAS = (MATCHING, LOGGING, SPINNING)
# A function's time is that of an area where so much of it is spent there.
AREA_RATIO_MIN = 0.6
# A dozen samples know a share to a factor of two.
FEW_RATIO_MIN = 0.3
# Fewer samples of a function, or of the area in it, are chance.
SAMPLES_MIN = 4
FUNCTIONS_MAX = 1 << 14
# Of the standard library and of packages; a service may have modules of the same names.
_PACKAGE = r"(?:.*/(?:site|dist)-packages/)?"
_PYTHON = (
    (
        LOGGING,
        re.compile(
            rf"{STANDARD_LIBRARY}logging/(?:__init__|handlers)\.py|{_PACKAGE}loguru/\w+\.py"
        ),
    ),
    (
        MATCHING,
        re.compile(
            rf"{STANDARD_LIBRARY}re/__init__\.py|(?:.*/)?python3\.\d+/re\.py"
            rf"|{_PACKAGE}regex/_?regex\.py"
        ),
    ),
)
# Engines that go back and try again: CPython's sre, regex, PCRE, Oniguruma, the C++ library's.
_NATIVE = (
    (LOGGING, re.compile(r"(?:spdlog|fmt::.*spdlog|google::LogMessage|boost::log)\b.*")),
    (
        MATCHING,
        re.compile(
            r"_?sre_\w+|(?:_sre_)?SRE(?:_\w+|\(\w+\))?"
            r"|pattern_(?:search|match|fullmatch|findall|finditer|subx?n?|split|scanner)(?:_\w+)?"
            r"|basic_match|pcre2?_\w+|match_at|.*std::__detail::_Executor<.*|boost::re_detail.*"
        ),
    ),
    # Whoever waits for one: the function's name ends in the lock's, or in what asks for it.
    (
        SPINNING,
        re.compile(
            r"(?:__)?pthread_spin_lock|s_lock"
            r"|(?:.*(?:::|[_.]))?(?:[Ss]pin_?[Ll]ock|[Ss]pin_?[Mm]utex)"
            r"(?:(?:::|_)(?:[Ll]ock|[Aa]cquire|[Ss]low|[Ww]ait|[Dd]elay)\w*)?(?:\(.*)?"
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
    mine = _Spent("Python stacks", python, *_sum(one for one in python if function in one.frames))
    near = _Spent("native stacks", native, *_sum(one for one in native if function in one.frames))
    found = [_sum_up(mine, function, AREA_RATIO_MIN), _sum_up(near, function, AREA_RATIO_MIN)]
    if near.count < SAMPLES_MIN and not function.kind:
        # Few samples were near a look at its frames: all that have no Python frames may be its.
        part = mine.ns / max(_sum(python)[0], 1.0)
        all_ns, count = _sum(native)
        guess = [_with(one, function) for one in native]
        expected = _Spent("native stacks", guess, part * all_ns, count)
        found.append(_sum_up(expected, function, FEW_RATIO_MIN))
    return max((one for one in found if one), key=lambda one: one.ratio, default=None)


@dataclass(frozen=True)
class _Stack:
    """A stack, the CPU time that it stands for, and how often it was met."""

    frames: tuple[Function, ...]
    ns: float
    count: int


@dataclass(frozen=True)
class _Spent:
    """A function's CPU time by a source, and how often it was met, beside all stacks of that."""

    source: str
    stacks: list[_Stack]
    ns: float
    count: int


def _sum(stacks: Iterable[_Stack]) -> tuple[float, int]:
    chosen = list(stacks)
    return sum(one.ns for one in chosen), sum(one.count for one in chosen)


def _with(stack: _Stack, function: Function) -> _Stack:
    """A stack as if this Python function had called it, where no other is known to have."""
    is_known = any(not one.kind for one in stack.frames)
    return stack if is_known else replace(stack, frames=(*stack.frames, function))


def _sum_up(spent: _Spent, function: Function, ratio_min: float) -> Inside | None:
    """The area in which so much of a function's time is, where it was met often enough."""
    if spent.count < SAMPLES_MIN:
        return None
    for area in AREAS:
        callers: dict[Function | None, float] = {}
        inside_ns, count = 0.0, 0
        for one in spent.stacks:
            frames = one.frames
            if function in frames and area in frames[: frames.index(function) + 1]:
                caller = caller_of(frames, max(at for at, it in enumerate(frames) if it == area))
                callers[caller] = callers.get(caller, 0.0) + one.ns
                inside_ns += one.ns
                count += one.count
        if count >= SAMPLES_MIN and inside_ns >= ratio_min * spent.ns:
            caller = max(callers, key=lambda one: (callers[one], one is not None))
            ratio = min(1.0, inside_ns / max(spent.ns, 1.0))
            return Inside(area, ratio, caller, callers[caller] / inside_ns, spent.source)
    return None


def caller_of(frames: tuple[Function, ...], at: int) -> Function | None:
    """Who calls what is at a depth of a stack: Python, else other code of the service's own."""
    outer = frames[at + 1 :]
    python = next((one for one in outer if not one.kind), None)
    return python or next((one for one in outer if is_own(one)), None)


def _python_stacks(case: Case) -> Iterator[_Stack]:
    cpu = tell_areas(charge_cpu(case.timeline, read_running(case.aligned)))
    serving = np.array([one in case.serving for one in case.timeline.threads], dtype=bool)
    mine = serving[cpu.thread]
    return _stacks(cpu.frames, cpu.stack[mine], cpu.ns[mine])


def _native_stacks(case: Case) -> Iterator[_Stack]:
    samples = case.native_samples
    threads = zip(samples.pid.tolist(), samples.tid.tolist(), strict=True)
    serving = np.array([one in case.serving for one in threads], dtype=bool)
    weights = samples.weight_ns[serving].astype(np.float64)
    for one in _stacks(samples.frames, samples.stack[serving], weights):
        yield replace(one, frames=without_repeats([to_area(each) for each in one.frames]))


def _stacks(
    frames: tuple[tuple[Function, ...], ...], stack: Integers, ns: Reals
) -> Iterator[_Stack]:
    sums = sum_by(stack, ns, len(frames)).tolist()
    counts = sum_by(stack, np.ones(len(ns)), len(frames)).tolist()
    for each, spent, count in zip(frames, sums, counts, strict=True):
        if spent > 0:
            yield _Stack(each, spent, int(count))
