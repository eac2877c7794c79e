"""Where each thread's time went, slot by slot: run and wait times exact, blocked times sampled.

The scheduler's own counters (/proc/PID/task/TID/schedstat) say exactly how long a thread ran and
how long it waited for a CPU. The rest it was blocked: in the state that it was seen in while it did
not move, and around its moves in proportion to the states sampled at the ends of each interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import SLOT_NS, Aligned, Axis
from perfkit.analysis.columns import VALUE_LIMIT, Frame, Integers, Masks, Reals, sum_by
from perfkit.analysis.endpoints import Endpoints
from perfkit.analysis.states import Label, Labels, State, name_rows
from perfkit.analysis.throttling import Throttling

DEFAULT_TICK_NS = 10_000_000
LONG_INTERVAL_TICKS = 2
SEEN_SHARE = 0.01
FITTING_TURNS = 12


@dataclass(frozen=True)
class Timeline:
    """Entries (thread, slot, label) -> ns; for each thread and slot they sum to its time alive.

    `threads` lists (pid, tid); the arrays are parallel and sorted by (thread, slot, label).
    """

    axis: Axis
    threads: tuple[tuple[int, int], ...]
    labels: tuple[Label, ...]
    thread: Integers
    slot: Integers
    label: Integers
    ns: Reals

    def states(self) -> Integers:
        """The state of each entry."""
        return np.array([label.state for label in self.labels], dtype=np.int64)[self.label]

    def threads_seen_in(self, states: Iterable[State]) -> Masks:
        """Marks the threads that spent SEEN_SHARE of their life in these states.

        A process's only thread is marked in any case.
        """
        count = len(self.threads)
        entries = np.isin(self.states(), [int(state) for state in states])
        seen = sum_by(self.thread[entries], self.ns[entries], count)
        alive = sum_by(self.thread, self.ns, count)
        of_process = Counter(pid for pid, _ in self.threads)
        alone = np.array([of_process[pid] == 1 for pid, _ in self.threads], dtype=bool)
        marked: Masks = (seen >= SEEN_SHARE * alive) | alone
        return marked


@dataclass(frozen=True)
class _Runs:
    """The rows of thread_runs with what is derived from them, sorted by thread and time."""

    thread: Integers
    start: Integers
    moved: Integers
    end: Integers
    run_ns: Integers
    wait_begin: Integers
    wait_end: Integers
    label: Integers
    label_before: Integers
    on_cpu: Masks
    on_cpu_before: Masks
    next_wait_begin: Integers
    tick_ns: int


def build_timeline(aligned: Aligned, endpoints: Endpoints, throttling: Throttling) -> Timeline:
    """Accounts for all time of all threads of the service."""
    frame = aligned.table("thread_runs").sorted_by("pid", "tid", "moved_ns")
    named = name_rows(aligned, frame, endpoints)
    labels = Labels()
    runs, threads = _read_runs(frame, _numbers(labels, named), _tick_ns(aligned))
    pieces = _Pieces(aligned.axis, len(threads))
    gil_label = labels.index(Label(State.GIL_WAIT))
    waits = _account(runs, pieces, gil_label)
    wait_entries = _split_waits(aligned.axis, waits, throttling, labels)
    run_entries = _runs_by_slot(aligned.axis, runs, labels)
    entries = pieces.settle([run_entries, wait_entries], labels)
    return Timeline(aligned.axis, threads, labels.all(), *entries)


def _numbers(labels: Labels, named: list[Label]) -> Integers:
    return np.array([labels.index(label) for label in named], dtype=np.int64)


def _tick_ns(aligned: Aligned) -> int:
    """The usual time between two looks at a thread that moves."""
    ticks = np.diff(np.sort(aligned.table("sampler_ticks").integers("t_ns")))
    return int(np.median(ticks)) if len(ticks) else DEFAULT_TICK_NS


def _read_runs(
    frame: Frame, label: Integers, tick_ns: int
) -> tuple[_Runs, tuple[tuple[int, int], ...]]:
    pid, tid = frame.integers("pid"), frame.integers("tid")
    changed = np.empty(len(frame), dtype=bool)
    changed[:1] = True
    changed[1:] = (pid[1:] != pid[:-1]) | (tid[1:] != tid[:-1])
    thread = np.cumsum(changed) - 1
    threads = tuple(zip(pid[changed].tolist(), tid[changed].tolist(), strict=True))
    start, moved, end = (frame.integers(name) for name in ("start_ns", "moved_ns", "end_ns"))
    length = moved - start
    run_ns = np.maximum(frame.integers("run_ns"), 0)
    wait_ns = np.maximum(frame.integers("wait_ns"), 0)
    blocked = np.maximum(length - run_ns - wait_ns, 0)
    running = frame.integers("syscall") == -2
    label_before = np.where(changed, label, np.roll(label, 1))
    running_before = np.where(changed, running, np.roll(running, 1))
    head = np.where(running, 0, np.where(running_before, blocked, blocked // 2))
    wait_begin, wait_end = _date_back(thread, moved - head, run_ns, wait_ns)
    next_wait_begin = np.full(len(frame), np.iinfo(np.int64).max)
    same = ~changed[1:] & (wait_ns[1:] > 0)
    next_wait_begin[:-1][same] = wait_begin[1:][same]
    derived = (run_ns, wait_begin, wait_end, label, label_before, running, running_before)
    return _Runs(thread, start, moved, end, *derived, next_wait_begin, tick_ns), threads


def _date_back(
    thread: Integers, run_end: Integers, run_ns: Integers, wait_ns: Integers
) -> tuple[Integers, Integers]:
    """When each row's wait for a CPU began and ended.

    The kernel books a wait when the thread next runs, so it may reach back over earlier rows; what
    ran before it must have ended by then. Rows are therefore placed from the last to the first.
    """
    begins, ends = [], []
    following, limit = -1, 0
    columns = (thread.tolist(), run_end.tolist(), run_ns.tolist(), wait_ns.tolist())
    for one, last, ran, waited in reversed(list(zip(*columns, strict=True))):
        end = (min(last, limit) if one == following else last) - ran
        following, limit = one, max(end - waited, -VALUE_LIMIT)
        begins.append(limit)
        ends.append(end)
    return np.array(begins[::-1], dtype=np.int64), np.array(ends[::-1], dtype=np.int64)


@dataclass(frozen=True)
class _Waits:
    """Waits for a CPU; `held` where the thread was on one when the wait began.

    `in_gil_wait` marks those inside a wait for the GIL, which is a timed one: the thread wakes
    every 5 ms to ask for it again, and would not have gone on with a CPU either.
    """

    thread: Integers
    begin: Integers
    end: Integers
    held: Masks
    in_gil_wait: Masks


def _account(runs: _Runs, pieces: _Pieces, gil_label: int) -> _Waits:
    """Adds the blocked pieces; returns the waits for a CPU."""
    still_end = np.clip(np.minimum(runs.end, runs.next_wait_begin), runs.moved, None)
    pieces.cover(runs.thread, runs.start, runs.end)
    blocked = ~runs.on_cpu
    pieces.add_seen(
        runs.thread[blocked], runs.moved[blocked], still_end[blocked], runs.label[blocked]
    )
    middle = runs.moved - _credit(runs)
    before = ~runs.on_cpu_before
    pieces.add_sampled(
        runs.thread[before], runs.start[before], middle[before], runs.label_before[before]
    )
    pieces.add_sampled(
        runs.thread[blocked], middle[blocked], runs.moved[blocked], runs.label[blocked]
    )
    # Seen running, yet not moving and not covered by a wait booked later: it had lost the CPU.
    lost = runs.on_cpu & (still_end > runs.moved)
    begin = np.concatenate([runs.wait_begin, runs.moved[lost]])
    end = np.concatenate([runs.wait_end, still_end[lost]])
    held = np.concatenate([runs.on_cpu_before, np.ones(int(lost.sum()), dtype=bool)])
    in_gil_wait = np.zeros(len(held), dtype=bool)
    in_gil_wait[: len(runs.label)] = (runs.label == gil_label) & (runs.label_before == gil_label)
    thread = np.concatenate([runs.thread, runs.thread[lost]])
    return _Waits(thread, begin, end, held, in_gil_wait)


def _credit(runs: _Runs) -> Integers:
    """How much of the interval before each move belongs to the state that it was then seen in.

    Half, as a rule. A thread that has long been still is looked at more seldom, so a short state is
    caught only now and then: such a catch stands for a whole interval, less what was seen of it.
    """
    interval = runs.moved - runs.start
    long = interval > LONG_INTERVAL_TICKS * runs.tick_ns
    seen = runs.end - runs.moved
    whole = np.clip(interval - seen, interval // 2, interval)
    return np.where(long, whole, interval // 2)


def _runs_by_slot(axis: Axis, runs: _Runs, labels: Labels) -> tuple[Integers, ...]:
    begin = runs.wait_end
    index, slot, overlap = axis.spread(begin, begin + runs.run_ns)
    label = np.full(len(index), labels.index(Label(State.ON_CPU)), dtype=np.int64)
    return runs.thread[index], slot, label, overlap.astype(np.int64)


def _split_waits(
    axis: Axis, waits: _Waits, throttling: Throttling, labels: Labels
) -> tuple[Integers, ...]:
    """Cuts each wait into what overlaps a throttled span and what was a queue for a CPU."""
    index, slot, overlap = axis.spread(waits.begin, waits.end)
    begin = np.maximum(waits.begin[index], axis.start_ns + slot * SLOT_NS)
    throttled, culprit = throttling.overlap(waits.begin, waits.end, index, begin, overlap)
    held = waits.held[index].astype(np.int64)
    runnable = _pair_labels(labels, State.RUNNABLE, ("",))[0][held]
    gil_label = labels.index(Label(State.GIL_WAIT))
    runnable = np.where(waits.in_gil_wait[index], gil_label, runnable)
    charged = _pair_labels(labels, State.THROTTLED, throttling.paths or ("",))[culprit, held]
    thread = waits.thread[index]
    parts = [(thread, slot, runnable, overlap - throttled), (thread, slot, charged, throttled)]
    return tuple(np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True))


def _pair_labels(labels: Labels, state: State, culprits: tuple[str, ...]) -> Integers:
    """Label numbers by culprit and by whether the wait began on a CPU."""
    pairs = [
        [labels.index(Label(state, culprit, held)) for held in (False, True)]
        for culprit in culprits
    ]
    return np.array(pairs, dtype=np.int64)


class _Pieces:
    """Blocked time in the making: what was seen exactly, and what was sampled."""

    def __init__(self, axis: Axis, thread_count: int) -> None:
        self._axis = axis
        self._alive = np.zeros((thread_count, axis.slot_count))
        self._seen: list[tuple[Integers, Integers, Integers, Reals]] = []
        self._sampled: list[tuple[Integers, Integers, Integers, Reals]] = []

    def cover(self, thread: Integers, begin: Integers, end: Integers) -> None:
        index, slot, overlap = self._axis.spread(begin, end)
        np.add.at(self._alive, (thread[index], slot), overlap)

    def add_seen(self, thread: Integers, begin: Integers, end: Integers, label: Integers) -> None:
        index, slot, overlap = self._axis.spread(begin, end)
        self._seen.append((thread[index], slot, label[index], overlap))

    def add_sampled(
        self, thread: Integers, begin: Integers, end: Integers, label: Integers
    ) -> None:
        index, slot, overlap = self._axis.spread(begin, end)
        self._sampled.append((thread[index], slot, label[index], overlap))

    def settle(
        self, exact: list[tuple[Integers, ...]], labels: Labels
    ) -> tuple[Integers, Integers, Integers, Reals]:
        """Joins everything so that each thread's slots sum to the time it was alive in them."""
        seen, sampled = _stack(self._seen), _stack(self._sampled)
        running = _stack([(a, b, c, d.astype(np.float64)) for a, b, c, d in exact])
        taken = self._by_slot(running)
        room = np.minimum(1.0, self._alive / np.maximum(taken, 1.0))
        running = (*running[:3], running[3] * room[running[0], running[1]])
        rest = np.maximum(self._alive - np.minimum(taken, self._alive), 0.0)
        owed = np.maximum(rest - self._by_slot(seen), 0.0)
        blocked = _stack([seen, self._pay(sampled, owed)])
        offered = self._by_slot(blocked)
        scale = rest / np.maximum(offered, 1.0)
        blocked = (*blocked[:3], blocked[3] * scale[blocked[0], blocked[1]])
        nobody = np.nonzero((offered < 1.0) & (rest >= 1.0))
        unknown = np.full(len(nobody[0]), labels.index(Label(State.UNKNOWN)), dtype=np.int64)
        filler = (nobody[0], nobody[1], unknown, rest[nobody])
        return _sum_equal(_stack([running, blocked, filler]), self._axis.slot_count)

    def _by_slot(self, part: tuple[Integers, Integers, Integers, Reals]) -> Reals:
        total = np.zeros_like(self._alive)
        np.add.at(total, (part[0], part[1]), part[3])
        return total

    def _pay(
        self, sampled: tuple[Integers, Integers, Integers, Reals], owed: Reals
    ) -> tuple[Integers, Integers, Integers, Reals]:
        """Scales the samples to what is owed: a slot's time less its exact parts.

        Slots without a sample use the thread's whole mix.
        """
        weight = self._by_slot(sampled)
        paid = (*sampled[:3], self._balance(sampled, owed * (weight >= 1.0)))
        short = np.nonzero((weight < 1.0) & (owed >= 1.0))
        mix = _sum_equal((sampled[0], np.zeros_like(sampled[1]), *sampled[2:]), 1)
        total = sum_by(mix[0], mix[3], len(self._alive))
        first = np.searchsorted(mix[0], short[0], side="left")
        last = np.searchsorted(mix[0], short[0], side="right")
        counts = last - first
        index = np.repeat(np.arange(len(counts)), counts)
        source = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
        source += first[index]
        thread, slot = short[0][index], short[1][index]
        ns = owed[thread, slot] * mix[3][source] / np.maximum(total[thread], 1.0)
        return _stack([paid, (thread, slot, mix[2][source], ns)])

    def _balance(self, sampled: tuple[Integers, Integers, Integers, Reals], due: Reals) -> Reals:
        """Weights that pay each slot what is owed and keep each label's share of the thread.

        A slot alone has too few samples: scaled one by one, the rare states of a slot would lose,
        as a slot with many of them is also one with many samples in all. So rows (slots) and
        columns (labels) are fitted in turn (iterative proportional fitting, Deming and Stephan
        1940); the slots come last, for their sums are exact. After 4 turns at 30 Hz the waits next
        to computing still lacked a tenth of theirs; after 12 nothing that could be measured.
        """
        thread, slot, label, ns = sampled
        weight = self._by_slot(sampled)
        column = thread * (int(label.max(initial=0)) + 1) + label
        ratio = due.sum(axis=1) / np.maximum(weight.sum(axis=1), 1.0)
        wanted = sum_by(column, ns * ratio[thread], 0)
        for turn in range(FITTING_TURNS):
            if turn:
                got = sum_by(column, ns, len(wanted))
                ns = ns * (wanted / np.maximum(got, 1.0))[column]
            scale = due / np.maximum(self._by_slot((thread, slot, label, ns)), 1.0)
            ns = ns * scale[thread, slot]
        return ns


def _stack(
    parts: list[tuple[Integers, Integers, Integers, Reals]],
) -> tuple[Integers, Integers, Integers, Reals]:
    empty = np.empty(0, dtype=np.int64)
    parts = parts or [(empty, empty, empty, empty.astype(np.float64))]
    thread, slot, label, ns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return thread, slot, label, ns


def _sum_equal(
    part: tuple[Integers, Integers, Integers, Reals], slot_count: int
) -> tuple[Integers, Integers, Integers, Reals]:
    """Adds up entries of equal (thread, slot, label), sorted by them; zeros are dropped."""
    thread, slot, label, ns = part
    label_count = int(label.max()) + 1 if len(label) else 1
    key = (thread * slot_count + slot) * label_count + label
    keys, inverse = np.unique(key, return_inverse=True)
    total = sum_by(inverse, ns, len(keys))
    kept = total >= 1.0
    keys, total = keys[kept], total[kept]
    rest, label = np.divmod(keys, label_count)
    thread, slot = np.divmod(rest, slot_count)
    return thread, slot, label, total
