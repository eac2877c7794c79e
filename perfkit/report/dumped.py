"""A dump made readable: addresses named, stacks mixed, waits worded, equal threads put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from perfkit.analysis.mixed import Grade, MixedFrame, hide_interpreter, mix
from perfkit.dump import CodeObject, Dump, DumpedProcess, DumpedThread
from perfkit.report.waits import Place, Wait, word_wait
from perfkit.symbols.symbolizer import Location, Symbolizer

ENDS = ("root", "truncated", "lost", "too deep")
_GUESSED, _BY_POINTER = 2, 1


class Group(Struct, frozen=True):
    """Threads of a process with one stack that wait alike.

    Shape: `threads` by tid; `waits` are the different texts with their threads, most first.
    Missing: `problem` says why there are no native frames, "" where there are or it runs.
    """

    threads: tuple[tuple[int, str], ...]
    kind: str
    waits: tuple[tuple[str, tuple[int, ...]], ...]
    holders: tuple[int, ...]
    frames: tuple[MixedFrame, ...]
    grade: Grade
    end: str
    problem: str
    moved_count: int


class ReadableProcess(Struct, frozen=True):
    """A process of a dump, its threads in groups, the largest first; idle ones are not sorted out.

    `holding` are the threads that others wait for, with how many wait.
    """

    facts: DumpedProcess
    groups: tuple[Group, ...]
    holding: tuple[tuple[int, str, int], ...]


class Readable(Struct, frozen=True):
    """A dump in words. `gaps` are objects without names, and why."""

    dump: Dump
    processes: tuple[ReadableProcess, ...]
    gaps: tuple[tuple[str, str], ...]


class _Looked(Struct, frozen=True):
    """One thread with its wait and its frames."""

    thread: DumpedThread
    wait: Wait
    frames: tuple[MixedFrame, ...]
    grade: Grade


def read_dump(dump: Dump, symbolizer: Symbolizer) -> Readable:
    """Names all addresses of a dump, and puts its threads into groups."""
    processes = tuple(_read_process(one, symbolizer) for one in dump.processes)
    gaps = tuple((gap.object, gap.reason) for gap in symbolizer.gaps())
    return Readable(dump, processes, gaps)


def _read_process(process: DumpedProcess, symbolizer: Symbolizer) -> ReadableProcess:
    stacks = _name_stacks(process, symbolizer)
    names = {one.tid: one.name for one in process.threads}
    looked = [_look(process, one, stacks, names) for one in process.threads]
    groups = sorted(
        _to_groups(looked), key=lambda one: (-len(one.threads), one.kind, one.threads[0][0])
    )
    waiting: dict[int, int] = defaultdict(int)
    for one in looked:
        if one.wait.holder_tid:
            waiting[one.wait.holder_tid] += 1
    ranked = sorted(waiting.items(), key=lambda one: (-one[1], one[0]))
    holding = tuple((tid, names.get(tid, ""), count) for tid, count in ranked)
    return ReadableProcess(process, tuple(groups), holding)


def _name_stacks(process: DumpedProcess, symbolizer: Symbolizer) -> list[tuple[MixedFrame, ...]]:
    places = list({(frame[0], frame[1]) for stack in process.stacks for frame in stack})
    symbols = symbolizer.names(
        _to_location(process, process.objects[number], offset) for number, offset in places
    )
    found = dict(zip(places, symbols, strict=True))
    return [
        tuple(
            MixedFrame(
                function=found[number, offset].function,
                place=_to_place(process.objects[number]),
                is_interpreter=_is_interpreter(process.objects[number]),
                note=_to_note(flags),
            )
            for number, offset, flags in stack
        )
        for stack in process.stacks
    ]


def _to_location(process: DumpedProcess, place: CodeObject, offset: int) -> Location:
    kind = {"file": "file", "vdso": "vdso", "kernel": "kernel"}.get(place.kind, "jit")
    return Location(
        kind=kind,  # type: ignore[arg-type]
        offset=offset,
        path=place.path,
        build_id=place.build_id,
        pid=process.pid,
    )


def _to_place(place: CodeObject) -> str:
    return PurePosixPath(place.path).name or f"[{place.kind}]"


def _is_interpreter(place: CodeObject) -> bool:
    return PurePosixPath(place.path).name.startswith(("python", "libpython"))


def _to_note(flags: int) -> str:
    if flags & _GUESSED:
        return "guessed"
    return "by frame pointer" if flags & _BY_POINTER else ""


def _look(
    process: DumpedProcess,
    thread: DumpedThread,
    stacks: Sequence[tuple[MixedFrame, ...]],
    names: dict[int, str],
) -> _Looked:
    native = stacks[thread.stack] if thread.stack >= 0 else ()
    python = process.python_stacks[thread.python_stack] if thread.python_stack >= 0 else ()
    mixed = mix(native, python, is_exact=thread.is_exact, is_whole=thread.end == 0)
    place = Place(process, names, tuple(frame.function for frame in native))
    return _Looked(thread, word_wait(thread, place), mixed.frames, mixed.grade)


def _to_groups(looked: Sequence[_Looked]) -> Iterator[Group]:
    found: dict[tuple[object, ...], list[_Looked]] = defaultdict(list)
    for one in looked:
        thread = one.thread
        key = (one.frames, one.wait.kind, one.grade, thread.end, thread.stack_problem)
        found[key].append(one)
    for members in found.values():
        first = members[0]
        waits: dict[str, list[int]] = defaultdict(list)
        for one in members:
            waits[one.wait.text].append(one.thread.tid)
        ranked = sorted(waits.items(), key=lambda one: (-len(one[1]), one[1]))
        yield Group(
            threads=tuple(sorted((one.thread.tid, one.thread.name) for one in members)),
            kind=first.wait.kind,
            waits=tuple((text, tuple(tids)) for text, tids in ranked),
            holders=tuple(sorted({one.wait.holder_tid for one in members} - {0})),
            frames=first.frames,
            grade=first.grade,
            end=ENDS[first.thread.end] if first.thread.end >= 0 else "",
            problem=first.thread.stack_problem,
            moved_count=sum(not one.thread.is_still for one in members),
        )


def shorten(group: Group, *, shows_all: bool) -> tuple[MixedFrame, ...]:
    """The frames to show: without what the interpreter does between Python functions."""
    return group.frames if shows_all else hide_interpreter(group.frames)
