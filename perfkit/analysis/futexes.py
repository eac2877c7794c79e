"""What undecided futex waits are: an idle pool, a lock, or a wait for another thread's answer.

An idle pool's workers wait although no request is unserved, while none of them works, and the more
of them the fewer requests there are. A lock's waiters stand behind a holder, and grow with the
requests. A private word that one thread at a time waits on is a hand-off: its request is with
another thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.columns import Masks, Reals, sum_by
from perfkit.analysis.requests import Requests
from perfkit.analysis.states import IDLE_STATES, Label, State
from perfkit.analysis.timeline import Timeline

# Without requests to hold waits against, one that fills this much of the window is idleness.
IDLE_WINDOW_SHARE = 0.9
NEEDLESS_SHARE = 0.5
# A lock that is waited for is held, so some user of it works or sleeps; samples blur this a little.
HOLDERLESS_SHARE = 0.1
LOCK_CORRELATION_MIN = 0.3
# More than one waiter at a time, or threads that mostly wait on this word, make it a shared one:
# private words are handed from thread to thread by the allocator, but one at a time.
SHARED_WAITERS_MIN = 1.2
LOYALTY_MIN = 0.5
NOT_BUSY = IDLE_STATES | {State.FUTEX, State.HANDOFF_WAIT, State.TIMER_WAIT, State.UNKNOWN}


def resolve_futexes(timeline: Timeline, requests: Requests) -> Timeline:
    """Replaces the label of every undecided futex word by what its waits mean."""
    words = _Words(timeline)
    decide = _decider(words, requests)
    labels = tuple(
        Label(decide(index), _word_name(label.culprit)) if label.state is State.FUTEX else label
        for index, label in enumerate(timeline.labels)
    )
    return replace(timeline, labels=labels)


def _word_name(word: str) -> str:
    return f"lock {word.partition(':')[2]} of pid {word.partition(':')[0]}"


@dataclass(frozen=True)
class _Word:
    """The waits on one futex word: ns per thread, waiters per slot."""

    threads: list[int]
    thread_ns: Reals
    waiters: Reals


class _Words:
    """The undecided futex words of a timeline, and what their users do otherwise."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.slot_ns = timeline.axis.slot_ns
        states = timeline.states()
        self._busy = ~np.isin(states, [int(state) for state in NOT_BUSY])
        self._may_hold = self._busy | (states == State.TIMER_WAIT)
        self.busy = self._mean(self._busy)
        undecided = states == State.FUTEX
        count = len(timeline.threads)
        self.undecided_ns = sum_by(timeline.thread[undecided], timeline.ns[undecided], count)

    def word(self, label: int) -> _Word:
        entries = self.timeline.label == label
        threads = sorted(set(self.timeline.thread[entries].tolist()))
        count = len(self.timeline.threads)
        ns = sum_by(self.timeline.thread[entries], self.timeline.ns[entries], count)
        return _Word(threads, ns[threads], self._mean(entries))

    def is_shared(self, word: _Word) -> bool:
        """Whether several threads queue for this word, not one after another by chance."""
        if float(word.waiters.max()) > SHARED_WAITERS_MIN:
            return True
        loyalty = word.thread_ns / np.maximum(self.undecided_ns[word.threads], 1.0)
        return len(word.threads) > 1 and float(np.median(loyalty)) >= LOYALTY_MIN

    def holderless_share(self, word: _Word) -> float:
        """The share of the waiting in which none of the word's users was busy."""
        of_users = np.isin(self.timeline.thread, word.threads)
        working = np.minimum(self._mean(self._may_hold & of_users), 1.0)
        return float((word.waiters * (1 - working)).sum() / max(word.waiters.sum(), 1e-9))

    def _mean(self, entries: Masks) -> Reals:
        slots, ns = self.timeline.slot[entries], self.timeline.ns[entries]
        return sum_by(slots, ns, len(self.slot_ns)) / self.slot_ns


def _decider(words: _Words, requests: Requests) -> Callable[[int], State]:
    in_flight = requests.in_flight + requests.undetermined
    served = words.busy + sum((peer.pending for peer in requests.peers), np.zeros_like(in_flight))

    def decide(label: int) -> State:
        word = words.word(label)
        shared = words.is_shared(word)
        if not requests.counted:
            window_ns = len(word.threads) * float(words.slot_ns.sum())
            idle = float(word.thread_ns.sum()) > IDLE_WINDOW_SHARE * window_ns
        else:
            needless = (in_flight <= served) | (word.waiters > in_flight + 0.5)
            idle = word.waiters[needless].sum() > NEEDLESS_SHARE * word.waiters.sum()
            idle = idle or (shared and _waits_for_work(words, word, in_flight))
        if idle:
            return State.IDLE_POOL
        return State.LOCK_WAIT if shared else State.HANDOFF_WAIT

    return decide


def _waits_for_work(words: _Words, word: _Word, in_flight: Reals) -> bool:
    if words.holderless_share(word) <= HOLDERLESS_SHARE:
        return False
    if np.std(word.waiters) < 1e-6 or np.std(in_flight) < 1e-6:
        return True
    return float(np.corrcoef(word.waiters, in_flight)[0, 1]) < LOCK_CORRELATION_MIN
