"""`perfkit explain`: what a cause means, how it is found, how to fix it. Offline."""

from __future__ import annotations

import difflib
import re
import textwrap
from typing import Annotated, Any

import typer

from perfkit.cli._command import Command
from perfkit.cli._complete import list_causes
from perfkit.cli._live import check_reader
from perfkit.cli._screen import find_width, write_out
from perfkit.errors import UsageError

WIDTH_MAX = 100
INDENT = "  "
# A line that begins so begins a paragraph; other line breaks in a rule's texts are only wraps.
_PARAGRAPH = re.compile(r"\n(?=[A-Z][A-Za-z ]{2,24}: )|\n\n+")


def explain(
    cause: Annotated[
        str,
        typer.Argument(
            metavar="[CAUSE]",
            help="The id of a cause; without, all are listed.",
            autocompletion=list_causes,
        ),
    ] = "",
) -> int:
    """What a cause means, how it is found, and how to fix it (offline)."""
    from perfkit import discover

    check_reader()
    found: dict[str, Any] = discover.load_all("perfkit.analysis.rules", "RULE")
    rules = {rule.id: rule for rule in found.values()}
    if cause and cause not in rules:
        raise UsageError(f"no cause is called {cause!r}", fix=_suggest(cause, sorted(rules)))
    lines = _explain(rules[cause]) if cause else _list(rules)
    write_out(lambda out: out.writelines(f"{line}\n" for line in lines))
    return 0


def _suggest(cause: str, ids: list[str]) -> str:
    near = difflib.get_close_matches(cause.lower().replace("-", "_"), ids, n=3, cutoff=0.5)
    return f"perfkit explain {near[0]}" if near else f"one of {', '.join(ids)}"


def _list(rules: dict[str, Any]) -> list[str]:
    column = max(map(len, rules), default=0) + 2
    lines = ["Causes that this version looks for:", ""]
    lines += [f"  {name.ljust(column)}{rules[name].summary}" for name in sorted(rules)]
    return [*lines, "", "perfkit explain CAUSE says more of one."]


def _explain(rule: Any) -> list[str]:
    lines = [*_wrap(f"{rule.id} ({rule.family}): {rule.summary}", "")]
    parts = (
        ("What it means", rule.meaning),
        ("How it is found", rule.detection),
        ("How to fix it", rule.fix),
        ("How to verify", rule.verify),
        ("What it needs", ", ".join(rule.needs)),
        ("What it must not be confused with", ", ".join(rule.excludes)),
    )
    for title, text in parts:
        if text:
            lines += ["", title]
            for paragraph in _PARAGRAPH.split(text.strip()):
                lines += _wrap(paragraph, INDENT)
    return lines


def _wrap(text: str, indent: str) -> list[str]:
    width = min(find_width(), WIDTH_MAX)
    words = " ".join(text.split())
    return textwrap.wrap(
        words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


COMMAND = Command(
    "explain",
    group="Diagnose",
    summary="What a cause means, how it is found, how to fix it (offline)",
    run=explain,
    examples=(("perfkit explain cpu_throttled", "what a finding means"),),
)
