"""Python frames put in the place of the interpreter's own in a native stack.

A run of the interpreter's evaluation is one frame or more in C; the Python functions that it ran
were read apart. Where is known which Python frames were entered from C, each run takes its own;
else all of them stand where the innermost run stood, and what C code lay between runs is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from perfkit.analysis.places import LOCK_WAIT, Place, Role
from perfkit.analysis.stacks import COLLECTION, Function, without_repeats


class PythonFrame(NamedTuple):
    """One Python frame; `is_entry` where C called it, None where that is not known."""

    function: Function
    is_entry: bool | None = None


class Merged(NamedTuple):
    """A stack, leaf first; `is_certain` where no frame's place in it is a guess.

    `has_python` where Python frames stand in it.
    """

    frames: tuple[Function, ...]
    has_python: bool
    is_certain: bool


def merge(native: Sequence[Place], python: Sequence[PythonFrame], *, is_whole: bool) -> Merged:
    """One stack of both; `is_whole`: the native one reaches the thread's root.

    Missing: with no Python frames, those of the interpreter stay as they are.
    """
    if not native:
        return Merged(without_repeats([one.function for one in python]), bool(python), True)
    places = _name_runtime(native)
    runs_at = [at for at, one in enumerate(places) if one.role is Role.EVAL]
    if not python:
        own = _clean(places, has_leaf=True) if runs_at else [one.function for one in places]
        return Merged(without_repeats(own), False, True)
    if not runs_at:
        # What the unwinder lost lies further out: that thread ran Python there.
        outer = [] if is_whole else [one.function for one in python]
        own = [one.function for one in places]
        return Merged(without_repeats([*own, *outer]), bool(outer), is_whole)
    pieces = _cut(places, runs_at)
    outermost = _clean_outer(pieces[-1])
    between = [_clean(piece, has_leaf=not at) for at, piece in enumerate(pieces[:-1])]
    runs = _split(python)
    if runs is not None and len(runs) == len(runs_at):
        pairs = zip(between, runs, strict=True)
        inner = [frame for piece, run in pairs for frame in (*piece, *run)]
        return Merged(without_repeats([*inner, *outermost]), True, True)
    is_certain = runs is None and not any(between[1:])
    inner = [*between[0], *(one.function for one in python)]
    return Merged(without_repeats([*inner, *outermost]), True, is_certain)


def _name_runtime(native: Sequence[Place]) -> list[Place]:
    """The stack with the interpreter's own work named: collection, and waits for its lock."""
    locked = [at for at, one in enumerate(native) if one.role is Role.LOCK]
    places = list(native)
    if locked:
        # How it waits is the business of the C library and the kernel.
        places = [Place(LOCK_WAIT, Role.CODE, True), *native[locked[-1] + 1 :]]
    collecting = [at for at, one in enumerate(places) if one.role is Role.COLLECTOR]
    if not collecting:
        return places
    marked = Place(COLLECTION, Role.CODE, True)
    return [
        marked if at == collecting[-1] else one
        for at, one in enumerate(places)
        if one.role is not Role.COLLECTOR or at == collecting[-1]
    ]


def _cut(places: list[Place], runs_at: list[int]) -> list[list[Place]]:
    """What lies leafward of each run of the interpreter, and what lies outward of the last one."""
    begins = [0, *(at + 1 for at in runs_at)]
    return [places[begin:end] for begin, end in zip(begins, [*runs_at, len(places)], strict=True)]


def _clean(places: list[Place], *, has_leaf: bool) -> list[Function]:
    """What is left of frames without the interpreter's glue; a leaf without a name stays."""
    return [
        one.function for at, one in enumerate(places) if not _is_glue(one, has_leaf and at == 0)
    ]


def _clean_outer(places: list[Place]) -> list[Function]:
    """Outward of Python: nothing, unless a program that is none of the interpreter's called it."""
    if all(_is_glue(one, False) or one.role is Role.START for one in places):
        return []
    return _clean(places, has_leaf=False)


def _is_glue(place: Place, is_leaf: bool) -> bool:
    if place.role is Role.GLUE:
        return True
    return place.role is Role.UNNAMED and place.is_interpreter and not is_leaf


def _split(python: Sequence[PythonFrame]) -> list[list[Function]] | None:
    """The runs of Python frames, innermost first; None where it is not known who was entered."""
    if any(one.is_entry is None for one in python):
        return None
    runs: list[list[Function]] = [[]]
    for place, one in enumerate(python):
        runs[-1].append(one.function)
        if one.is_entry and place < len(python) - 1:
            runs.append([])
    return runs
