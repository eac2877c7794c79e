"""Where requests queue inside a service, and which part of it is at its limit meanwhile.

A queue is what requests wait for each other: those in flight beyond what the service's threads
carry, those not yet accepted, and the waits for a CPU or for the interpreter that the service's
own requests cause. A stage is a part that can be at its limit: one thread, a pool that works on one
thing at a time, the interpreter, the CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.blame import name_thread
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Integers, Masks, Reals, sum_by
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.states import IDLE_STATES, State
from perfkit.analysis.timeline import Timeline

# A block has a queue when this many requests wait, on average over it.
QUEUED_MIN = 1.0
BLOCK_RATIO_MIN = 0.6
# A stage works on and on where less than this is left for its own pauses (gathering a batch).
FULL_MIN = 0.8
WASTE_MAX = 0.08
# In so many slots of a hundred no two threads of a pool that works on one thing at a time overlap.
SERIAL_QUANTILE = 95.0
SERIAL_MAX = 1.05
# Where samples blur this: how much they overlap, of what they would if each worked when it likes
# (steps in turn measured 0 to 0.22, pools 0.4 to 5), and the least that tells anything.
SERIAL_OVERLAP_MAX = 0.3
OVERLAP_SEEN_MIN = 0.03
SHIFTS = 7
# A worker without work idles; one of an exhausted pool does so for moments only.
WORKER_IDLE_MAX = 0.1
WORKER_SEEN_MIN = 0.5
# How much of what two do must be the same for both to be workers of one pool.
ALIKE_MIN = 0.7
_WORK = (State.ON_CPU, State.RUNNABLE, State.GIL_WAIT)
_NO_WORK = IDLE_STATES | {State.HANDOFF_WAIT, State.UNKNOWN}


@dataclass(frozen=True)
class Queue:
    """The requests that wait for others: their share of all time, and how steadily they do.

    `share` includes connections that nobody has accepted yet, so its whole is larger than the
    ledger's.
    """

    share: Share
    waiting_mean: float
    block_ratio: float
    accept_queue_mean: float
    unread_mean: float

    @property
    def is_steady(self) -> bool:
        """Whether requests wait in most blocks of the window."""
        return self.block_ratio >= BLOCK_RATIO_MIN


@dataclass(frozen=True)
class Stage:
    """One part that may be at its limit: how much of the time it works, and in how many blocks."""

    words: str
    work_ratio: float
    full_ratio: float

    @property
    def is_full(self) -> bool:
        """Whether it never pauses in most blocks of the window."""
        return self.full_ratio >= BLOCK_RATIO_MIN


@dataclass(frozen=True)
class Pool:
    """Threads that are never without work, and what they do, as shares of their busy time.

    `flushing` is the part in which they wait for flushes that they asked for.
    """

    count: int
    doing: tuple[tuple[State, str, float], ...]
    flushing: float

    def share(self, *states: State) -> float:
        """The part of their busy time in these states."""
        return sum(ratio for state, _, ratio in self.doing if state in states)


def read_queue(case: Case) -> Queue | None:
    """The queue inside the service; None where requests cannot be counted."""
    if not case.counts_requests:
        return None
    ledger, axis = case.ledger, case.aligned.axis
    length_ns = axis.sum_blocks(axis.slot_ns)
    accept_ns = axis.sum_blocks(case.requests.accept_queue * axis.slot_ns)
    queued = (ledger.inferred & (ledger.thread >= 0)) | ledger.rows_where(State.QUEUE_WAIT)
    waiting = (ledger.block_ns(queued) + accept_ns) / np.maximum(length_ns, 1.0)
    behind_ns = ledger.block_ns(queued | _behind_others(case)) + accept_ns
    return Queue(
        share=share_of_blocks(behind_ns, case.whole_blocks + accept_ns),
        waiting_mean=float(waiting.mean()),
        block_ratio=float((waiting >= QUEUED_MIN).mean()),
        accept_queue_mean=float(case.requests.accept_queue.mean()),
        unread_mean=float(case.requests.unread.mean()),
    )


def waste_besides(case: Case) -> tuple[str, float]:
    """The largest waste that is no request's own doing: its words, and its share of the time."""
    ledger = case.ledger
    own = _behind_others(case)
    lost = {
        "throttled": ledger.rows_where(State.THROTTLED),
        "waiting for a lock": ledger.rows_where(State.LOCK_WAIT),
        "waiting for the GIL that no serving thread holds": ledger.rows_where(State.GIL_WAIT)
        & ~own,
        "waiting for a CPU that others hold": ledger.rows_where(State.RUNNABLE) & ~own,
    }
    shares = {words: case.share_of(rows).value for words, rows in lost.items()}
    largest = max(shares, key=lambda words: shares[words])
    return largest, shares[largest]


