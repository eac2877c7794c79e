"""What undecided futex waits are: an idle pool, a lock, or a wait for another thread's answer.

A word whose waiters remain although no request is unserved is where idle workers wait; a word that
several threads queue for, never more of them than requests in flight, is a lock; a private word
that one thread waits on is a hand-off: its request is with another thread.
"""

from __future__ import annotations

import numpy as np

from perfkit.analysis.columns import Integers, Reals, sum_by
from perfkit.analysis.requests import Requests
from perfkit.analysis.states import IDLE_STATES, Label, State
from perfkit.analysis.timeline import Timeline

# Without requests to hold waits against, one that fills this much of the window is idleness.
IDLE_WINDOW_SHARE = 0.9
NOT_BUSY = IDLE_STATES | {State.FUTEX, State.HANDOFF_WAIT, State.TIMER_WAIT, State.UNKNOWN}


def resolve_futexes(timeline: Timeline, requests: Requests) -> Timeline:
    """Replaces the label of every undecided futex word by what its waits mean."""
    busy = busy_threads(timeline)
    labels = list(timeline.labels)
    for index, label in enumerate(labels):
        if label.state is State.FUTEX:
            entries = timeline.label == index
            labels[index] = Label(_decide(timeline, entries, busy, requests), label.culprit)
    return Timeline(
        timeline.axis,
        timeline.threads,
        tuple(labels),
        timeline.thread,
        timeline.slot,
        timeline.label,
        timeline.ns,
    )


def busy_threads(timeline: Timeline) -> Reals:
    """How many threads were in a state that is certainly busy, on average in each slot."""
    doing = ~np.isin(timeline.states(), [int(state) for state in NOT_BUSY])
    ns = sum_by(timeline.slot[doing], timeline.ns[doing], timeline.axis.slot_count)
    return ns / timeline.axis.slot_ns


def _decide(timeline: Timeline, entries: Integers, busy: Reals, requests: Requests) -> State:
    slots, ns = timeline.slot[entries], timeline.ns[entries]
    axis = timeline.axis
    waiters = sum_by(slots, ns, axis.slot_count) / axis.slot_ns
    thread_count = len(set(timeline.thread[entries].tolist()))
    if requests.counted:
        in_flight = requests.in_flight + requests.undetermined
        needless = (in_flight <= busy) | (waiters > in_flight + 0.5)
        if waiters[needless].sum() > 0.5 * waiters.sum():
            return State.IDLE_POOL
    elif ns.sum() > IDLE_WINDOW_SHARE * thread_count * axis.slot_ns.sum():
        return State.IDLE_POOL
    return State.LOCK_WAIT if thread_count > 1 else State.HANDOFF_WAIT
