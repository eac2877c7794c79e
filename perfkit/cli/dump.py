"""`perfkit dump`: what every thread of a process does at this moment, without stopping it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfkit.cli import _codes
from perfkit.cli._command import Command
from perfkit.cli._live import THIS_HOST, check_reader
from perfkit.cli._options import PidOption, TargetArgument, VerboseOption
from perfkit.cli._screen import find_width, write_out
from perfkit.errors import UsageError

if TYPE_CHECKING:
    from perfkit.analysis.mixed import MixedFrame
    from perfkit.dump import Problem
    from perfkit.report.dumped import Group, Readable, ReadableProcess

WIDTH_MIN, WIDTH_MAX = 60, 120
FRAMES_SHOWN, WAITS_SHOWN, THREADS_SHOWN = 24, 3, 6
NAME_LIMIT, TEXT_LIMIT = 40, 400


def dump(
    target: TargetArgument = THIS_HOST,
    pid: PidOption = None,
    service: Annotated[
        bool, typer.Option("--service", help="All processes of the service around --pid.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    verbose: VerboseOption = False,
) -> int:
    """Show what every thread of a process does at this moment, without stopping it.

    Threads with equal stacks stand together: what they wait for, who holds it, and their Python
    and native frames. The exit code is 4 where stacks are refused.
    """
    if target != THIS_HOST:
        raise UsageError("perfkit dump looks at this host only", fix="perfkit dump . --pid N")
    if pid is None:
        raise UsageError("perfkit dump needs --pid", fix="perfkit dump . --pid N")
    check_reader()
    from perfkit.agent.dump import take_dump
    from perfkit.report.dumped import read_dump
    from perfkit.symbols.symbolizer import Settings, Symbolizer

    taken = take_dump(pid, whole_service=service)
    readable = read_dump(taken, Symbolizer(Settings(folder=_find_folder())))
    if json:
        _write_json(readable)
    else:
        lines = _layout(readable, min(max(find_width(), WIDTH_MIN), WIDTH_MAX), verbose)
        write_out(lambda out: out.writelines(f"{line}\n" for line in lines))
    problems = (*taken.problems, *(one for process in taken.processes for one in process.problems))
    return _codes.INCOMPLETE if any(one.grant for one in problems) else 0


def _layout(readable: Readable, width: int, verbose: bool) -> list[str]:
    lines: list[str] = []
    for process in readable.processes:
        lines += [*_word_process(process, width), ""]
        for group in process.groups:
            lines += [*_word_group(group, width, verbose), ""]
    dump = readable.dump
    problems = [*dump.problems, *(one for each in dump.processes for one in each.problems)]
    lines += _word_problems(problems, readable, width, verbose)
    return lines[:-1] if lines and not lines[-1] else lines


def _word_process(process: ReadableProcess, width: int) -> list[str]:
    from perfkit.units import to_duration

    facts = process.facts
    count = len(facts.threads)
    moved_count = sum(not one.is_still for one in facts.threads)
    still = "none moved" if not moved_count else f"{moved_count} moved meanwhile"
    threads = f"{count} thread{'s' * (count != 1)}"
    python = f"  CPython {facts.python_version}" if facts.python_version else ""
    span = to_duration(facts.span_ns / 1e9)
    head = f"{_safe(facts.name)} (pid {facts.pid}){python}  {threads} in {span}, {still}"
    lines = _hang("", head, width)
    if facts.gil is not None and facts.gil.is_held and facts.gil.holder_tid:
        names = {one.tid: one.name for one in facts.threads}
        tid = facts.gil.holder_tid
        lines += _hang("GIL      ", f"held by {tid} ({_safe(names.get(tid, '?'))})", width)
    for tid, name, waiting in process.holding:
        lines += _hang("Holder   ", f"{waiting} wait for {tid} ({_safe(name)})", width)
    for left_out, words in ((facts.left_out_count, "left out"), (facts.gone_count, "ended")):
        if left_out:
            lines += _hang("Threads  ", f"{left_out} {words}", width)
    return lines


def _word_group(group: Group, width: int, verbose: bool) -> list[str]:
    from perfkit.report.dumped import shorten
    from perfkit.report.escape import to_printable

    count = len(group.threads)
    shown = group.waits if verbose else group.waits[:WAITS_SHOWN]
    lines: list[str] = []
    for place, (text, tids) in enumerate(shown):
        head = f"{count if place == 0 else '':>4} "
        share = f" ({len(tids)})" if len(group.waits) > 1 else ""
        verb = to_printable(text, TEXT_LIMIT) if count == 1 else _to_plural(text)
        lines += _hang(head, f"{verb}{share}", width)
    if len(group.waits) > len(shown):
        lines.append(f"     and {len(group.waits) - len(shown)} more such")
    lines += _hang("     by  ", _word_threads(group, verbose), width)
    if group.moved_count and group.kind != "running":
        few = "it" if count == 1 else f"{group.moved_count} of them"
        lines += _hang("     ", f"{few} moved meanwhile", width)
    frames = shorten(group, shows_all=verbose)
    limit = len(frames) if verbose else FRAMES_SHOWN
    lines += [_word_frame(frame, width) for frame in frames[:limit]]
    if len(frames) > limit:
        lines.append(f"         and {len(frames) - limit} more frames (-v)")
    return [*lines, *_word_quality(group, width)]


def _word_quality(group: Group, width: int) -> list[str]:
    """What is not as sure, or not as whole, as it looks."""
    parts = []
    if group.problem:
        parts.append(f"no native frames: {group.problem}")
    if group.grade == "near":
        parts.append("where Python and native frames meet is not certain")
    if group.end not in ("", "root"):
        parts.append(f"the stack is {group.end}: outer frames are missing")
    return [line for part in parts for line in _hang("         ", part, width)]


def _to_plural(text: str) -> str:
    """The same words of several: "waits for" -> "wait for", "is blocked" -> "are blocked"."""
    from perfkit.report.escape import to_printable

    verb, _, rest = text.partition(" ")
    plural = {"is": "are", "flushes": "flush"}.get(verb.rstrip(","), verb.rstrip(",")[:-1])
    comma = "," if verb.endswith(",") else ""
    return to_printable(f"{plural}{comma} {rest}".rstrip(), TEXT_LIMIT)


def _word_threads(group: Group, verbose: bool) -> str:
    shown = group.threads if verbose else group.threads[:THREADS_SHOWN]
    words = [f"{tid} {_safe(name)}".rstrip() for tid, name in shown]
    more = len(group.threads) - len(shown)
    return ", ".join(words) + (f", and {more} more" if more else "")


def _word_frame(frame: MixedFrame, width: int) -> str:
    """The function on the left, where it lies on the right."""
    from perfkit.report.escape import to_printable

    head = "      py " if frame.is_python else "         "
    place_width = max(16, width // 3)
    place = _cut_left(to_printable(frame.place), place_width)
    note = f"  ({frame.note})" if frame.note else ""
    room = width - len(head) - len(place) - 2
    function = to_printable(f"{frame.function}{note}", room)
    return f"{head}{function.ljust(room)}  {place}"


def _cut_left(text: str, width: int) -> str:
    """The end of a path tells most."""
    return text if len(text) <= width else "..." + text[len(text) - width + 3 :]


def _word_problems(
    problems: list[Problem], readable: Readable, width: int, verbose: bool
) -> list[str]:
    from perfkit.report.escape import to_printable

    lines: list[str] = []
    for one in problems:
        lines += _hang("Not seen  ", to_printable(one.what, TEXT_LIMIT), width)
        if one.grant:
            lines += _hang("  needs   ", to_printable(one.grant, TEXT_LIMIT), width)
    if readable.dump.left_out_count:
        lines += _hang("Not seen  ", f"{readable.dump.left_out_count} more processes", width)
    for name, reason in readable.gaps if verbose else ():
        lines += _hang("No names  ", to_printable(f"{name}: {reason}", TEXT_LIMIT), width)
    return lines


def _safe(text: str) -> str:
    from perfkit.report.escape import to_printable

    return to_printable(text, NAME_LIMIT)


def _hang(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * max(len(head), 2),
        break_on_hyphens=False,
    ) or [head.rstrip()]


def _write_json(readable: Readable) -> None:
    import msgspec

    content: dict[str, Any] = {
        **msgspec.to_builtins(readable.dump),
        "gaps": [{"object": name, "reason": reason} for name, reason in readable.gaps],
    }
    for told, process in zip(content["processes"], readable.processes, strict=True):
        told["groups"] = msgspec.to_builtins(process.groups)
    write_out(lambda out: print(msgspec.json.encode(content).decode(), file=out))


def _find_folder() -> Any:
    """Where tables of symbols are kept between runs."""
    from perfkit.store.runs import find_folder

    return find_folder().with_name("symbols")


COMMAND = Command(
    "dump",
    group="Diagnose",
    summary="What every thread does now: stacks, waits, who holds what",
    run=dump,
    examples=(("perfkit dump . --pid 48213", "what every thread of a process does now"),),
)