def find_stages(case: Case) -> list[Stage]:
    """All stages, the one that is at its limit in most blocks first; the narrower of equals."""
    found = [*_threads(case), *_serial_pools(case), _interpreter(case), _cpus(case)]
    return sorted(found, key=lambda stage: (-stage.full_ratio, -stage.work_ratio))


def cost_ratio(case: Case) -> float:
    """CPU of the serving threads for each request, in the slower half of the window to the other.

    Load alone leaves it near 1; 1 also where it cannot be told.
    """
    timeline = case.timeline
    running = _serving(case)[timeline.thread] & (timeline.states() == State.ON_CPU)
    spent = case.aligned.axis.sum_blocks(_by_slot(timeline, running))
    came = case.aligned.axis.sum_blocks(case.requests.arrivals)
    if case.requests.answer_count < 1 or len(came) < 4:
        return 1.0
    order = np.argsort(case.counted_blocks / np.maximum(came, 1.0), kind="stable")
    half = len(order) // 2
    quick, slow = (
        float(spent[part].sum()) / max(float(came[part].sum()), 1.0)
        for part in (order[:half], order[half:])
    )
    return slow / quick if quick > 0 else 1.0


def cpu_per_request_ns(case: Case) -> float:
    """CPU of the whole service for each request."""
    return float(case.thread_cpu_seconds.sum()) * 1e9 / max(case.requests.answer_count, 1.0)


def find_pool(case: Case) -> Pool | None:
    """The serving threads that are never without work, and those that do the same all the time.

    A mere wait for another thread is no work. A worker that is never free in the whole window shows
    by nothing that it serves, but by what it does: the same as those that show it.
    """
    timeline = case.timeline
    count, label_count = len(timeline.threads), len(timeline.labels)
    key = timeline.thread * label_count + timeline.label
    spent = sum_by(key, timeline.ns, count * label_count).reshape(count, label_count)
    states = np.array([label.state for label in timeline.labels], dtype=np.int64)
    is_work = ~np.isin(states, [int(state) for state in _NO_WORK])
    alive = np.maximum(spent.sum(axis=1), 1.0)
    idle = spent[:, np.isin(states, [int(state) for state in IDLE_STATES])].sum(axis=1) / alive
    working = spent[:, is_work].sum(axis=1) / alive
    never_free = (idle <= WORKER_IDLE_MAX) & (working >= WORKER_SEEN_MIN)
    chosen = never_free & _serving(case)
    if not chosen.any():
        return None
    mix = spent[chosen][:, is_work].sum(axis=0)
    alike = np.minimum(
        spent[:, is_work] / alive[:, np.newaxis], mix / max(float(mix.sum()), 1.0)
    ).sum(axis=1)
    chosen |= never_free & (alike >= ALIKE_MIN)
    return _describe_pool(timeline, int(chosen.sum()), spent[chosen].sum(axis=0) * is_work)


def _describe_pool(timeline: Timeline, count: int, spent: Reals) -> Pool:
    total = max(float(spent.sum()), 1.0)
    doing: dict[tuple[State, str], float] = {}
    flushing = 0.0
    for label, ns in zip(timeline.labels, spent.tolist(), strict=True):
        if ns > 0:
            doing[label.state, label.culprit] = (
                doing.get((label.state, label.culprit), 0.0) + ns / total
            )
            flushing += ns / total if label.flush else 0.0
    ranked = sorted(doing.items(), key=lambda one: (-one[1], one[0]))
    return Pool(count, tuple((*key, ratio) for key, ratio in ranked), flushing)


def _behind_others(case: Case) -> Masks:
    """The rows in which a request waits for a CPU or the interpreter that other requests use.

    The service's clients and the peers that it asks burn what the service's own load makes them.
    """
    serving = {name_thread(thread, case.thread_names) for thread in case.serving}
    own = {holder.name for holder in case.holders if holder.relation in ("own", "partner")}
    numbers = [
        index
        for index, label in enumerate(case.ledger.labels)
        if (label.state is State.GIL_WAIT and (not label.culprit or label.culprit in serving))
        or (label.state is State.RUNNABLE and label.culprit in own)
    ]
    return np.isin(case.ledger.label, numbers)


