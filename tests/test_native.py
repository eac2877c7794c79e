"""Native stacks merged with Python's: every shape, every grade, and what is hostile."""

from __future__ import annotations

import pytest
from native_rows import KERNEL, LIBC, PYTHON, SERVER, Native, native_tables
from simulate import MS, make_capture, make_table

from perfkit.analysis.align import Aligned, align
from perfkit.analysis.native import (
    CPU,
    OFF,
    PREEMPTED,
    Grade,
    Samples,
    read_samples,
    read_wall_samples,
)

START_NS = 1_000_000_000
EVAL = f"_PyEval_EvalFrameDefault@{PYTHON}"
ROOT = f"_PyEval_Vector@{PYTHON}<PyEval_EvalCode@{PYTHON}<Py_RunMain@{PYTHON}<main@/bin/python3"
CALL = f"cfunction_vectorcall_O@{PYTHON}<PyObject_Vectorcall@{PYTHON}"


def wall_of(native: Native) -> Aligned:
    """The capture of wall-clock samples."""
    strings: list[str] = []
    tables = native_tables([native], strings)
    made = make_capture(tables, start_ns=START_NS, seconds=1.0, strings=tuple(strings))
    return align(made)


def merged(stack: str, python: str, **values: int) -> tuple[str, Grade]:
    """What one wall-clock sample comes to, "leaf<caller", and its grade."""
    native = Native("wall")
    native.add(stack, python=python, **values)
    found = read_wall_samples(wall_of(native))
    return to_words(found)[0]


def to_words(found: Samples) -> list[tuple[str, Grade]]:
    """The stacks of samples as words, with their grades."""
    pairs = zip(found.stack.tolist(), found.grade.tolist(), strict=True)
    return [
        ("<".join(one.name for one in found.frames[stack]), Grade(grade)) for stack, grade in pairs
    ]


@pytest.mark.parametrize(
    ("stack", "python", "expected"),
    [
        (f"work@{SERVER}<main@{SERVER}", "", "work<main"),
        (f"{EVAL}<{ROOT}", "f<g<<module>", "f<g<<module>"),
        (f"sleep@{LIBC}<time_sleep@{PYTHON}<{CALL}<{EVAL}<{ROOT}", "f<g", "sleep<time_sleep<f<g"),
        # A callback from C: whose frames were entered is known.
        (
            f"{EVAL}<_PyFunction_Vectorcall@{PYTHON}<list_sort@{PYTHON}<{CALL}<{EVAL}<{ROOT}",
            "key!<f<g!",
            "key<list_sort<f<g",
        ),
        # It is not known, but only glue lies between.
        (f"{EVAL}<slot_tp_call@{PYTHON}<{EVAL}<{ROOT}", "key<f<g", "key<f<g"),
        # A generator that C resumes is entered like any callback.
        (
            f"{EVAL}<gen_send_ex2@{PYTHON}<sum@{PYTHON}<{EVAL}<{ROOT}",
            "generate!<total!",
            "generate<sum<total",
        ),
        # A program that holds an interpreter: its own frames stay.
        (
            f"{EVAL}<PyObject_Call@{PYTHON}<run_script@{SERVER}<main@{SERVER}<_start@{SERVER}",
            "f",
            "f<run_script<main<_start",
        ),
        # A thread that threading started.
        (
            f"{EVAL}<thread_run@{PYTHON}<pythread_wrapper@{PYTHON}<start_thread@{LIBC}",
            "f<run<bootstrap",
            "f<run<bootstrap",
        ),
        # No name, inside and outside of the interpreter.
        (f"+0x12@{PYTHON}<{EVAL}<+0x34@{PYTHON}<{ROOT}", "f", "code without a name<f"),
        (f"+0x12@{SERVER}<+0x34@{PYTHON}<{EVAL}<{ROOT}", "f", "code without a name<f"),
        # Kernel frames lead.
        (f"futex_wait@{KERNEL}<poll@{LIBC}<{EVAL}<{ROOT}", "f", "futex_wait<poll<f"),
        # Copies that a compiler made are the function.
        (f"work.constprop.0@{SERVER}<work.isra.3@{SERVER}<main@{SERVER}", "", "work<main"),
        # No native stack at all.
        ("", "f<g", "f<g"),
        # Recursion counts once.
        (f"{EVAL}<{ROOT}", "f<f<f<g", "f<g"),
    ],
)
def test_python_frames_take_the_place_of_the_interpreters(
    stack: str, python: str, expected: str
) -> None:
    """Whatever calls what, the functions stand in the order in which they called each other."""
    words, grade = merged(stack, python)

    assert (words, grade) == (expected, Grade.EXACT if python else Grade.NATIVE)


