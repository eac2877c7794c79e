"""Whose code a native frame is: the service's own, or that of the C library, a runtime, the kernel.

Who copies memory is of no use to know, who has it copied is; so a function of the service's own
code is named, and what it called there is evidence.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import sum_by
from perfkit.analysis.native import Samples
from perfkit.analysis.places import NATIVE, UNNAMED
from perfkit.analysis.stacks import (
    RUNTIME,
    CpuByStack,
    Function,
    charge_cpu,
    without_repeats,
)

FUNCTIONS_MAX = 1 << 14
_EVALUATION = "_PyEval_EvalFrameDefault"
_LIBRARIES = re.compile(
    r"(?:libc|libm|libpthread|librt|libdl|ld|ld-linux[\w-]*|ld-musl[\w-]*|libc\.musl[\w-]*|libgcc_s"
    r"|libstdc\+\+|libc\+\+|libc\+\+abi|libjemalloc|libtcmalloc\w*|libmimalloc)(?:-[\d.]+)?\.so.*"
)
_START = re.compile(r"_start|__libc_start\w*|start_thread|__?clone3?|clone3?")
# The C++ library is made of templates that lie in whose code uses them; Go's runtime in each file.
# And who counts what it allocates does so in small functions around the allocator's.
_RUNTIMES = re.compile(
    r"(?:std|__gnu_cxx|__cxxabiv1)::|operator (?:new|delete)|runtime\."
    r"|(?:z|x|je_|tc_|mi_|g_|rte_)(?:try)?(?:malloc|calloc|realloc|free)(?:_\w+)?$"
)
_BRACKETS = re.compile(r"<[^<>]*>|\([^()]*\)")
_BRACKET_ROUNDS = 16


@dataclass(frozen=True)
class Around:
    """What is known around one function, as ratios of the CPU time in it and all that it calls.

    `leaf` is the native function in which most of that time is spent, "" where that is the
    function itself; `caller` is who calls it most, "" where nobody is known.
    """

    leaf: str = ""
    leaf_ratio: float = 0.0
    caller: str = ""
    caller_ratio: float = 0.0


@functools.lru_cache(maxsize=FUNCTIONS_MAX)
def is_own(function: Function) -> bool:
    """Whether a native function is the service's own code, or of a library of its choice."""
    base = function.file.rpartition("/")[2]
    if function.kind != NATIVE or base.startswith("[vdso]") or _LIBRARIES.fullmatch(base):
        return False
    return not _START.fullmatch(function.name) and not _RUNTIMES.match(_to_core(function.name))


def to_own(frames: tuple[Function, ...]) -> tuple[Function, ...]:
    """The frames of a native stack that may be named; the leaf, where all others are foreign.

    Missing: none where it is Python's evaluation that runs, of which no stack was read.
    """
    evaluated = [at for at, one in enumerate(frames) if one.name == _EVALUATION]
    if evaluated:
        interpreter = frames[evaluated[0]].file
        inner = [one for one in frames[: evaluated[0]] if one.file != interpreter]
        return without_repeats([one for one in inner if is_own(one)])
    own = without_repeats([one for one in frames if is_own(one)])
    return own or tuple(one for one in frames[:1] if one.kind != RUNTIME)


def charge_native(case: Case, known: CpuByStack) -> CpuByStack:
    """The CPU time by native stack of the threads that have no Python stacks."""
    timeline = case.timeline
    spent = charge_cpu(timeline, case.native_samples.to_stretches())
    numbers: dict[tuple[Function, ...], int] = {}
    reduced = [numbers.setdefault(to_own(one), len(numbers)) for one in spent.frames]
    stack = np.array(reduced, dtype=np.int64)[spent.stack]
    has_frames = np.array([bool(frames) for frames in numbers], dtype=bool)[stack]
    kept = has_frames & ~np.isin(spent.thread, np.unique(known.thread))
    columns = (spent.thread[kept], spent.slot[kept], stack[kept], spent.ns[kept])
    return CpuByStack(tuple(numbers), *columns)


def look_around(case: Case, function: Function) -> Around:
    """Where a function's CPU time is spent and who calls it, by the serving threads' samples."""
    samples = case.native_samples
    threads = zip(samples.pid.tolist(), samples.tid.tolist(), strict=True)
    serving = np.array([one in case.serving for one in threads], dtype=bool)
    leaves: dict[str, float] = {}
    callers: dict[str, float] = {}
    total_ns = 0.0
    for frames, ns in _sum_stacks(samples.where(serving)):
        if function not in frames:
            continue
        at = frames.index(function)
        total_ns += ns
        outer = [one for one in frames[at + 1 :] if one != function and _may_call(one)]
        if outer:
            callers[outer[0].words] = callers.get(outer[0].words, 0.0) + ns
        if at and frames[0].kind:
            words = _word_leaf(frames[:at])
            leaves[words] = leaves.get(words, 0.0) + ns
    if not total_ns:
        return Around()
    leaf, leaf_ns = _largest(leaves)
    caller, caller_ns = _largest(callers)
    return Around(leaf, leaf_ns / total_ns, caller, caller_ns / total_ns)


def _sum_stacks(samples: Samples) -> list[tuple[tuple[Function, ...], float]]:
    weights = samples.weight_ns.astype(np.float64)
    sums = sum_by(samples.stack, weights, len(samples.frames)).tolist()
    return [(frames, ns) for frames, ns in zip(samples.frames, sums, strict=True) if ns > 0]


def _word_leaf(inner: tuple[Function, ...]) -> str:
    """The innermost frame with a name, and where it is foreign, who called it on the way."""
    leaf = next((one for one in inner if one.name != UNNAMED), inner[0])
    via = next((one for one in inner if is_own(one)), None)
    if via is None or via == leaf:
        return leaf.words
    return f"{leaf.words} below {via.words}"


def _may_call(function: Function) -> bool:
    return not function.kind or is_own(function)


def _largest(spent: dict[str, float]) -> tuple[str, float]:
    return max(spent.items(), key=lambda one: (one[1], one[0]), default=("", 0.0))


def _to_core(name: str) -> str:
    """A C++ name from its namespace on: without arguments, templates' and others', and types."""
    for _ in range(_BRACKET_ROUNDS):
        shorter = _BRACKETS.sub("", name)
        if shorter == name:
            break
        name = shorter
    words = name.replace(" const", "").split()
    is_operator = len(words) > 1 and words[-2].endswith("operator")
    return " ".join(words[-2:] if is_operator else words[-1:])
