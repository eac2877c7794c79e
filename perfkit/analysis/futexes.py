"""What undecided futex waits are: an idle pool, a lock, or a wait for another thread's answer.

A waiter for a lock carries a request that no busy thread and no pending socket accounts for; an
idle worker carries none. So over the blocks of the window the requests that are not accounted for
are set against the waiters: one request for each waiter is a lock (several threads queue for the
word) or a hand-off (a private word: the request is with another thread); none is an idle pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from perfkit.analysis.align import SLOTS_PER_BLOCK
from perfkit.analysis.columns import Masks, Reals, sum_by
from perfkit.analysis.requests import Requests
from perfkit.analysis.states import IDLE_STATES, Label, State
from perfkit.analysis.timeline import Timeline

# Without requests to hold waits against, one that fills this much of the window is idleness.
IDLE_WINDOW_SHARE = 0.9
# Requests carried per waiter: idle pools measured -0.1 to 0.02, locks 0.90 to 0.99.
CARRIED_MIN = 0.5
# A lock that is waited for is held: some user of it works or sleeps. Samples blur this: locks
# measured 0.01 to 0.14, pools whose requests queue elsewhere 0.18 to 0.78.
HOLDERLESS_SHARE = 0.17
# Where each waiter carries a request and idles somewhere else, it is no pool's: then only the looks
# are too few to have seen the holder (a lock kept for 25 ms, 16 threads: 0.35 and 0.37).
HOLDERLESS_VISITED = 0.5
VISITED_MIN = 0.3
CARRIED_WHOLE = 0.8
# Threads that wait nowhere else are workers at their pool's word: after a lock they would do
# something else, or idle somewhere (locks measured 0.6 to 12 of it, pools 0). Unless one of them
# always works, as the holder of a lock would: pools measured 0.06 and more, or, where they are
# given one job at a time, never two at work.
ELSEWHERE_MAX = 0.02
HOLDERLESS_POOL = 0.04
IN_TURN_QUANTILE, IN_TURN_MAX = 95.0, 1.05
# Where its users hand requests over (they wait at private words), and those waits alone account for
# the requests in twice as small an error, its waiters are idle workers (pools before a thread that
# is at its limit measured 0.05 to 0.37 of the error, locks 4 and more).
HANDED_ERROR_MAX = 0.5
# More than one waiter at a time, or threads that mostly wait on this word, make it a shared one:
# private words are handed from thread to thread by the allocator, but one at a time.
SHARED_WAITERS_MIN = 1.2
LOYALTY_MIN = 0.5
NOT_BUSY = IDLE_STATES | {State.FUTEX, State.HANDOFF_WAIT, State.UNKNOWN}


def resolve_futexes(timeline: Timeline, requests: Requests) -> Timeline:
    """Replaces the label of every undecided futex word by what its waits mean."""
    words = _Words(timeline)
    decide = _shared_decider(words, requests)
    labels = tuple(
        Label(decide(index), name_word(label.culprit)) if index in words.shared else label
        for index, label in enumerate(timeline.labels)
    )
    return _resolve_private(replace(timeline, labels=labels), words, requests)


def _resolve_private(timeline: Timeline, words: _Words, requests: Requests) -> Timeline:
    """Decides the private words, thread by thread: a thread idles in one place.

    Where it idles elsewhere (a shared pool word, a client, a selector), its private waits are
    hand-offs. Threads without such a place are told by what their private waits carry.
    """
    idle_elsewhere = timeline.threads_seen_in(IDLE_STATES)
    undecided = timeline.states() == State.FUTEX
    unsure = undecided & ~idle_elsewhere[timeline.thread]
    idle = _carried(_blocks(words.mean(unsure)), words.unserved(requests)) < CARRIED_MIN
    if not requests.counted:
        idle = words.fills_window(unsure)
    labels = (*timeline.labels, Label(State.HANDOFF_WAIT), Label(State.IDLE_POOL))
    handoff, pool = len(labels) - 2, len(labels) - 1
    label = np.where(undecided, handoff, timeline.label)
    label = np.where(unsure & idle, pool, label)
    return replace(timeline, labels=labels, label=label)


def name_word(word: str) -> str:
    """How reports call the lock behind an undecided word, `pid:address`."""
    return f"lock {word.partition(':')[2]} of pid {word.partition(':')[0]}"


@dataclass(frozen=True)
class _Word:
    """The waits on one futex word: ns per thread, waiters per slot."""

    threads: list[int]
    thread_ns: Reals
    waiters: Reals


class _Words:
    """The undecided futex words of a timeline, and what the threads do otherwise."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.slot_ns = timeline.axis.slot_ns
        states = timeline.states()
        undecided = states == State.FUTEX
        self._undecided_ns = self._by_thread(undecided)
        # Threads that never wait for work, for a client or for each other carry no requests.
        carriers = timeline.threads_seen_in([State.FUTEX, *IDLE_STATES])
        busy = ~np.isin(states, [int(state) for state in NOT_BUSY])
        self._busy = self.mean(busy & carriers[timeline.thread])
        self._busy_entries = busy
        self._in_peer_wait = self.mean(states == State.PEER_WAIT)
        every = [i for i, label in enumerate(timeline.labels) if label.state is State.FUTEX]
        self.shared = {index: word for index in every if self._is_shared(word := self._word(index))}

    def mean(self, entries: Masks) -> Reals:
        """How many threads are in the entries, on average in each slot."""
        slots, ns = self.timeline.slot[entries], self.timeline.ns[entries]
        return sum_by(slots, ns, len(self.slot_ns)) / self.slot_ns

    def unserved(self, requests: Requests) -> Reals:
        """Requests in flight, per block, that no busy thread and no pending socket accounts for."""
        pending = sum((peer.pending for peer in requests.peers), np.zeros_like(self._busy))
        # A thread in recv is the same wait as the pending socket that it reads.
        served = self._busy + np.maximum(pending - self._in_peer_wait, 0.0)
        return _blocks(requests.in_flight + requests.undetermined - served)

    def holderless_share(self, word: _Word) -> float:
        """The share of the waiting in which none of the word's users was busy."""
        of_users = np.isin(self.timeline.thread, word.threads)
        working = np.minimum(self.mean(self._busy_entries & of_users), 1.0)
        return float((word.waiters * (1 - working)).sum() / max(word.waiters.sum(), 1e-9))

    def elsewhere_ratio(self, word: _Word) -> float:
        """How long its users wait for work elsewhere, by the time that they wait here."""
        of_users = np.isin(self.timeline.thread, word.threads)
        idle = of_users & np.isin(self.timeline.states(), [int(state) for state in IDLE_STATES])
        others_ns = float(self._undecided_ns[word.threads].sum() - word.thread_ns.sum())
        elsewhere_ns = float(self.timeline.ns[idle].sum()) + others_ns
        return elsewhere_ns / max(float(word.thread_ns.sum()), 1.0)

    def is_home(self, word: _Word) -> bool:
        """Whether its users wait only here, and at times none works, or never two at a time."""
        states = self.timeline.states()
        of_users = np.isin(self.timeline.thread, word.threads)
        # Neither wait says that a thread works: two may wait while a third does.
        queued = np.isin(states, [int(State.RUNNABLE), int(State.GIL_WAIT)])
        working = self.mean(self._busy_entries & of_users & ~queued)
        return bool(
            self.elsewhere_ratio(word) <= ELSEWHERE_MAX
            and (
                self.holderless_share(word) > HOLDERLESS_POOL
                or np.percentile(working, IN_TURN_QUANTILE) <= IN_TURN_MAX
            )
        )

    def is_accounted_by_hand_offs(self, word: _Word, unserved: Reals) -> bool:
        """Whether the requests are where its users' other waits are, and not with its waiters."""
        of_users = np.isin(self.timeline.thread, word.threads)
        undecided = of_users & (self.timeline.states() == State.FUTEX)
        waiters = _blocks(word.waiters)
        handed = _blocks(self.mean(undecided)) - waiters
        error, lock_error, both_error = (
            float(((unserved - carried) ** 2).mean())
            for carried in (handed, waiters, handed + waiters)
        )
        return error < HANDED_ERROR_MAX * lock_error and error < both_error

    def fills_window(self, entries: Masks) -> bool:
        """Whether the threads of these entries are nearly always in them."""
        ns = self._by_thread(entries)
        window_ns = float((ns > 0).sum()) * float(self.slot_ns.sum())
        return float(ns.sum()) > IDLE_WINDOW_SHARE * window_ns

    def _word(self, label: int) -> _Word:
        entries = self.timeline.label == label
        ns = self._by_thread(entries)
        threads = np.flatnonzero(ns).tolist()
        return _Word(threads, ns[threads], self.mean(entries))

    def _is_shared(self, word: _Word) -> bool:
        """Whether several threads queue for this word, not one after another by chance."""
        if float(word.waiters.max()) > SHARED_WAITERS_MIN:
            return True
        loyalty = word.thread_ns / np.maximum(self._undecided_ns[word.threads], 1.0)
        return len(word.threads) > 1 and float(np.median(loyalty)) >= LOYALTY_MIN

    def _by_thread(self, entries: Masks) -> Reals:
        thread, ns = self.timeline.thread[entries], self.timeline.ns[entries]
        return sum_by(thread, ns, len(self.timeline.threads))


