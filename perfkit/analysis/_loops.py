"""Event loops of the service and when one stood still: no request on it goes on meanwhile.

A loop's thread waits for work in epoll. It stands still while one other system call lasts, or while
it computes on and on although requests wait and none is answered.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import SLOT_NS
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Frame, Integers, Masks, Reals
from perfkit.analysis.endpoints import Endpoints, read_endpoints
from perfkit.analysis.stacks import BLOCKED, FRAMES, GIL, WALL, Function, Stacks, read_stacks
from perfkit.analysis.states import (
    EPOLL,
    RUNNING,
    STATE_WORDS,
    Label,
    State,
    name_rows,
    runtime_ranges,
)

STALL_MIN_NS = 50_000_000
BURST_MIN_NS = 100_000_000
BURST_RATIO_MIN = 5.0
WAITING_MIN = 2.0
RUN_RATIO_MIN = 0.8
# Of a burst, so much must be run time: the rest may be waits for a CPU.
COMPUTING_MIN = 0.5
LOOP_SHARE_MIN = 0.01
# A program's only loop does so much of its computing; the rest is its garbage collector's threads.
ONLY_LOOP_MIN = 0.75
STALL_LIMIT = 20_000
NAMED_SHARE_MIN = 0.5
# A stack that began before a stall may still be the stall's, if the next look came late.
SAMPLE_LEAD_NS = 5_000_000
READ_LEAD_NS = 25_000_000  # the same of our own reader's, which begin with the look before
_HELD_UP = frozenset(
    {
        State.PEER_WAIT,
        State.SEND_WAIT,
        State.DISK_WAIT,
        State.TIMER_WAIT,
        State.BLOCKED,
        State.IDLE_PIPE,
        State.IDLE_OTHER,
        State.FUTEX,
        State.LOCK_WAIT,
    }
)


@dataclass(frozen=True)
class Stall:
    """A span in which the loop's thread stood still, and in what."""

    begin_ns: int
    end_ns: int
    label: Label


@dataclass(frozen=True)
class Loop:
    """One event loop: its thread, its stalls, and the requests' time in them per block."""

    pid: int
    tid: int
    stalls: tuple[Stall, ...]
    held_up_ns: Reals

    @property
    def stalled_ns(self) -> float:
        """How long it stood still."""
        return float(sum(stall.end_ns - stall.begin_ns for stall in self.stalls))


def find_loops(case: Case) -> list[Loop]:
    """The event loops of the service, the one that stood still longest first.

    Of an interpreter every thread that comes back to epoll again and again; of another program its
    main thread, where that does all the work. Only an interpreter's computing is told to be a
    stall: of another one its stacks would have to say that it is one piece.
    """
    interpreters = runtime_ranges(case.aligned)
    frame = case.aligned.table("thread_runs").sorted_by("pid", "tid", "moved_ns")
    endpoints = read_endpoints(case.aligned)
    labels = name_rows(case.aligned, frame, endpoints)
    pid, tid = frame.integers("pid"), frame.integers("tid")
    loops = []
    for thread in sorted(case.serving):
        mine = (pid == thread[0]) & (tid == thread[1])
        rows = np.flatnonzero(mine)
        is_interpreter = thread[0] in interpreters
        if is_interpreter and not _is_loop(frame, rows):
            continue
        if not is_interpreter and not _is_only_loop(endpoints, frame, mine, thread):
            continue
        taken = frame.take(rows)
        stalls = _blocked(taken, [labels[row] for row in rows.tolist()])
        stalls += _bursts(case, taken) if is_interpreter else []
        stalls = sorted(stalls, key=lambda one: one.begin_ns)[:STALL_LIMIT]
        loops.append(Loop(*thread, tuple(stalls), _held_up(case, stalls)))
    return sorted(loops, key=lambda loop: (-loop.stalled_ns, loop.pid, loop.tid))


def _is_loop(frame: Frame, rows: Integers) -> bool:
    """Whether a thread waits in epoll as a loop does, and comes back from it again and again."""
    waits = np.isin(frame.integers("syscall")[rows], list(EPOLL))
    return bool(waits.sum() >= max(2, LOOP_SHARE_MIN * len(rows)))


def _is_only_loop(endpoints: Endpoints, frame: Frame, mine: Masks, thread: tuple[int, int]) -> bool:
    """Whether a main thread does nearly all work of a process that watches connections by epoll.

    One that never comes back to epoll within the window is one too. Where several threads take
    turns (a runtime that schedules its own), a wait of one of them holds up nobody.
    """
    pid, tid = thread
    watches = any(
        holder == pid and any(endpoints.serves(inode) for inode in inodes)
        for (holder, _), inodes in endpoints.members_of.items()
    )
    if tid != pid or not watches:
        return False
    run_ns = np.maximum(frame.integers("run_ns"), 0)
    whole_ns = float(run_ns[frame.integers("pid") == pid].sum())
    return float(run_ns[mine].sum()) >= ONLY_LOOP_MIN * max(whole_ns, 1.0)


def _blocked(frame: Frame, labels: list[Label]) -> list[Stall]:
    """Rows in which the thread was seen unmoved in one call outside its selector."""
    begin, end = frame.integers("moved_ns"), frame.integers("end_ns")
    long = np.flatnonzero(end - begin >= STALL_MIN_NS)
    return [
        Stall(int(begin[row]), int(end[row]), labels[row])
        for row in long.tolist()
        if labels[row].state in _HELD_UP
    ]


