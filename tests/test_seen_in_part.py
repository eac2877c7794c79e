"""What is known in part only is said to be: numbers that chance leaves open, waits not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from test_rules import diagnose, read

from perfkit.analysis import analyse
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.correlate import give_verdict
from perfkit.analysis.growth import find_growth, read_spans
from perfkit.analysis.rules import fsync_in_path, gil_contention
from perfkit.analysis.states import Label, State
from perfkit.findings import Finding, Rejection
from perfkit.model import Capture, Table
from perfkit.report.words import word_load


def without_ages(capture: Capture) -> Capture:
    """As if sockets had been read from /proc/net/tcp, which has no ages of data."""

    def blank(table: Table) -> Table:
        packed = tuple(
            np.full(table.row_count, -1, dtype="<i8").tobytes()
            if column.name in ("last_received_ms", "last_sent_ms")
            else values
            for column, values in zip(table.columns, table.packed, strict=True)
        )
        return structs.replace(table, packed=packed)

    tables = {
        name: blank(table) if name == "socket_runs" else table
        for name, table in capture.tables.items()
    }
    return structs.replace(capture, tables=tables)


def cut(capture: Capture, seconds: float) -> Capture:
    """The first seconds of a capture."""
    clock = capture.header.clock
    shorter = structs.replace(clock, end_ns=clock.start_ns + int(1e9 * seconds))
    return structs.replace(capture, header=structs.replace(capture.header, clock=shorter))


def test_requests_without_ages_are_not_counted() -> None:
    """No number of requests is made up, and health is not claimed of what was not seen."""
    report = analyse(without_ages(read("healthy.threads")))

    assert (report.budget.in_flight_mean, report.budget.answers_per_second) == (None, None)
    assert "its requests could not be counted" in report.verdict.text


def test_waits_that_are_not_seen_are_said() -> None:
    """A service whose requests mostly wait for what nobody sees is not plainly healthy."""
    case = build_case(read("healthy.asyncio"))
    ledger = case.requests_ledger
    labels = tuple(
        Label(State.UNSEEN_WAIT) if one.state is State.ON_CPU else one for one in ledger.labels
    )

    verdict = give_verdict(replace(case, requests_ledger=replace(ledger, labels=labels)), [])

    assert verdict.state == "healthy"
    assert "waits that are not seen from outside" in verdict.text


@pytest.mark.parametrize("name", ["healthy.threads", "healthy.asyncio"])
def test_few_requests_are_counted_to_within_what_chance_leaves(name: str) -> None:
    """Some 40 requests a second, met ten times a second for 4 s: known to a fifth or so."""
    report = diagnose(name)
    error = report.budget.in_flight_error_ratio

    assert error is not None
    assert 0.1 < error < 0.5
    assert f"(+-{100 * error:.0f} %)" in word_load(report)


def test_a_second_of_few_requests_is_no_growth() -> None:
    """One stretch of time does not differ from itself; how often requests were met bounds that."""
    brief = build_case(cut(read("healthy.threads"), 1.0))
    spans = read_spans(brief)
    assert spans is not None
    more = replace(spans, ns=spans.ns * 1.2)

    assert len(spans.answers) <= 2
    assert find_growth(more, spans) == ()
    assert find_growth(replace(more, gap_ns=0.0), replace(spans, gap_ns=0.0)) != ()


def first(case: Case, rule: object) -> Finding | Rejection:
    """What a rule says of a case first."""
    return next(rule.find(case))  # type: ignore[attr-defined]


def test_flushes_after_the_answer_are_not_in_its_path() -> None:
    """Threads that are busy for longer than requests are in flight may flush afterwards."""
    case = build_case(read("fsync_in_path.fires.threads"))
    fewer = replace(case.requests, in_flight=case.requests.in_flight * 0.6)

    found, ruled_out = (
        first(case, fsync_in_path),
        first(replace(case, requests=fewer), fsync_in_path),
    )

    assert isinstance(found, Finding)
    assert isinstance(ruled_out, Rejection)
    assert "beyond the requests in flight" in ruled_out.metric


def test_a_function_is_named_where_serving_threads_hold_the_interpreter() -> None:
    """Each of them holds it now and then; what they compute while they do is the culprit."""
    case = build_case(read("gil_contention.fires.threads"))
    holder = first(case, gil_contention)
    serving = frozenset(case.timeline.threads)

    found = first(replace(case, serving=serving), gil_contention)

    assert isinstance(holder, Finding)
    assert isinstance(found, Finding)
    assert (holder.culprit.kind, found.culprit.kind) == ("thread", "function")
    assert found.culprit.name in found.title
    assert found.culprit.name in found.fix


def test_waits_for_the_lock_behind_a_grown_function_are_no_cause() -> None:
    """The function that requests run comes first; who waits for the lock meanwhile is its echo."""
    names = ("hot_function", "gil_contention")
    own, other = (build_case(read(f"{name}.fires.threads")) for name in names)

    echo, cause = (gil_contention._reject_for_function(one) for one in (own, other))

    assert cause is None
    assert echo is not None
    assert "expand_synonyms" in echo.why
