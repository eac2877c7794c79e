"""Requests queue for a lock; says who holds it, and what the holder does meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perfkit.analysis.areas import LOGGING
from perfkit.analysis.case import Case
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.correlate import is_slight
from perfkit.analysis.intervals import Share
from perfkit.analysis.locks import Lock, find_locks
from perfkit.analysis.rules._doing import name_doing
from perfkit.analysis.rules._hot_finding import find_area, find_hot
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection

# With fewer looks than this at which somebody holds the lock, nothing is known of its holders.
KNOWN_MIN = 0.3
HOLDER_SHARE_MIN = 0.5
# What a holder does is told from this part of the looks on.
DOING_MIN = 0.15
DOING_COUNT = 3
SOURCE = "futex waits on one word, outside the interpreter's own"
OWNER_SOURCE = "the owner named in the lock's word"
INFERRED_SOURCE = "inferred: the thread that last left a wait for the lock"


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: serving threads in futex waits on one lock. Mechanism: who has it, and does what."""
    whole = case.share(State.LOCK_WAIT)
    locks = find_locks(case) if passes_gate(whole) else []
    shares = [(_share(case, lock), lock) for lock in locks]
    share, lock = max(shares, key=lambda one: one[0].value, default=(whole, None))
    if lock is None or not passes_gate(share) or is_slight(case, share):
        why = f"{len(case.ledger.by_culprit(State.LOCK_WAIT))} locks are waited for"
        yield Rejection(
            RULE.id,
            "share of time waiting for a lock",
            share.value,
            SHARE_GATE,
            "ratio",
            SOURCE,
            why,
        )
    elif lock.known_ratio < KNOWN_MIN:
        why = "nobody is seen to hold the lock, so it may be a queue of another kind"
        yield Rejection(
            RULE.id,
            "part of the waiting in which a holder is known",
            lock.known_ratio,
            KNOWN_MIN,
            "ratio",
            SOURCE,
            why,
        )
    elif _held_up(lock) > HOLDER_SHARE_MIN:
        yield Rejection(
            RULE.id,
            "part of the waiting in which the holder waits for a CPU",
            _held_up(lock),
            HOLDER_SHARE_MIN,
            "ratio",
            "schedstat run_delay",
            "whoever has the CPUs makes the lock slow",
        )
    elif lock.doing[0][0] is State.ON_CPU and _writes_logs(case):
        yield Rejection(
            RULE.id,
            "part of the waiting in which its holder does other than compute",
            1.0 - lock.doing[0][2],
            HOLDER_SHARE_MIN,
            "ratio",
            SOURCE,
            "what it computes is logs, one thread at a time: logging_overhead comes first",
        )
    else:
        yield _finding(case, lock, share)


def _writes_logs(case: Case) -> bool:
    """Whether the service's slow requests, which are those that wait, spend their CPU in logging.

    Each handler of a logging library has a lock of its own, kept while a line is written.
    """
    found = find_hot(case)
    inside = find_area(case, found) if found is not None else None
    return inside is not None and inside.area == LOGGING


def _share(case: Case, lock: Lock) -> Share:
    rows = np.zeros(len(case.ledger.ns), dtype=bool)
    for culprit in sorted(lock.culprits):
        rows |= case.ledger.rows_where(State.LOCK_WAIT, culprit)
    return case.share_of(rows)


def _held_up(lock: Lock) -> float:
    return sum(ratio for state, _, ratio in lock.doing if state is State.RUNNABLE)


def _finding(case: Case, lock: Lock, share: Share) -> Finding:
    source = OWNER_SOURCE if lock.by_owner else INFERRED_SOURCE
    first, first_ratio = lock.holders[0]
    is_one = first_ratio >= HOLDER_SHARE_MIN
    told = [one for one in lock.doing if one[2] >= DOING_MIN][:DOING_COUNT] or [lock.doing[0]]
    evidence = [
        Evidence("share of time waiting for the lock", share.value, 0.0, "ratio", SOURCE),
        Evidence("threads that wait for it", lock.waiter_count, None, "", SOURCE),
    ]
    if is_one:
        held = f"part of the waiting in which {first} holds it"
        evidence.append(Evidence(held, first_ratio, None, "ratio", source))
    evidence += [
        Evidence(
            f"part of the waiting in which its holder is {name_doing(state, culprit)}",
            ratio,
            None,
            "ratio",
            source,
        )
        for state, culprit, ratio in told
    ]
    holder = first if is_one else f"one of {len(lock.holders)} threads"
    doing = name_doing(told[0][0], told[0][1])
    return make_finding(
        case,
        RULE,
        title=f"Requests queue for a lock; its holder, {holder}, is {doing}",
        share=share,
        confidence=0.9 if lock.known_ratio >= HOLDER_SHARE_MIN else 0.7,
        culprit=Culprit("thread", first) if is_one else Culprit("lock", lock.name),
        evidence=tuple(evidence),
    )


RULE = Rule(
    id="lock_contention",
    family="python",
    parent="",
    cell=("interpreter", "saturation"),
    state=State.LOCK_WAIT,
    needs=("thread_runs.arg0", "thread_runs.futex_owner"),
    sources=("threads",),
    absent="threads that could be sampled",
    excludes=("gil_contention", "thread_pool_exhausted", "downstream_slow"),
    summary="Requests queue for a lock.",
    meaning=(
        "One thread at a time may hold a lock. The one that has it does something slow before it\n"
        "gives it back: it waits for a peer or the disk, sleeps, or computes; all others that\n"
        "need the lock stand in line, however many threads there are."
    ),
    detection=(
        "Time: serving threads in waits for one futex word outside the interpreter's own, which\n"
        "carry requests that no busy thread accounts for.\n"
        "Mechanism: the holder, from the lock's word (glibc mutexes), else the thread that last\n"
        "left a wait for it (inferred), and what that thread does meanwhile.\n"
        "Not this: threads that wait for work on one word (a pool), waits for the interpreter\n"
        "(gil_contention), or a holder that waits for a CPU itself."
    ),
    fix=(
        "do the slow part outside the lock, hold it only to read or write the shared values, or\n"
        "give each thread (or key) a lock of its own"
    ),
    verify="the share of time waiting for the lock falls under 8 %",
    find=find,
)
