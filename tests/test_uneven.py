"""Requests of unequal cost: when CPU time does not follow the number of answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perfkit.analysis._grown import has_grown
from perfkit.analysis._hot import (
    COUNTED_HERTZ_MIN,
    Candidate,
    Hot,
    Spent,
    find_grown,
)
from perfkit.analysis._uneven import (
    _excess_ns,
    _is_dearer_than_rest,
    _stands_out,
    find_uneven,
)
from perfkit.analysis.case import build_case
from perfkit.analysis.intervals import Share
from perfkit.analysis.rules.hot_function import find
from perfkit.analysis.stacks import Function
from perfkit.codec import decode
from perfkit.findings import Rejection

BLOCKS = 40
MS = 1e6


def blocks(costly_ratio: float, costly_ms: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """CPU time and answers of blocks in which a part of the requests costs more than 2 ms."""
    chance = np.random.default_rng(seed)
    answers = chance.poisson(15, BLOCKS).astype(float)
    costly = chance.binomial(answers.astype(int), costly_ratio)
    return (2 * answers + costly_ms * costly) * MS, answers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [1, 2])
def test_costly_requests_show_by_their_cost(seed: int, width: int) -> None:
    """Where a quarter costs 24 ms more, the excess is some 18 ms x 6/8, the theory's (1 - p) x."""
    ns, answers = blocks(0.25, 24.0, seed)

    expected = 0.75 * 24 * MS * (6 / 8)
    assert _excess_ns(ns, answers, width) == pytest.approx(expected, rel=0.6)


@pytest.mark.parametrize("width", [1, 2])
def test_requests_that_cost_the_same_leave_nothing(width: int) -> None:
    """However many come in a block, each costs its part."""
    ns, answers = blocks(1.0, 24.0, 1)

    assert _excess_ns(ns, answers, width) == pytest.approx(0.0, abs=1.0)


def test_answers_counted_a_little_wrong_are_not_costly_requests() -> None:
    """Counts that are off by one or two leave far less than a mean request costs."""
    ns, answers = blocks(1.0, 4.0, 2)
    wrong = answers + np.random.default_rng(3).integers(-2, 3, BLOCKS)

    assert _excess_ns(ns, wrong, 2) < 0.5 * ns.sum() / answers.sum()


@pytest.mark.parametrize("width", [1, 2])
def test_cpu_at_its_limit_has_no_costly_requests(width: int) -> None:
    """Where CPU time is the same in every block, only the counts of answers vary."""
    answers = np.random.default_rng(4).poisson(15, BLOCKS).astype(float)
    ns = np.full(BLOCKS, 240 * MS)

    assert _excess_ns(ns, answers, width) == 0


def test_answers_counted_seldom_say_nothing_of_single_blocks() -> None:
    """A function that grew is named where answers are counted often, and not where seldom."""
    raw = (Path(__file__).parent / "captures" / "hot_function.fires.threads.perfkit").read_bytes()
    case = build_case(decode(raw))
    seldom = replace(case, requests=replace(case.requests, arrival_gap_ns=500e6))

    # Sockets were read at 20 Hz at the most.
    assert 20e6 < case.requests.arrival_gap_ns < 200e6
    assert find_grown(case) is not None
    assert find_grown(seldom) is None and find_uneven(seldom) is None
    (rejection,) = (one for one in find(seldom) if isinstance(one, Rejection))
    assert (rejection.observed, rejection.limit) == (2.0, COUNTED_HERTZ_MIN)


@pytest.mark.parametrize(("slower", "is_dearer"), [(1.0, True), (2.5, False)])
def test_a_machine_that_is_slower_for_moments_has_no_costly_requests(
    slower: float, is_dearer: bool
) -> None:
    """In dear blocks the function is dearer than the rest where requests are, not where all is."""
    answers = np.full(BLOCKS, 20.0)
    is_slow = np.arange(BLOCKS) % 3 == 0
    function_ns = 20 * MS * np.where(is_slow, 2.5, 1.0)
    rest_ns = 20 * MS * np.where(is_slow, slower, 1.0)
    one = Candidate("function", "f", function_ns, 0.0, 1.0, Function("f", "f.py"))
    whole_ns = function_ns + rest_ns

    told = _is_dearer_than_rest(one, whole_ns, answers, whole_ns - whole_ns.mean())

    assert told is is_dearer


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_machine", [False, True])
def test_what_makes_requests_costly_stands_out_and_a_slower_machine_does_not(
    seed: int, is_machine: bool
) -> None:
    """A quarter of the requests cost 35 ms more; or all code is dearer for moments."""
    chance = np.random.default_rng(seed)
    answers = chance.poisson(15, BLOCKS).astype(float)
    slow = chance.uniform(0.5, 1.5, BLOCKS) if is_machine else np.ones(BLOCKS)
    costly = answers if is_machine else chance.binomial(answers.astype(int), 0.25)
    function_ns = 35 * MS * costly * slow
    rest_ns = 4 * MS * answers * slow
    one = Candidate("function", "f", function_ns, 0.0, 1.0, Function("f", "f.py"))
    whole_ns = function_ns + rest_ns

    assert _stands_out(one, Spent(whole_ns, whole_ns, (one,)), answers) is not is_machine


def test_a_function_without_a_rest_beside_it_does_not_stand_out() -> None:
    """Where the rest is a tenth, how much that varies is chance."""
    ns, answers = blocks(0.25, 24.0, 1)
    one = Candidate("function", "f", 0.9 * ns, 0.0, 1.0, Function("f", "f.py"))

    assert not _stands_out(one, Spent(ns, ns, (one,)), answers)


@pytest.mark.parametrize(
    ("rest_part", "growth", "is_told"),
    [(0.5, 2.5, True), (0.05, 2.5, False), (0.05, 4.5, True)],
)
def test_a_function_with_nothing_beside_it_must_have_grown_by_more(
    rest_part: float, growth: float, is_told: bool
) -> None:
    """Twice and a half is what a slower machine does to a function that is all there is."""
    one = Candidate("function", "f", np.ones(4), 0.0, 1.0, Function("f", "f.py"))
    hot = Hot(one, MS, growth * MS, 1.0, 2.0, Share(0.5, 0.4, 0.6), 1.0, rest_part)

    assert has_grown(hot) is is_told
