"""Where the time went, in every verdict: the two ledgers as a few lines."""

from __future__ import annotations

import math

from perfkit.analysis.case import Case
from perfkit.analysis.intervals import NORMAL_90
from perfkit.analysis.ledger import Ledger
from perfkit.analysis.states import STATE_WORDS, State
from perfkit.findings import Budget, BudgetRow

ROW_LIMIT = 12
# Culprits are told apart where they are the answer; elsewhere they only split one line into many.
_WITH_CULPRIT = frozenset(
    {
        State.PEER_WAIT,
        State.GIL_WAIT,
        State.THROTTLED,
        State.DISK_WAIT,
        State.LOCK_WAIT,
        State.SEND_WAIT,
    }
)


def make_budget(case: Case) -> Budget:
    """Words both ledgers, and what is known of the requests."""
    window_s = case.window_ns / 1e9
    requests = case.requests
    rate = requests.answer_count / window_s
    mean = case.requests_ledger.total_ns() / case.window_ns
    counted = requests.counted and requests.timed
    return Budget(
        requests=_rows(case.requests_ledger) if counted else (),
        threads=_rows(case.threads),
        in_flight_mean=mean if counted else None,
        answers_per_second=rate if counted else None,
        latency_mean_ms=mean / rate * 1e3 if counted and rate > 0 else None,
        busy_threads_mean=case.working_ns / case.window_ns,
        undetermined_share=requests.undetermined_share,
        in_flight_error_ratio=_error_ratio(case) if counted else None,
    )


def _error_ratio(case: Case) -> float | None:
    """What chance leaves open: each request is met once a gap between polls (Poisson)."""
    met_ns = float((case.requests.in_flight * case.aligned.axis.slot_ns).sum())
    if met_ns <= 0 or case.requests.answer_count < 1:
        return None
    return NORMAL_90 * math.sqrt(case.requests.arrival_gap_ns / met_ns)


def _rows(ledger: Ledger) -> tuple[BudgetRow, ...]:
    total = ledger.total_ns()
    sums: dict[tuple[str, str], float] = {}
    for index, label in enumerate(ledger.labels):
        ns = float(ledger.ns[ledger.label == index].sum())
        culprit = label.culprit if label.state in _WITH_CULPRIT else ""
        key = (STATE_WORDS.get(label.state, label.state.name.lower()), culprit)
        sums[key] = sums.get(key, 0.0) + ns
    ranked = sorted(
        ((key, ns) for key, ns in sums.items() if ns >= 1.0), key=lambda one: (-one[1], one[0])
    )
    shown = ranked[:ROW_LIMIT]
    rest = sum(ns for _, ns in ranked[ROW_LIMIT:])
    rows = [BudgetRow(state, culprit, ns / 1e9, ns / total) for (state, culprit), ns in shown]
    if rest > 0:
        rows.append(BudgetRow("everything else", "", rest / 1e9, rest / total))
    return tuple(rows)
