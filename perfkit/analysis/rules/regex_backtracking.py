"""A pattern goes back and tries again: matching it takes the time of requests."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis.areas import MATCHING
from perfkit.analysis.case import Case
from perfkit.analysis.rules._hot_finding import judge_area
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State
from perfkit.findings import Finding, Rejection


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: a function that is hot in slow requests. Mechanism: it is in a pattern engine."""
    yield judge_area(case, RULE, MATCHING, "matching patterns")


RULE = Rule(
    id="regex_backtracking",
    family="python",
    parent="hot_function",
    cell=("cpu", "utilisation"),
    state=State.ON_CPU,
    needs=("thread_runs.run_ns",),
    sources=("threads",),
    absent="threads of the service",
    excludes=("gil_contention", "hot_function"),
    summary="Matching a regular expression takes the time of requests.",
    meaning=(
        "Most engines of regular expressions try one way to match after the other. With nested\n"
        "or overlapping repeats, (a+)+ or .*.*=, a text that nearly matches has very many ways:\n"
        "each character more may double the time. In Python all other threads wait meanwhile."
    ),
    detection=(
        "Time: as for hot_function: CPU of the serving threads that slow requests have and quick\n"
        "ones lack, or, with --slow, the most of all.\n"
        "Mechanism: 60 % of it or more is spent in an engine that goes back (Python's re and\n"
        "regex, PCRE, Oniguruma, std::regex), by Python stacks, or by native ones where the\n"
        "engine has symbols. An interpreter without symbols, whose pattern was compiled before,\n"
        "shows only who calls: that is hot_function."
    ),
    fix=(
        "look at the pattern that the named function matches: no repeat inside a repeat, no two\n"
        "repeats side by side that match the same; bound the text's length, or use an engine\n"
        "whose time is linear (RE2)"
    ),
    verify="its CPU per request is the same for all texts",
    find=find,
)