def test_frames_that_are_not_certain_are_near() -> None:
    """Where C code lies between runs and nobody knows whose, it is left out, and said."""
    stack = f"{EVAL}<list_sort@{PYTHON}<{EVAL}<{ROOT}"

    assert merged(stack, "key<f<g") == ("key<f<g", Grade.NEAR)


def test_counts_that_do_not_match_are_near() -> None:
    """Two runs of the interpreter and three entries are not of one moment."""
    stack = f"{EVAL}<list_sort@{PYTHON}<{EVAL}<{ROOT}"

    assert merged(stack, "a!<b!<c!") == ("a<b<c", Grade.NEAR)


def test_sample_of_a_thread_that_moved_is_near() -> None:
    """Frames that were read while the thread ran on may be those of a moment later."""
    assert merged(f"{EVAL}<{ROOT}", "f", is_exact=0) == ("f", Grade.NEAR)


def test_stack_that_lost_its_outer_part_gets_the_python_frames() -> None:
    """What the unwinder could not pass was called by the Python that the thread ran."""
    found = merged(f"kernel_loop@{SERVER}", "f<g", end=2)

    assert found == ("kernel_loop<f<g", Grade.NEAR)


def test_thread_without_python_keeps_its_own_frames() -> None:
    """A whole native stack without the interpreter takes no Python frames, whoever read them."""
    assert merged(f"spin@{SERVER}<start_thread@{LIBC}", "f") == (
        "spin<start_thread",
        Grade.NATIVE,
    )


def test_interpreter_without_python_frames_stays() -> None:
    """Where no Python stack was read, the interpreter's evaluation is what is known."""
    found = merged(f"sleep@{LIBC}<time_sleep@{PYTHON}<{CALL}<{EVAL}<{ROOT}", "")

    assert found == ("sleep<time_sleep<_PyEval_EvalFrameDefault<main", Grade.NATIVE)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (f"visit@{PYTHON}<gc_collect_main@{PYTHON}<PyGC_Collect@{PYTHON}", "visit<COLLECT<f"),
        (f"gc_collect_main@{SERVER}", "gc_collect_main<f"),
        (f"wait@{LIBC}<take_gil@{PYTHON}<PyEval_RestoreThread@{PYTHON}", "LOCK<f"),
        (f"futex@{KERNEL}<wait@{LIBC}<take_gil@{PYTHON}", "LOCK<f"),
        (f"{EVAL}<gc_collect_main@{PYTHON}", "f<COLLECT<g"),
    ],
)
def test_work_of_the_interpreter_has_its_name(inner: str, expected: str) -> None:
    """Collection and waits for the lock are named, and only in the interpreter itself."""
    python = "f!<g!" if inner.startswith("_PyEval") else "f"
    words, _ = merged(f"{inner}<{EVAL}<{ROOT}", python)

    names = {"COLLECT": "(garbage collection)", "LOCK": "(wait for the GIL)"}
    assert words == "<".join(names.get(one, one) for one in expected.split("<"))