def _by_slot(timeline: Timeline, mask: Masks) -> Reals:
    return sum_by(timeline.slot[mask], timeline.ns[mask], timeline.axis.slot_count)


def _serving(case: Case) -> Masks:
    return np.array([thread in case.serving for thread in case.timeline.threads], dtype=bool)


def _stage(case: Case, words: str, occupied: Reals) -> Stage:
    """A stage from the part of each slot in which it was occupied, 0..1."""
    axis = case.aligned.axis
    whole = np.maximum(axis.sum_blocks(axis.slot_ns), 1.0)
    blocks = axis.sum_blocks(np.minimum(occupied, 1.0) * axis.slot_ns) / whole
    return Stage(words, float(blocks.mean()), float((blocks >= FULL_MIN).mean()))


def _threads(case: Case) -> Iterator[Stage]:
    """Each serving thread that works for most of the window."""
    timeline = case.timeline
    work = _serving(case)[timeline.thread] & np.isin(timeline.states(), [int(s) for s in _WORK])
    spent = sum_by(timeline.thread[work], timeline.ns[work], len(timeline.threads))
    least_ns = BLOCK_RATIO_MIN * FULL_MIN * case.window_ns
    for index in np.flatnonzero(spent >= least_ns).tolist():
        occupied = _by_slot(timeline, work & (timeline.thread == index))
        words = name_thread(timeline.threads[index], case.thread_names)
        yield _stage(case, words, occupied / timeline.axis.slot_ns)


def _serial_pools(case: Case) -> Iterator[Stage]:
    """Pools (threads that idle on one futex word) of which never two work at the same time."""
    timeline = case.timeline
    running = timeline.states() == State.ON_CPU
    work = np.isin(timeline.states(), [int(state) for state in _WORK])
    for number, label in enumerate(timeline.labels):
        if label.state is not State.IDLE_POOL or not label.culprit:
            continue
        members = _members(timeline, number)
        mine = np.isin(timeline.thread, members)
        rows = [_by_slot(timeline, running & (timeline.thread == one)) for one in members]
        if len(rows) > 1 and work_in_turn([row / timeline.axis.slot_ns for row in rows]):
            occupied = _by_slot(timeline, work & mine) / timeline.axis.slot_ns
            yield _stage(case, f"a step that {len(members)} threads run in turn", occupied)


def work_in_turn(rows: list[Reals]) -> bool:
    """Whether never two threads run at a time, as far as samples can tell.

    A row is the part of each slot in which a thread runs, 0..1. What they would overlap by chance
    is read from the same rows, shifted against each other.
    """
    together = np.sum(rows, axis=0)
    if float(np.percentile(together, SERIAL_QUANTILE)) <= SERIAL_MAX:
        return True
    step = max(1, len(together) // (len(rows) * (SHIFTS + 1)))
    by_chance = [
        _overlap(np.sum([np.roll(row, at * shift * step) for at, row in enumerate(rows)], axis=0))
        for shift in range(1, SHIFTS + 1)
    ]
    expected = float(np.mean(by_chance))
    return expected >= OVERLAP_SEEN_MIN and _overlap(together) <= SERIAL_OVERLAP_MAX * expected


def _overlap(together: Reals) -> float:
    """How much more than one runs, on average."""
    return float(np.maximum(together - 1.0, 0.0).mean())


def _members(timeline: Timeline, label: int) -> Integers:
    """The threads that idle on a word for as long as on any other."""
    count = len(timeline.threads)
    here = timeline.label == label
    idle = timeline.states() == State.IDLE_POOL
    mine = sum_by(timeline.thread[here], timeline.ns[here], count)
    all_idle = sum_by(timeline.thread[idle], timeline.ns[idle], count)
    return np.flatnonzero((mine > 0) & (mine >= 0.5 * all_idle))


def _interpreter(case: Case) -> Stage:
    """The interpreter is at its limit when somebody always waits for it."""
    return _stage(case, "the Python interpreter", _waiters(case, State.GIL_WAIT))


def _cpus(case: Case) -> Stage:
    """So are the CPUs."""
    return _stage(case, "the CPUs that it may use", _waiters(case, State.RUNNABLE))


def _waiters(case: Case, state: State) -> Reals:
    timeline = case.timeline
    mask = (timeline.states() == state) & _serving(case)[timeline.thread]
    return _by_slot(timeline, mask) / timeline.axis.slot_ns