def _shared_decider(words: _Words, requests: Requests) -> Callable[[int], State]:
    unserved = words.unserved(requests)

    def decide(label: int) -> State:
        word = words.shared[label]
        carried = _carried(_blocks(word.waiters), unserved)
        # Requests may queue elsewhere, as for a loop's thread: but a lock also has a holder.
        is_visited = carried >= CARRIED_WHOLE and words.elsewhere_ratio(word) >= VISITED_MIN
        holderless_max = HOLDERLESS_VISITED if is_visited else HOLDERLESS_SHARE
        idle = carried < CARRIED_MIN or words.holderless_share(word) > holderless_max
        idle = idle or words.is_home(word) or words.is_accounted_by_hand_offs(word, unserved)
        if not requests.counted:
            idle = words.fills_window(words.timeline.label == label)
        return State.IDLE_POOL if idle else State.LOCK_WAIT

    return decide


def _blocks(slots: Reals) -> Reals:
    """The mean of each block's slots."""
    block = np.arange(len(slots)) // SLOTS_PER_BLOCK
    count = int(block[-1]) + 1
    return sum_by(block, slots, count) / sum_by(block, np.ones(len(slots)), count)


def _carried(waiters: Reals, unserved: Reals) -> float:
    """Requests carried per waiter: the slope through the origin."""
    weight = float((waiters * waiters).sum())
    return float((waiters * unserved).sum()) / weight if weight > 1e-9 else 0.0
