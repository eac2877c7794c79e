"""Lines of styled text: wrapping, lists that are cut to a number of lines, and colour."""

from __future__ import annotations

import re

from msgspec import Struct
from rich.cells import cell_len, chop_cells, set_cell_size
from rich.color import ColorSystem
from rich.style import Style

ELLIPSIS = " ..."
# A number and its unit stay on one line.
_GLUE = re.compile(r"(?<=\d) (?=(?:%|[kMGT]?B|[num]?s|Hz|CPUs|x|[num]?s/s)(?![A-Za-z]))")
_STYLES = {
    "crit": Style.parse("bold bright_white on red"),
    "warn": Style.parse("black on yellow"),
    "note": Style.parse("black on cyan"),
    "bold": Style.parse("bold"),
    "dim": Style.parse("dim"),
    "command": Style.parse("cyan"),
}


class Span(Struct, frozen=True):
    """A piece of a line; `style` is a key of the colour table, "" for none."""

    text: str
    style: str = ""


Line = tuple[Span, ...]
BLANK: Line = ()


def paint(line: Line, colour: bool) -> str:
    """The line as text; colour only adds to words that stand there anyway."""
    if not colour:
        return "".join(span.text for span in line).rstrip()
    return "".join(
        _STYLES[span.style].render(span.text, color_system=ColorSystem.STANDARD)
        if span.style
        else span.text
        for span in line
    )


def pad(text: str, width: int) -> str:
    """The text with spaces behind it, up to a number of columns."""
    return text + " " * (width - cell_len(text))


def wrap(text: str, width: int, line_limit: int = 0) -> list[str]:
    """Wraps at spaces; beyond `line_limit` lines (0 = no limit) it ends in an ellipsis.

    Unit: columns of the terminal, of which a name in Chinese, say, takes two a character.
    """
    width = max(width, 8)
    lines = [""]
    for word in _GLUE.sub("\xa0", text).split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines += chop_cells(word, width)
    lines = [line.replace("\xa0", " ").rstrip() for line in lines if line.strip()] or [""]
    if line_limit and len(lines) > line_limit:
        last = lines[line_limit - 1]
        room = width - len(ELLIPSIS)
        last = (set_cell_size(last, room) if cell_len(last) > room else last).rstrip(" ,;")
        lines = [*lines[: line_limit - 1], last + ELLIPSIS]
    return lines


def wrap_items(
    items: list[str], width: int, line_limit: int = 0, *, mark: str = ", ", more: str = " (-v)"
) -> list[str]:
    """Wraps a list; items that do not fit in `line_limit` lines are counted at the end."""
    for count in range(len(items), 0, -1):
        left = len(items) - count
        tail = f"{mark}and {left} more{more}" if left else ""
        lines = wrap(mark.join(items[:count]) + tail, width)
        if not line_limit or len(lines) <= line_limit:
            return lines
    return _cut_first(items, width, line_limit, f"{mark}and {len(items) - 1} more{more}")


def _cut_first(items: list[str], width: int, line_limit: int, tail: str) -> list[str]:
    """As much of the first item as fits, then how many there are besides."""
    if len(items) < 2:
        return wrap(items[0], width, line_limit) if items else []
    *lines, last = wrap(items[0], width - cell_len(tail.rstrip()), line_limit)
    return [*lines, last + tail]


def labelled(label: str, lines: list[str], column: int, style: str = "") -> list[Line]:
    """Text behind a label; the following lines are indented to the same column."""
    first = Span(label.ljust(column), style or "dim")
    rest = Span(" " * column)
    return [(rest if place else first, Span(line)) for place, line in enumerate(lines)]


def commands(label: str, texts: list[str], column: int, width: int) -> list[Line]:
    """Commands, one a line, never wrapped; one that is too long begins at the left edge."""
    lines: list[Line] = []
    head = Span(label.ljust(column), "dim" if label.startswith(" ") else "bold")
    for text in texts:
        if column + cell_len(text) <= width:
            lines.append((head, Span(text, "command")))
        else:
            lines += [(head,)] if head.text.strip() else []
            lines.append((Span(text, "command"),))
        head = Span(" " * column)
    return lines
