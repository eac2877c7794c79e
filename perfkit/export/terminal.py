"""The report on a terminal: what it is, how sure, what next, on one screen of 80 x 24.

The order is fixed: the top finding first, Verdict, Saved and Next last, since the last lines are
what a terminal shows. Detail is taken away, and counted, until the first screen holds it all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from msgspec import Struct
from msgspec.structs import replace
from rich.cells import cell_len

from perfkit.export._exporter import Exporter, Look
from perfkit.export._layout import (
    BLANK,
    Line,
    Span,
    commands,
    labelled,
    pad,
    paint,
    wrap,
    wrap_items,
)
from perfkit.findings import Finding, Report
from perfkit.report import words

# One of the 24 lines is the prompt's.
SCREEN_LINES, SCREEN_WIDTH = 23, 80
WIDTH_MIN, WIDTH_MAX = 40, 120
# From here on the other findings are opened too, where the screen still holds them.
WIDTH_OPEN = 100
FINDING_COLUMN = 12
SECTION_COLUMN = 14
CLOSING_COLUMN = 9
# Blocks before which a blank line helps: the closing one first, then the finding, then the rest.
GAPS_BY_WORTH = (-1, 1, 2)
SEVERITY_COLUMN = 7


class Detail(Struct, frozen=True):
    """How many lines each part may have; 0 is no limit. `text` is for whatever is not named."""

    title: int = 0
    text: int = 0
    seen: int = 0
    source: int = 0
    fix: int = 0
    others: int = 0
    ruled_out: int = 0
    not_checked: int = 0
    time: int = 0
    notes: int = 0
    is_open: bool = False


VERBOSE = Detail(is_open=True)
FLOOR = Detail(
    title=2, text=1, seen=1, source=1, fix=1, others=1, ruled_out=1, not_checked=1, time=1, notes=1
)
# What a reader needs to act: it grows before anything else, and before blank lines.
NEEDED = ("title", "text", "notes", "fix", "fix", "others", "seen", "notes")
# Then the rest, by what it is worth, as far as blank lines between the blocks leave room.
WANTED = (
    "time",
    "notes",
    "not_checked",
    "notes",
    "seen",
    "fix",
    "others",
    "ruled_out",
    "not_checked",
    "text",
    "source",
    "ruled_out",
    "not_checked",
    "ruled_out",
)


def write(report: Report, out: IO[Any], look: Look) -> None:
    """Writes the report for a terminal of `look.width` columns."""
    width = min(max(look.width, WIDTH_MIN), WIDTH_MAX)
    out.writelines(f"{paint(line, look.colour)}\n" for line in _fit(report, width, look.verbose))


def _fit(report: Report, width: int, verbose: bool) -> list[Line]:
    """The report with as much detail, and then as many blank lines, as the screen holds."""
    if verbose:
        return _join(_lay_out(report, width, VERBOSE), gap_count=len(GAPS_BY_WORTH))
    # On a narrower screen the same words need more lines.
    line_limit = SCREEN_LINES * SCREEN_WIDTH // min(width, SCREEN_WIDTH)

    def fits(detail: Detail, gap_count: int) -> bool:
        return sum(map(len, _lay_out(report, width, detail))) + gap_count <= line_limit

    opened = replace(FLOOR, is_open=True)
    detail = opened if width >= WIDTH_OPEN and fits(opened, 0) else FLOOR
    gap_count = len(_lay_out(report, width, detail)) - 1
    for parts, gaps in ((NEEDED, 0), (WANTED, gap_count)):
        for part in parts:
            more = replace(detail, **{part: getattr(detail, part) + 1})
            detail = more if fits(more, gaps) else detail
    blocks = _lay_out(report, width, detail)
    return _join(blocks, line_limit - sum(map(len, blocks)))


def _lay_out(report: Report, width: int, detail: Detail) -> list[list[Line]]:
    blocks = [_header(report, width, detail)]
    if report.causes:
        first = _finding(report.causes[0], report, width, detail)
        blocks.append(first + _others(report, width, detail))
    return [*blocks, _account(report, width, detail), _closing(report, width, detail)]


def _join(blocks: list[list[Line]], gap_count: int) -> list[Line]:
    """Sets blocks apart by blank lines, by as many as there are, where they help most."""
    gaps = {place % len(blocks) for place in GAPS_BY_WORTH[: max(gap_count, 0)]}
    lines: list[Line] = []
    for place, block in enumerate(blocks):
        lines += [BLANK, *block] if place in gaps and place else block
    return lines


def _header(report: Report, width: int, detail: Detail) -> list[Line]:
    host, target = words.word_name(report.host), words.word_target(report)
    window = words.word_window(report.window)
    one_line = f"{host}  {target}  {window}"
    if cell_len(one_line) <= width:
        lines: list[Line] = [(Span(host, "bold"), Span(f"  {target}  "), Span(window, "dim"))]
    else:
        first, *more = wrap(f"{host}  {target}", width, 1)
        lines = [(Span(first, "bold"),), *((Span(line, "bold"),) for line in more)]
        lines.append((Span(window, "dim"),))
    load = words.word_load(report)
    lines += [(Span(line),) for line in wrap(load, width, detail.text)] if load else []
    choice = words.word_choice(report)
    if choice:
        lines += [(Span(line, "dim"),) for line in wrap(choice, width, detail.text)]
    return lines


def _finding(finding: Finding, report: Report, width: int, detail: Detail) -> list[Line]:
    room = width - FINDING_COLUMN
    lines = _title(finding, width, detail.title)
    seen = [words.word_evidence(one) for one in finding.evidence]
    against = [words.word_evidence(one) for one in finding.against]
    sources = words.word_sources(finding.evidence)
    rows = [
        ("seen", wrap_items(seen, room, detail.seen, mark="; ")),
        ("explains", wrap(words.word_explained(finding), room, detail.text)),
        ("against", wrap_items(against, room, detail.text, mark="; ")),
        ("tie", wrap(words.word_tie(finding, report.causes), room, detail.text)),
        ("source", wrap_items(sources, room, detail.source, mark="; ")),
    ]
    # Behind the first, a reader who asked for no more wants to know what, not how.
    is_whole = finding is report.causes[0] or detail == VERBOSE
    for label, texts in rows if is_whole else rows[:-1]:
        if texts and texts[0]:
            lines += labelled(f"  {label}", texts, FINDING_COLUMN)
    advice = (("fix", finding.fix), ("verify", finding.verify)) if is_whole else ()
    for label, text in advice:
        lines += _advice(f"  {label}", text, width, detail.fix)
    return lines


def _advice(label: str, text: str, width: int, line_limit: int) -> list[Line]:
    if words.is_command(text):
        return commands(label, [words.word_sentence(text)], FINDING_COLUMN, width)
    if not text:
        return []
    prose = wrap(words.word_sentence(text), width - FINDING_COLUMN, line_limit)
    return labelled(label, prose, FINDING_COLUMN)


def _title(finding: Finding, width: int, line_limit: int) -> list[Line]:
    confidence = words.word_confidence(finding.confidence)
    sure = f"  confidence {confidence}"
    room = width - SEVERITY_COLUMN - len(sure)
    title = words.word_title(finding)
    severity = Span(f" {finding.severity.upper()} ", finding.severity)
    if cell_len(title.split(" ")[0]) > room:
        # An address is never cut for the sake of the confidence, which gets a line of its own.
        first, *more = wrap(title, width - SEVERITY_COLUMN, line_limit)
        head: Line = (severity, Span(" "), Span(first, "bold"))
        last: Line = (Span(" " * SEVERITY_COLUMN + "confidence ", "dim"), Span(confidence))
        return [head, *_continue(more), last]
    first, *_ = wrap(title, room, 1 if line_limit == 1 else 0)
    # Only the first line has the confidence beside it.
    rest = title[len(first) :].strip() if line_limit != 1 else ""
    more = wrap(rest, width - SEVERITY_COLUMN, max(0, line_limit - 1)) if rest else []
    head = (
        severity,
        Span(" "),
        Span(pad(first, room), "bold"),
        Span("  confidence ", "dim"),
        Span(confidence),
    )
    return [head, *_continue(more)]


def _continue(lines: list[str]) -> list[Line]:
    return [(Span(" " * SEVERITY_COLUMN), Span(line, "bold")) for line in lines]


def _others(report: Report, width: int, detail: Detail) -> list[Line]:
    """The findings behind the first: in full where there is room, else one line each."""
    others, lines = report.causes[1:], list[Line]()
    if detail.is_open:
        for finding in others:
            lines += _finding(finding, report, width, detail)
        return lines
    shown = others[: detail.others] if detail.others else others
    for finding in shown:
        lines.append(_title(finding, width, 1)[0])
    if len(others) > len(shown):
        text = f"and {len(others) - len(shown)} more findings (-v)"
        lines.append((Span(" " * SEVERITY_COLUMN + text, "dim"),))
    return lines


def _account(report: Report, width: int, detail: Detail) -> list[Line]:
    """Where the time goes, what was ruled out, what was not checked, and notes."""
    room = width - SECTION_COLUMN
    lines: list[Line] = []
    for label, texts in zip(("Time goes to", ""), _time(report, room, detail), strict=False):
        lines += labelled(label, texts, SECTION_COLUMN, "bold")
    rejected = [_both(words.word_rejection, one) for one in report.ruled_out]
    skipped = [_both(words.word_skip, one) for one in report.not_checked]
    lines += _list_out("Ruled out", rejected, room, detail.ruled_out)
    lines += _list_out("Not checked", skipped, room, detail.not_checked)
    notes = wrap_items(words.list_notes(report), room, detail.notes, mark=" ")
    if notes:
        lines += labelled("Notes", notes, SECTION_COLUMN, "bold")
    return lines


def _both(word: Callable[..., str], entry: Any) -> tuple[str, str]:
    return word(entry), word(entry, brief=True)


def _list_out(label: str, entries: list[tuple[str, str]], room: int, line_limit: int) -> list[Line]:
    """All of a list: in full, else in brief, else in brief as far as it goes."""
    texts = wrap_items([full for full, _ in entries], room, mark="; ")
    if line_limit and len(texts) > line_limit:
        texts = wrap_items([brief for _, brief in entries], room, line_limit)
    return labelled(label, texts or ["nothing"], SECTION_COLUMN, "bold")


def _time(report: Report, room: int, detail: Detail) -> list[list[str]]:
    """The largest rows of each ledger that was filled."""
    found = []
    for name, rows in (("requests", report.budget.requests), ("threads", report.budget.threads)):
        items = words.word_budget(rows) if detail == VERBOSE else words.word_states(rows)
        if items:
            lines = wrap_items([f"{name}: {items[0]}", *items[1:]], room, detail.time, more="")
            if detail != VERBOSE and items[0] not in " ".join(lines):
                # Rather the share without a name than a name that is cut, without its share.
                items = words.word_states(rows, brief=True)
                lines = wrap_items([f"{name}: {items[0]}", *items[1:]], room, detail.time, more="")
            found.append(lines)
    return found or [wrap("nothing: no requests in flight and no busy threads were seen", room)]


def _closing(report: Report, width: int, detail: Detail) -> list[Line]:
    room = width - CLOSING_COLUMN
    verdict = wrap(words.word_sentence(report.verdict.text), room, detail.title)
    lines: list[Line] = [
        (Span(("" if place else "Verdict").ljust(CLOSING_COLUMN), "bold"), Span(line, "bold"))
        for place, line in enumerate(verdict)
    ]
    run, cost = words.word_run(report), words.word_cost(report.cost)
    if cell_len(f"{run}   {cost}") <= room:
        lines += labelled("Saved", [f"{run}   {cost}"], CLOSING_COLUMN, "bold")
    else:
        lines += commands("Saved", [run], CLOSING_COLUMN, width)
        lines += labelled("", wrap(cost, room, detail.text), CLOSING_COLUMN)
    return lines + commands("Next", words.next_commands(report), CLOSING_COLUMN, width)


EXPORTER = Exporter("terminal", suffix=".txt", binary=False, write=write)