def _bursts(case: Case, frame: Frame) -> list[Stall]:
    """Spans of nothing but computing, without an answer, while requests wait.

    A loop that is merely busy answers one request after the other.
    """
    start, moved = frame.integers("start_ns"), frame.integers("moved_ns")
    run = frame.integers("run_ns")
    # A loop that waits for a CPU has not come back to its selector either.
    wanted = run + np.maximum(frame.integers("wait_ns"), 0)
    busy = (wanted >= RUN_RATIO_MIN * (moved - start)) & (moved > start)
    busy &= frame.integers("syscall") == RUNNING
    least_ns = max(BURST_MIN_NS, BURST_RATIO_MIN * _service_time_ns(case, float(run.sum())))
    answers = _answer_times(case)
    stalls = []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], busy.astype(np.int64), [0]])))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        for begin, end in _gaps(int(start[first]), int(moved[last - 1]), answers):
            inside = (start >= begin) & (moved <= end)
            computes = run[inside].sum() >= COMPUTING_MIN * (end - begin)
            is_long = end - begin >= least_ns
            if is_long and computes and _waiting(case, begin, end) >= WAITING_MIN:
                stalls.append(Stall(begin, end, Label(State.ON_CPU)))
    return stalls


def _service_time_ns(case: Case, run_ns: float) -> float:
    return run_ns / max(case.requests.answer_count, 1.0)


def _answer_times(case: Case) -> Integers:
    """When answers left accepted sockets, to some milliseconds."""
    sockets = case.aligned.table("sockets")
    indexes = zip(sockets.integers("socket_index").tolist(), sockets.text("role"), strict=True)
    accepted = [index for index, role in indexes if role == "accepted"]
    runs = case.aligned.table("socket_runs")
    runs = runs.where(
        np.isin(runs.integers("socket_index"), accepted) & (runs.integers("last_sent_ms") >= 0)
    )
    sent: Integers = runs.integers("start_ns") - 1_000_000 * runs.integers("last_sent_ms")
    return np.unique(sent)


def _gaps(begin_ns: int, end_ns: int, answers: Integers) -> list[tuple[int, int]]:
    """The parts of a span between answers."""
    inside = answers[(answers > begin_ns) & (answers < end_ns)].tolist()
    edges = [begin_ns, *inside, end_ns]
    return list(itertools.pairwise(edges))


def _waiting(case: Case, begin_ns: int, end_ns: int) -> float:
    """Requests in flight on average in a span."""
    axis = case.aligned.axis
    first = max(0, (begin_ns - axis.start_ns) // SLOT_NS)
    last = max(first + 1, (end_ns - axis.start_ns) // SLOT_NS)
    counts = case.requests.in_flight[first:last]
    return float(counts.mean()) if len(counts) else 0.0


def _held_up(case: Case, stalls: list[Stall]) -> Reals:
    """The time of requests (or of the loop's thread) that fell into the stalls, per block."""
    axis = case.aligned.axis
    begin = np.array([stall.begin_ns for stall in stalls], dtype=np.int64)
    end = np.array([stall.end_ns for stall in stalls], dtype=np.int64)
    stalled_ns = np.minimum(axis.sum_slots(begin, end), axis.slot_ns)
    if case.counts_requests:
        stalled_ns = stalled_ns * case.requests.in_flight
    return np.asarray(np.minimum(axis.sum_blocks(stalled_ns), case.counted_blocks))


def name_call(label: Label) -> str:
    """In what the loop stood still, in words."""
    if label.state in (State.FUTEX, State.LOCK_WAIT):
        return "waiting for a lock or another thread"
    words = "computing" if label.state is State.ON_CPU else STATE_WORDS.get(label.state, "waiting")
    return f"{words} {label.culprit}".rstrip()


def name_function(case: Case, loop: Loop) -> Function | None:
    """The innermost function that the loop's thread had in most of the stalled time, if any."""
    own = ((FRAMES, BLOCKED), READ_LEAD_NS)
    for kinds, lead_ns in (own, ((WALL,), SAMPLE_LEAD_NS), ((GIL,), SAMPLE_LEAD_NS)):
        spent = _spent(read_stacks(case.aligned, *kinds), loop, lead_ns)
        total = sum(spent.values())
        if total > 0:
            best = max(sorted(spent), key=lambda one: spent[one])
            return best if spent[best] >= NAMED_SHARE_MIN * total else None
    return None


def _spent(stacks: Stacks, loop: Loop, lead_ns: int) -> dict[Function, float]:
    """How much of the stalls each innermost function covers; only samples taken in them count."""
    spent: dict[Function, float] = {}
    stretches = stacks.of_thread(loop.pid, loop.tid)
    for stall in loop.stalls:
        for begin, end, stack in stretches:
            taken = stall.begin_ns - lead_ns <= begin < stall.end_ns
            overlap = min(end, stall.end_ns) - max(begin, stall.begin_ns)
            if taken and overlap > 0 and stacks.frames[stack]:
                leaf = stacks.frames[stack][0]
                spent[leaf] = spent.get(leaf, 0.0) + overlap
    return spent