def near_capture(t_ms: int, stretches: list[tuple[int, int, int, str]]) -> Aligned:
    """One CPU sample of thread 100, and stretches (tid, begin ms, end ms, kind) of Python."""
    native = Native()
    native.add(f"{EVAL}<{ROOT}", t_ns=START_NS + t_ms * MS)
    strings: list[str] = []
    tables = native_tables([native], strings)
    frames = [
        {"stack": at, "depth": 0, "function": f"f{at}", "file": "/app/f.py"}
        for at in range(len(stretches))
    ]
    rows = [
        {"begin_ns": START_NS + begin * MS, "end_ns": START_NS + end * MS, "pid": 100, "tid": tid}
        | {"kind": kind, "stack": at, "run_ns": -1}
        for at, (tid, begin, end, kind) in enumerate(stretches)
    ]
    tables["stacks"] = make_table("stacks", frames, strings)
    tables["stack_samples"] = make_table("stack_samples", rows, strings)
    return align(make_capture(tables, start_ns=START_NS, seconds=1.0, strings=tuple(strings)))


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        ([(100, 400, 600, "frames")], "f0"),
        ([(100, 400, 481, "frames")], "f0"),
        ([(100, 519, 600, "frames_blocked")], "f0"),
        ([(100, 400, 479, "frames")], "_PyEval_EvalFrameDefault<main"),
        ([(101, 400, 600, "frames")], "_PyEval_EvalFrameDefault<main"),
        ([(100, 400, 490, "frames"), (100, 490, 505, "frames")], "f1"),
        ([(100, 400, 495, "frames"), (100, 501, 600, "frames")], "f1"),
    ],
)
def test_cpu_sample_takes_the_python_stack_of_the_same_moment(
    stretches: list[tuple[int, int, int, str]], expected: str
) -> None:
    """The same thread's nearest stretch counts, up to 20 ms away, and the grade is near."""
    ((words, grade),) = to_words(read_samples(near_capture(500, stretches), CPU))

    assert words == expected
    assert grade == (Grade.NATIVE if "Eval" in words else Grade.NEAR)


def test_preempted_threads_are_told_from_blocked_ones() -> None:
    """Who left a CPU while it would have run on waits for one."""
    native = Native()
    native.add(f"work@{SERVER}", kind="preempted")
    native.add(f"read@{LIBC}", kind="off", is_open=1, t_ns=1)
    native.add(f"work@{SERVER}", kind="cpu")

    found = read_samples(wall_of(native), OFF, PREEMPTED)

    assert [words for words, _ in to_words(found)] == ["(waits for a CPU)<work", "read"]
    assert found.is_open.tolist() == [False, True]


def test_samples_without_a_stack_or_time_are_left_out() -> None:
    """A sample of which nothing is known names nobody."""
    native = Native()
    native.add("")
    native.add(f"work@{SERVER}", weight_ns=0)
    native.add(f"work@{SERVER}")
    native.samples.append(native.samples[-1] | {"stack": 77})

    assert len(read_samples(wall_of(native), CPU).stack) == 1


def test_capture_without_names_is_told_by_its_objects() -> None:
    """What was kept without names, by an agent alone, is one function for each object."""
    native = Native("wall")
    native.add(f"work@{SERVER}<run@{SERVER}<futex@{KERNEL}<main@{SERVER}")
    native.names.clear()

    (frames,) = read_wall_samples(wall_of(native)).frames

    assert [one.words for one in frames] == [
        "code without a name (server)",
        "code without a name [kernel]",
        "code without a name (server)",
    ]


@pytest.mark.parametrize("missing", ["objects", "stacks", "names", "pythons"])
def test_tables_that_are_missing_are_no_reason_to_fail(missing: str) -> None:
    """A capture that lacks one of the tables is read as far as it goes."""
    native = Native("wall")
    native.add(f"{EVAL}<{ROOT}", python="f")
    getattr(native, missing).clear()

    assert len(read_wall_samples(wall_of(native)).stack) <= 1


def test_stacks_of_absurd_depth_are_cut() -> None:
    """A stack of thousands of frames is no reason to fail."""
    native = Native("wall")
    native.add("<".join(f"f{depth}@{SERVER}" for depth in range(2_000)), python="g")

    (frames,) = read_wall_samples(wall_of(native)).frames

    assert 100 < len(frames) < 1_000
