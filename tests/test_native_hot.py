"""Hot functions of services without Python stacks: real runs, told as an on-CPU sampler would."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from native_rows import LIBC, PYTHON, SERVER, Native, native_tables

from perfkit import codec
from perfkit.analysis import analyse
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.own_code import is_own, look_around, to_own
from perfkit.analysis.places import KERNEL, NATIVE
from perfkit.analysis.stacks import Function, charge_cpu, charge_rest, read_running
from perfkit.findings import Finding, Report
from perfkit.model import Capture

FOLDER = Path(__file__).parent / "captures"
SLOT_NS = 50_000_000
WEIGHT_NS = 10_101_010
HOT = ("hot_function.fires.threads", "hot_function.fires.asyncio")
SILENT = (
    "healthy.threads",
    "hot_function.near_miss.threads",
    "hot_function.near_miss.asyncio",
    "load_saturation.near_miss.threads",
    "gil_contention.near_miss.threads",
)
EVAL = f"_PyEval_EvalFrameDefault@{PYTHON}"
COPY = f"memcpy@{LIBC}"


def native_of(case: Case, leaf: str, seed: int) -> Native:
    """What a sampler of 99 Hz would have seen had the service been written in C.

    Python's functions are those of a program; below each innermost one lies `leaf`.
    """
    chance = np.random.default_rng(seed)
    cpu = charge_rest(charge_cpu(case.timeline, read_running(case.aligned)), case.timeline)
    native = Native()
    rows = zip(cpu.thread, cpu.slot, cpu.stack, cpu.ns, strict=True)
    for thread, slot, stack, ns in rows:
        pid, tid = case.timeline.threads[thread]
        own = "<".join(f"{one.name}@{SERVER}" for one in cpu.frames[stack])
        for _ in range(chance.poisson(ns / WEIGHT_NS)):
            t_ns = case.aligned.axis.start_ns + int((slot + chance.uniform()) * SLOT_NS)
            words = f"{leaf}<{own}<start_thread@{LIBC}" if leaf else own
            native.add(words, pid=pid, tid=tid, t_ns=t_ns, weight_ns=WEIGHT_NS)
    return native


@cache
def without_python(name: str, leaf: str = COPY, seed: int = 1) -> Capture:
    """A recorded run with native samples in the place of its Python stacks."""
    capture = codec.decode((FOLDER / f"{name}.perfkit").read_bytes())
    strings = list(capture.strings)
    tables = {key: one for key, one in capture.tables.items() if "stack" not in key}
    tables |= native_tables([native_of(build_case(capture), leaf, seed)], strings)
    return replace(capture, tables=tables, strings=tuple(strings))


@cache
def diagnose(name: str, leaf: str = COPY, seed: int = 1) -> Report:
    """The report on such a run."""
    return analyse(without_python(name, leaf, seed))


def evidence_of(finding: Finding) -> str:
    """The metrics of a finding, as one text."""
    return "; ".join(one.metric for one in finding.evidence)


@pytest.mark.parametrize("leaf", [COPY, ""])
@pytest.mark.parametrize("name", HOT)
def test_function_of_a_service_in_c_is_named(name: str, leaf: str) -> None:
    """The function that burns is the culprit, with its object, whatever it calls to burn."""
    truth = analyse(codec.decode((FOLDER / f"{name}.perfkit").read_bytes())).causes[0]

    (first, *_) = diagnose(name, leaf).causes

    function = truth.culprit.name.partition(".")[2].partition(" ")[0]
    assert (first.id, first.culprit.kind) == ("hot_function", "function")
    assert first.culprit.name == f"{function} (server)"
    assert first.share == pytest.approx(truth.share, abs=0.25)


@pytest.mark.parametrize("name", HOT)
def test_what_the_function_calls_is_evidence(name: str) -> None:
    """The C library is not to blame for what it is asked to copy, and who asks is told."""
    (first, *_) = diagnose(name).causes

    assert "spent in memcpy (libc.so.6)" in evidence_of(first)
    assert {one.source for one in first.evidence if one.unit == "s"} == {"native stacks, schedstat"}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", SILENT)
def test_healthy_service_in_c_is_silent(name: str, seed: int) -> None:
    """A function that costs the same throughout is no cause, however the samples fall."""
    report = diagnose(name, COPY, seed)

    assert [one.id for one in report.causes] == []


def test_threads_that_have_no_stacks_are_named() -> None:
    """Without a native stack either, the thread is what can be named."""
    capture = without_python(HOT[0])
    tables = {key: one for key, one in capture.tables.items() if not key.startswith("native_")}

    (first, *_) = analyse(replace(capture, tables=tables)).causes

    assert (first.id, first.culprit.kind) == ("hot_function", "thread")


def mixed(inner: str) -> Case:
    """A run with its Python stacks, and native samples of the same threads all along."""
    capture = codec.decode((FOLDER / f"{HOT[0]}.perfkit").read_bytes())
    stacks = read_running(build_case(capture).aligned)
    native = Native()
    for begin, end, pid, tid in zip(stacks.begin, stacks.end, stacks.pid, stacks.tid, strict=True):
        for t_ns in range(int(begin), int(end), WEIGHT_NS):
            native.add(f"{inner}<{EVAL}", t_ns=t_ns, pid=int(pid), tid=int(tid))
    strings = list(capture.strings)
    tables = capture.tables | native_tables([native], strings)
    return build_case(replace(capture, tables=tables, strings=tuple(strings)))


def test_native_code_below_a_python_function_is_evidence() -> None:
    """The Python function is asked about, and the library's function below it is told."""
    case = mixed(f"memcpy@{LIBC}<sum_rows@/venv/_arrays.so")
    function = read_running(case.aligned).frames[0][0]

    found = look_around(case, function)

    assert found.leaf == "memcpy (libc.so.6) below sum_rows (_arrays.so)"
    assert found.leaf_ratio == pytest.approx(1.0)


