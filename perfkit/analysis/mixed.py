"""Native and Python frames of one thread at one moment, put into one stack.

An interpreter runs Python functions in a loop of its own, one native frame of it for each run of
functions that call one another without C between them. So the runs belong where the loops are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from perfkit.dump import PythonFrame

EVALUATION = "_PyEval_EvalFrameDefault"
Grade = Literal["exact", "near", "native", "python"]


class MixedFrame(Struct, frozen=True):
    """One frame: a Python function, or a native one. Untrusted text.

    `place` is the file of a Python function, or what the native one lies in; `note` says how a
    native frame was reached, if not by the tables of its file, or why it has no name.
    """

    function: str
    place: str
    is_python: bool = False
    is_interpreter: bool = False
    note: str = ""


class Mixed(Struct, frozen=True):
    """A stack, leaf first, and how surely the two kinds of frames belong where they stand."""

    frames: tuple[MixedFrame, ...]
    grade: Grade


def mix(
    native: Sequence[MixedFrame],
    python: Sequence[PythonFrame],
    *,
    is_exact: bool,
    is_whole: bool,
) -> Mixed:
    """Puts each run of Python functions where the interpreter's loop is.

    `is_exact`: both were read while the thread did not move. `is_whole`: the native stack reaches
    the thread's root; where it does not, the outermost runs are put behind it.
    Where loops and runs do not match, the Python frames stand behind the native ones that are above
    the innermost loop, and the grade is "near".
    """
    if not python:
        return Mixed(tuple(native), "native")
    if not native:
        return Mixed(tuple(_to_frames(python)), "python")
    runs = _to_runs(python)
    loop_count = sum(_is_loop(frame) for frame in native)
    matches = loop_count == len(runs) or (loop_count < len(runs) and loop_count and not is_whole)
    if not matches:
        return Mixed((*_take_leaf(native), *_to_frames(python)), "near")
    frames: list[MixedFrame] = []
    waiting = iter(runs)
    for frame in native:
        if _is_loop(frame):
            frames += _to_frames(next(waiting))
        else:
            frames.append(frame)
    for run in waiting:
        frames += _to_frames(run)
    return Mixed(tuple(frames), "exact" if is_exact else "near")


def _is_loop(frame: MixedFrame) -> bool:
    """Compilers split functions, and name the parts `NAME.cold` and the like."""
    return frame.function.partition(".")[0] == EVALUATION


def _to_frames(python: Iterable[PythonFrame]) -> Iterable[MixedFrame]:
    return [MixedFrame(one.function, one.file, is_python=True) for one in python]


def _to_runs(python: Sequence[PythonFrame]) -> list[list[PythonFrame]]:
    runs: list[list[PythonFrame]] = [[]]
    for one in python:
        runs[-1].append(one)
        if one.is_entry:
            runs.append([])
    return [run for run in runs if run]


def _take_leaf(native: Sequence[MixedFrame]) -> list[MixedFrame]:
    """What was called from Python, as far as that can be told: up to the interpreter's code."""
    leaf: list[MixedFrame] = []
    for frame in native:
        if frame.is_interpreter:
            break
        leaf.append(frame)
    return leaf


# How the interpreter calls what is written in C: the same for every such function.
GLUE = (
    "method_vectorcall",
    "cfunction_vectorcall",
    "cfunction_call",
    "PyObject_Vectorcall",
    "_PyObject_",
    "PyObject_Call",
)


def hide_interpreter(frames: Sequence[MixedFrame]) -> tuple[MixedFrame, ...]:
    """Leaves out what the interpreter does between two Python functions, and below the last one.

    What it does above the innermost is kept, but for its ways to call functions written in C.
    """
    places = [place for place, frame in enumerate(frames) if frame.is_python]
    if not places:
        return tuple(frames)
    first, last = places[0], places[-1]
    return tuple(
        frame
        for place, frame in enumerate(frames)
        if frame.is_python
        or (place < first and not (frame.is_interpreter and frame.function.startswith(GLUE)))
        or (first < place < last and not frame.is_interpreter)
    )
