"""The profile as a tree on a terminal: the share of each function, with what it calls below it.

A function that is nearly all of its caller's time stands right below it, without a further indent.
What is too small is left out, and counted; `-v` shows nearly all.
"""

from __future__ import annotations

from typing import IO, Any, NamedTuple

from rich.cells import set_cell_size

from perfkit.analysis.profile import Profile, ProfileFrame
from perfkit.export._exporter import Exporter, Look
from perfkit.export._flame import DEPTH_LIMIT, Branch, merge_stacks, to_words, word_time, word_title
from perfkit.export._layout import BLANK, Line, Span, paint, wrap
from perfkit.report.escape import to_printable
from perfkit.units import to_percent

WIDTH_MIN, WIDTH_MAX = 40, 160
LINES_MAX = 40
# From 0.5 % on a function is shown, or from as much as it takes for a screen or two.
LEAST_RATIOS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
LEAST_RATIO_VERBOSE = 0.001
LINES_MAX_VERBOSE = 5_000
# So much of the caller's time makes a chain of the two.
CHAIN_RATIO = 0.95
BOLD_RATIO = 0.1
INDENT_MAX = 24
COLUMNS = 18
_NEAR = "~ "


class _Row(NamedTuple):
    """One function of the tree."""

    frame: ProfileFrame
    branch: Branch
    indent: int


class _Cut(NamedTuple):
    """The rows that are shown, and how many functions below `least_ratio` are not."""

    rows: list[_Row]
    left_count: int
    least_ratio: float


def write(profile: Profile, out: IO[Any], look: Look) -> None:
    """Writes the tree for a terminal of `look.width` columns."""
    width = min(max(look.width, WIDTH_MIN), WIDTH_MAX)
    whole = merge_stacks(profile)
    cut = _choose(whole, look.verbose)
    lines: list[Line] = [(Span(one, "bold"),) for one in wrap(_clean(word_title(profile)), width)]
    lines += [(Span(one),) for one in wrap(word_time(profile), width)]
    lines += [(Span(one, "dim"),) for note in profile.notes for one in wrap(_clean(note), width)]
    lines += [BLANK, (Span("   total     self  function", "dim"),)]
    for row in cut.rows:
        lines += _lay_out(row, whole.time_us, width)
    if told := _word_cut(cut, look.verbose):
        lines += [(Span(one, "dim"),) for one in wrap(told, width)]
    lines += _closing(profile)
    out.writelines(f"{paint(line, look.colour)}\n" for line in lines)


def _choose(whole: Branch, verbose: bool) -> _Cut:
    """The functions that are worth a line: all from a share on that leaves few enough lines."""
    if verbose:
        return _walk(whole, LEAST_RATIO_VERBOSE, LINES_MAX_VERBOSE)
    cuts = (_walk(whole, ratio, LINES_MAX) for ratio in LEAST_RATIOS[:-1])
    whole_ones = (one for one in cuts if len(one.rows) < LINES_MAX)
    return next(whole_ones, None) or _walk(whole, LEAST_RATIOS[-1], LINES_MAX)


def _walk(whole: Branch, least_ratio: float, lines_max: int) -> _Cut:
    """The tree from the outermost frames on, what has most time first."""
    least_us = max(least_ratio * whole.time_us, 1.0)
    rows: list[_Row] = []
    left_count = 0
    waiting: list[tuple[ProfileFrame | None, Branch, int, int]] = [(None, whole, 0, 0)]
    while waiting:
        frame, branch, indent, level = waiting.pop()
        if len(rows) >= lines_max:
            left_count += 1
            continue
        if frame is not None:
            rows.append(_Row(frame, branch, indent))
        ranked = branch.ranked()
        shown = [one for one in ranked if one[1].time_us >= least_us and level < DEPTH_LIMIT]
        left_count += len(ranked) - len(shown)
        is_chain = bool(shown) and shown[0][1].time_us >= CHAIN_RATIO * branch.time_us
        # The groups of threads stand at the edge, what they do one step in.
        deeper = indent if (is_chain and level > 1) or not level else indent + 1
        waiting += [(below, part, deeper, level + 1) for below, part in reversed(shown)]
    return _Cut(rows, left_count, least_ratio)


def _word_cut(cut: _Cut, verbose: bool) -> str:
    if not cut.left_count:
        return ""
    functions = "a function" if cut.left_count == 1 else f"{cut.left_count} functions"
    more = "" if verbose else " (-v)"
    return f"{functions} of less than {to_percent(cut.least_ratio)}, with all below, left out{more}"


def _lay_out(row: _Row, whole_us: int, width: int) -> list[Line]:
    total, own = (part / max(whole_us, 1) for part in (row.branch.time_us, row.branch.self_us))
    indent = "  " * min(row.indent, INDENT_MAX, (width - COLUMNS) // 4)
    is_near = not row.frame.kind and row.branch.near_us * 2 > row.branch.time_us
    mark = _NEAR if is_near and row.frame.origin != "group" else ""
    room = width - COLUMNS - len(indent) - len(mark)
    name = to_printable(to_words(row.frame), room)
    own_text = f"{100 * own:6.1f} %" if row.branch.self_us else " " * 8
    style = "bold" if own >= BOLD_RATIO else ""
    head = f"{100 * total:6.1f} % {own_text} "
    return [(Span(set_cell_size(head, COLUMNS)), Span(indent + mark + name, style))]


def _closing(profile: Profile) -> list[Line]:
    """What may be done next, of a run that can be found again."""
    if not profile.run:
        return []
    which = {"cpu": "", "off-cpu": " --off-cpu", "wall": " --wall", "host": " --host"}[profile.of]
    command = f"perfkit flame {_clean(profile.run)}{which} --to svg -o flame.svg"
    return [BLANK, (Span("Next  ", "bold"), Span(command, "command"))]


def _clean(text: str) -> str:
    return to_printable(text)


EXPORTER = Exporter("tree", suffix=".txt", binary=False, write=write, of="profile")
