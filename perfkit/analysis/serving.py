"""Which threads serve requests: by what they wait for, else by who needs them.

A thread that only computes, sleeps or waits for the GIL is a background thread of the service,
unless nobody else can have read the requests: then it is a front that its load leaves no pause.
"""

from __future__ import annotations

import numpy as np

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Integers, Masks, Reals, sum_by
from perfkit.analysis.states import IDLE_STATES, State, runtime_ranges
from perfkit.analysis.timeline import SEEN_SHARE, Timeline

_WORKER_STATES = (
    State.IDLE_POOL,
    State.LOCK_WAIT,
    State.HANDOFF_WAIT,
    State.IDLE_CLIENT,
    State.IDLE_ACCEPT,
    State.IDLE_SELECTOR,
    State.SEND_WAIT,
)
# Where a thread waits that takes requests in.
_FRONT_STATES = (State.IDLE_CLIENT, State.IDLE_ACCEPT, State.IDLE_SELECTOR, State.SEND_WAIT)
_NOT_WORKING = IDLE_STATES | {State.HANDOFF_WAIT, State.UNKNOWN}
_WANTING_STATES = (State.ON_CPU, State.RUNNABLE, State.THROTTLED, State.GIL_WAIT)
# Who takes requests in is woken for them, if only for one in twenty: the rest may come in bunches.
WAKES_PER_ANSWER_MIN = 0.05
# A front without a pause wants to run for nearly all of its life.
WANTING_MIN = 0.7
# Several threads are fronts side by side where they use about as much CPU as the busiest.
LIKE_CPU_RATIO = 0.5
# Workers without a pause: threads wait for them, half of one on average and more, in half of the
# time or more beyond those who wait for a thread that serves and works itself.
NEVER_IDLE_MIN = 0.95
WAITING_MIN = 0.5
UNANSWERED_MIN = 0.5
WORKING_MAX = 0.25
# A request may be handed on twice: then two wait for the thread that works on it.
WAITING_PER_WORKING = 2.0


def serving_threads(timeline: Timeline, aligned: Aligned, answer_count: float | None) -> Masks:
    """Marks the threads that serve requests.

    They were seen waiting for work or for a client; of a process whose requests none of these can
    have taken in, those that never pause; and workers that never pause, for which others wait.
    Without requests (`answer_count` None: batch, training) all threads serve, and so does a
    process's only thread.
    """
    if answer_count is None:
        return np.ones(len(timeline.threads), dtype=bool)
    marked = timeline.threads_seen_in(_WORKER_STATES)
    front = timeline.threads_seen_in(_FRONT_STATES)
    holders = _holders(aligned)
    least = WAKES_PER_ANSWER_MIN * answer_count / max(len(holders), 1)
    able = front & (_wake_counts(timeline, aligned) >= least)
    pids = np.array([pid for pid, _ in timeline.threads], dtype=np.int64)
    for pid in sorted(holders):
        mine = pids == pid
        if not (able & mine).any():
            marked |= _fronts(timeline, aligned, mine & ~marked, pid)
        marked |= _answerers(timeline, mine, marked)
    return marked


def _holders(aligned: Aligned) -> set[int]:
    """The processes that hold accepted sockets."""
    table = aligned.table("sockets")
    rows = zip(table.integers("pid").tolist(), table.text("role"), strict=True)
    return {pid for pid, role in rows if role == "accepted" and pid > 0}


def _wake_counts(timeline: Timeline, aligned: Aligned) -> Integers:
    """How often each thread was put on a CPU."""
    number = {thread: index for index, thread in enumerate(timeline.threads)}
    table = aligned.table("thread_runs")
    counts = np.zeros(len(timeline.threads), dtype=np.int64)
    pairs = zip(table.integers("pid").tolist(), table.integers("tid").tolist(), strict=True)
    slices = np.maximum(table.integers("slice_count"), 0).tolist()
    for pair, count in zip(pairs, slices, strict=True):
        if pair in number:
            counts[number[pair]] += count
    return counts


def _fronts(timeline: Timeline, aligned: Aligned, candidates: Masks, pid: int) -> Masks:
    """Of these threads of one process, those that must be its fronts.

    An interpreter runs one thread at a time, and its loop is the main one as a rule: another that
    never pauses beside it is more likely to hold it up.
    """
    wants = _seen_for(timeline, _WANTING_STATES) >= WANTING_MIN
    cpu = _seen_for(timeline, (State.ON_CPU,))
    eager = candidates & wants & (cpu > SEEN_SHARE)
    if not eager.any():
        return eager
    largest = float(cpu[eager].max())
    alike = eager & (cpu >= LIKE_CPU_RATIO * largest)
    if pid not in runtime_ranges(aligned):
        return alike
    main = np.array([one == (pid, pid) for one in timeline.threads], dtype=bool)
    busiest = np.arange(len(cpu)) == int(np.argmax(np.where(eager, cpu, -1.0)))
    return main & eager if (main & eager).any() else busiest


def _answerers(timeline: Timeline, mine: Masks, marked: Masks) -> Masks:
    """Workers without a pause: those for which threads that serve wait, while few of these work.

    Where one of them works, a wait is for that one, and a thread that never pauses is nobody's.
    """
    states = timeline.states()
    served = (mine & marked)[timeline.thread]
    waits = served & (states == State.HANDOFF_WAIT)
    works = served & ~waits & ~np.isin(states, [int(state) for state in _NOT_WORKING])
    count = timeline.axis.slot_count
    waiting, working = (
        sum_by(timeline.slot[rows], timeline.ns[rows], count) / timeline.axis.slot_ns
        for rows in (waits, works)
    )
    beyond = np.where(
        working < WORKING_MAX, waiting, np.maximum(waiting - WAITING_PER_WORKING * working, 0.0)
    )
    unanswered = float(beyond.sum())
    busy = _seen_for(timeline, tuple(state for state in State if state not in IDLE_STATES))
    workers = mine & ~marked & (busy >= NEVER_IDLE_MIN)
    is_for_them = unanswered >= max(WAITING_MIN * count, UNANSWERED_MIN * float(waiting.sum()))
    return workers & is_for_them


def _seen_for(timeline: Timeline, states: tuple[State, ...]) -> Reals:
    """The part of each thread's life that it spent in these states, 0..1."""
    count = len(timeline.threads)
    rows = np.isin(timeline.states(), [int(state) for state in states])
    alive = sum_by(timeline.thread, timeline.ns, count)
    return np.asarray(
        sum_by(timeline.thread[rows], timeline.ns[rows], count) / np.maximum(alive, 1)
    )