def test_python_service_still_names_its_python_function() -> None:
    """Native samples beside Python stacks change nothing of who is named."""
    before = analyse(codec.decode((FOLDER / f"{HOT[0]}.perfkit").read_bytes())).causes[0]
    case = mixed(f"memcpy@{LIBC}<sum_rows@/venv/_arrays.so")

    (first, *_) = analyse(case.aligned.capture).causes

    assert first.culprit == before.culprit
    assert "spent in memcpy" in evidence_of(first)


@pytest.mark.parametrize(
    ("name", "file", "kind", "expected"),
    [
        ("rank(std::vector<int> const&)", SERVER, NATIVE, True),
        ("std::vector<int> shop::make<int>(int)", SERVER, NATIVE, True),
        ("inflate", "/usr/lib/libz.so.1", NATIVE, True),
        ("main", SERVER, NATIVE, True),
        ("main.handle", SERVER, NATIVE, True),
        ("runtime.mallocgc", SERVER, NATIVE, False),
        ("void std::__introsort_loop<int*, long>(int*, int*, long)", SERVER, NATIVE, False),
        ("std::thread::_State_impl<(anonymous namespace)::F>::_M_run()", SERVER, NATIVE, False),
        ("operator new(unsigned long)", SERVER, NATIVE, False),
        ("zmalloc", SERVER, NATIVE, False),
        ("je_malloc_default", SERVER, NATIVE, False),
        ("free_rows", SERVER, NATIVE, True),
        ("memcpy", LIBC, NATIVE, False),
        ("memcpy", "/lib/libc-2.31.so", NATIVE, False),
        ("_start", SERVER, NATIVE, False),
        ("do_syscall_64", "[kernel]", KERNEL, False),
        ("__vdso_clock_gettime", "[vdso]", NATIVE, False),
        ("(((((((<<<<<<<", SERVER, NATIVE, True),
        ("", SERVER, NATIVE, True),
    ],
)
def test_own_code_is_told_from_libraries(name: str, file: str, kind: str, expected: bool) -> None:
    """What the service's authors wrote, or chose, is told from what every program has."""
    assert is_own(Function(name, file, kind)) is expected


def test_foreign_code_that_nobody_called_is_named_itself() -> None:
    """Where no frame is the service's own, the leaf is all there is to say."""
    frames = (Function("memcpy", LIBC, NATIVE), Function("start_thread", LIBC, NATIVE))

    assert [one.words for one in to_own(frames)] == ["memcpy (libc.so.6)"]


def test_evaluation_without_python_stacks_names_nobody() -> None:
    """An interpreter's own frames are not the function that somebody could change."""
    run = Function("_PyEval_EvalFrameDefault", PYTHON, NATIVE)
    frames = (Function("list_sort", PYTHON, NATIVE), run, Function("main", "/bin/p", NATIVE))

    assert to_own(frames) == ()
