"""What a rule is: a cause, its words, what it needs, and `find`, which proves or rejects it.

One file per cause, named by its id (docs/adding.md). `find(case)` yields a Finding when both
witnesses stand, and Rejections (its own and those of its look-alikes) with the number that rejects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perfkit.analysis.case import Case
from perfkit.analysis.intervals import Share
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Family, Finding, Rejection, Severity
from perfkit.model import word_place

CRITICAL_SHARE = 0.4


@dataclass(frozen=True)
class Rule:
    """One cause. Without its `needs` (metrics or `table.column`s) it is reported as not checked.

    Where the `sources` (collectors) of its needs answered and found nothing, `absent` names what
    there are none of, which rejects the cause.
    `cell` is its place in the USE table (resource, utilisation | saturation | errors).
    """

    id: str
    family: Family
    parent: str
    cell: tuple[str, str]
    state: State
    needs: tuple[str, ...]
    sources: tuple[str, ...]
    absent: str
    excludes: tuple[str, ...]
    summary: str
    meaning: str
    detection: str
    fix: str
    verify: str
    find: Callable[[Case], Iterator[Finding | Rejection]]


def severity_of(share: Share) -> Severity:
    """CRIT from 40 % of the busy time, else WARN."""
    return "crit" if share.value >= CRITICAL_SHARE else "warn"


def make_finding(
    case: Case,
    rule: Rule,
    *,
    title: str,
    share: Share,
    confidence: float,
    culprit: Culprit,
    evidence: tuple[Evidence, ...],
    against: tuple[Evidence, ...] = (),
    tie_with: tuple[str, ...] = (),
    fix: str = "",
) -> Finding:
    """A finding of this rule, with its share of the ledger to judge by."""
    header = case.aligned.header
    return Finding(
        id=rule.id,
        family=rule.family,
        title=title,
        severity=severity_of(share),
        confidence=round(min(max(confidence, 0.0), 0.99), 2),
        share=share.value,
        share_low=share.low,
        share_high=share.high,
        share_of="busy",
        share_ledger=case.ledger.kind,
        culprit=culprit,
        evidence=evidence,
        against=against,
        tie_with=tie_with,
        fix=fix or rule.fix,
        verify=f"perfkit diagnose {word_place(header)} --pid {header.target.main_pid}",
    )
