"""The ledger of requests against threads whose time is known and a count of requests that is not.

Requests in flight are met now and then; what the threads did is exact. A wrong count in one block
must not take time from what the threads did there and charge it to somebody else elsewhere.
"""

from __future__ import annotations

import numpy as np
import pytest

from perfkit.analysis.align import SLOTS_PER_BLOCK, Axis
from perfkit.analysis.columns import Reals
from perfkit.analysis.ledger import Ledger
from perfkit.analysis.request_ledger import request_ledger
from perfkit.analysis.requests import Requests
from perfkit.analysis.states import Label, State

AXIS = Axis(0, 10_000_000_000)
WHOLE_NS = 10e9


def one_thread(busy_ratio: float) -> Ledger:
    """A thread that flushes for so much of every slot."""
    slots = np.arange(AXIS.slot_count)
    nobody = np.zeros(AXIS.slot_count, dtype=np.int64)
    return Ledger(
        kind="threads",
        axis=AXIS,
        threads=((1, 1),),
        labels=(Label(State.DISK_WAIT, flush=True),),
        slot=slots,
        thread=nobody,
        label=nobody,
        ns=AXIS.slot_ns * busy_ratio,
        inferred=np.zeros(AXIS.slot_count, dtype=bool),
    )


def met(in_flight: Reals, gap_ns: float) -> Requests:
    """Requests in flight per slot, of which each is met once a gap."""
    nothing = np.zeros(AXIS.slot_count)
    return Requests(
        counted=True,
        timed=True,
        in_flight=in_flight,
        undetermined=nothing,
        arrivals=np.ones(AXIS.slot_count),
        arrival_gap_ns=gap_ns,
        answer_count=100.0,
        unread=nothing,
        accept_queue=nothing,
        peers=(),
        calls={},
        one_way_count=0,
    )


def by_chance(mean: float, gap_ns: float, seed: int) -> Reals:
    """What a block's few looks count where `mean` are in flight."""
    looks = AXIS.slot_ns[0] * SLOTS_PER_BLOCK / gap_ns
    counted = np.random.default_rng(seed).poisson(mean * looks, AXIS.block_count) / looks
    return np.repeat(counted, SLOTS_PER_BLOCK)[: AXIS.slot_count]


def seen_ns(ledger: Ledger) -> float:
    """What was seen in threads, not charged by rule."""
    return float(ledger.ns[~ledger.inferred].sum())


def idle(ratio: float) -> Reals:
    """So idle are the threads."""
    return np.full(AXIS.block_count, ratio)


@pytest.mark.parametrize("seed", range(5))
def test_what_threads_do_is_not_lost_to_a_count_by_chance(seed: int) -> None:
    """One thread carries the only request: nothing is left over that someone else is charged."""
    in_flight = by_chance(0.9, gap_ns=90e6, seed=seed)
    in_flight *= 0.9 / in_flight.mean()

    ledger = request_ledger(one_thread(0.9), met(in_flight, 90e6), idle(0.1))

    assert ledger.total_ns() == pytest.approx(0.9 * WHOLE_NS, rel=0.01)
    assert seen_ns(ledger) > 0.87 * ledger.total_ns()


def test_stretches_in_which_threads_carry_no_requests_stay_apart() -> None:
    """Busy without a request for 6 s, then 2 in flight: the work before is not theirs."""
    in_flight = np.where(np.arange(AXIS.slot_count) < 0.6 * AXIS.slot_count, 0.0, 2.0)

    ledger = request_ledger(one_thread(0.9), met(in_flight, 90e6), idle(0.1))

    assert ledger.total_ns() == pytest.approx(0.8 * WHOLE_NS)
    assert seen_ns(ledger) == pytest.approx(0.36 * WHOLE_NS, rel=0.01)


def test_exact_counts_are_held_against_every_block() -> None:
    """Exact counts are taken as they are: every other block has a request, the rest none."""
    blocks = np.arange(AXIS.slot_count) // SLOTS_PER_BLOCK
    in_flight = np.where(blocks % 2 == 0, 1.0, 0.0)

    exact = request_ledger(one_thread(0.5), met(in_flight, 0.0), idle(0.5))
    seen_now_and_then = request_ledger(one_thread(0.5), met(in_flight, 90e6), idle(0.5))

    assert exact.share(State.DISK_WAIT) < 0.8
    assert seen_now_and_then.share(State.DISK_WAIT) == pytest.approx(1.0)
