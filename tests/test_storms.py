"""Threads that hand work back and forth, and services that only seem to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from perfkit.analysis.case import Case, build_case
from perfkit.analysis.rules.context_switch_storm import AWAY_RATIO_MAX, find
from perfkit.analysis.stacks import Function
from perfkit.analysis.storms import _asking, find_storm
from perfkit.codec import decode
from perfkit.findings import Finding, Rejection

CAPTURES = Path(__file__).parent / "captures"


def case_of(name: str) -> Case:
    """The case of a recorded capture."""
    return build_case(decode((CAPTURES / f"{name}.perfkit").read_bytes()))


@pytest.mark.parametrize("front", ["threads", "asyncio"])
def test_threads_that_hand_work_back_and_forth_are_a_storm(front: str) -> None:
    """Some microseconds at a time, hundreds of times for each answer; who asks for it is named."""
    case = case_of(f"context_switch_storm.fires.{front}")

    storm = find_storm(case)
    (finding,) = find(case)

    assert storm is not None and len(storm.names) >= 2
    assert storm.slices_per_answer > 500
    assert storm.slice_ns < 20_000
    # The few questions to shards that lie between the same looks do not count.
    assert storm.away_ratio < 0.1 < AWAY_RATIO_MAX
    assert isinstance(finding, Finding)
    assert finding.culprit.name == "relay.encode_candidates (relay.py)"


@pytest.mark.parametrize("front", ["threads", "asyncio"])
@pytest.mark.parametrize(
    "name", ["healthy", "fsync_in_path.fires", "gil_contention.fires", "downstream_slow.fires"]
)
def test_waits_for_others_are_no_storm(name: str, front: str) -> None:
    """Flushes and questions to peers switch as often, and the interpreter's lock does seldom."""
    (rejection,) = find(case_of(f"{name}.{front}"))

    assert isinstance(rejection, Rejection)


def test_time_that_goes_to_the_disk_meanwhile_rejects_it() -> None:
    """The same switches, had the disk most of the time around them."""
    case = case_of("context_switch_storm.fires.asyncio")
    timeline = case.timeline
    flush = case_of("fsync_in_path.fires.asyncio").timeline.labels
    disk = next(one for one in flush if one.flush)
    waits = [disk if one.state.name == "HANDOFF_WAIT" else one for one in timeline.labels]

    (rejection,) = find(replace(case, timeline=replace(timeline, labels=tuple(waits))))

    assert isinstance(rejection, Rejection)
    assert rejection.observed > rejection.limit == AWAY_RATIO_MAX


def test_who_set_the_loop_going_does_not_ask() -> None:
    """The innermost function outside the libraries that hand over, up to the loop's own."""
    put = Function("BaseEventLoop.run_in_executor", "asyncio/base_events.py")
    once = Function("BaseEventLoop._run_once", "asyncio/base_events.py")
    rank, main = Function("rank", "app.py"), Function("main", "app.py")

    assert _asking((put, rank, once, main)) == rank
    assert _asking((put, once, main)) is None


def test_without_counted_answers_nothing_says_what_is_handed_over_for_one() -> None:
    """A pair of threads on a Unix socket that pass 4,000 requests a second: no fault."""
    case = case_of("context_switch_storm.near_miss.unix")
    fires = case_of("context_switch_storm.fires.asyncio")
    untold = replace(fires, requests=replace(fires.requests, counted=False))

    for one in (case, untold):
        (rejection,) = find(one)
        assert isinstance(rejection, Rejection)
        assert (rejection.metric, rejection.observed) == ("answers that were counted", 0)


def test_sixteen_threads_may_share_one_that_answers() -> None:
    """Each switches a thirteenth as often as the one that all ask."""
    storm = find_storm(case_of("context_switch_storm.fires.shared"))

    assert storm is not None
    assert len(storm.names) == 17
    assert storm.function == Function("encode_items", "/redacted/tasks.py")


def test_only_python_s_own_files_hand_over() -> None:
    """A service may have a module of the same name, by its path."""
    put = Function("SimpleQueue.put", "/usr/lib/python3.12/queue.py")
    mine = Function("encode", "/srv/app/tasks.py")

    assert _asking((put, mine)) == mine
    assert _asking((Function("gather", "/usr/lib/python3.12/asyncio/tasks.py"), mine)) == mine
