"""Who holds the locks that threads of the service wait for, and what the holder does meanwhile.

A wait is looked at every few milliseconds for as long as it was seen. Its holder is the thread that
was last told to be: by the lock's word, which names it (glibc mutexes), or by leaving a wait for
the same word: that one got it, unless another came by without waiting, so it is inferred.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from perfkit.analysis.blame import name_thread
from perfkit.analysis.case import Case
from perfkit.analysis.columns import Frame
from perfkit.analysis.endpoints import read_endpoints
from perfkit.analysis.futexes import name_word
from perfkit.analysis.states import FUTEX, IDLE_STATES, RUNNING, Label, State, name_rows

LOOK_NS = 10_000_000
LOOK_LIMIT = 20_000
_Thread = tuple[int, int]
_Word = tuple[int, int]


@dataclass(frozen=True)
class Lock:
    """One lock that is waited for.

    `culprits` are the ledger's names of it: its word, or its owners. The shares of `holders` (in
    words) and of `doing` (state, culprit) are of the looks at which the holder is known.
    """

    name: str
    culprits: frozenset[str]
    waiter_count: int
    known_ratio: float
    by_owner: bool
    holders: tuple[tuple[str, float], ...]
    doing: tuple[tuple[State, str, float], ...]


@dataclass(frozen=True)
class _Moves:
    """The rows of one thread in time; `word` is the lock that it waits for in each, if any."""

    moved: list[int]
    end: list[int]
    run_ns: list[int]
    wait_ns: list[int]
    owner: list[int]
    label: list[Label]
    word: list[_Word | None]

    def at(self, t_ns: int) -> tuple[Label | None, _Word | None]:
        """What the thread did at an instant; between two looks what it did most on the way."""
        row = bisect_right(self.moved, t_ns) - 1
        if row < 0:
            return None, None
        if t_ns <= self.end[row] or row + 1 >= len(self.moved):
            # Seen running, yet its clock stands still: it had lost the CPU.
            lost = self.label[row].state is State.ON_CPU and self.end[row] > self.moved[row]
            return Label(State.RUNNABLE) if lost else self.label[row], self.word[row]
        on_way_ns = self.moved[row + 1] - self.end[row]
        if 2 * self.run_ns[row + 1] >= on_way_ns:
            return Label(State.ON_CPU), None
        if 2 * self.wait_ns[row + 1] >= on_way_ns:
            return Label(State.RUNNABLE), None
        nearest = row + int(2 * (t_ns - self.end[row]) > on_way_ns)
        return self.label[nearest], self.word[nearest]


def find_locks(case: Case) -> list[Lock]:
    """The locks that the ledger has waits for, the one that is seen waited for most first."""
    waited = frozenset(case.ledger.by_culprit(State.LOCK_WAIT))
    if not waited:
        return []
    frame = case.aligned.table("thread_runs").sorted_by("pid", "tid", "moved_ns")
    labels = name_rows(case.aligned, frame, read_endpoints(case.aligned))
    threads = _read_threads(frame, labels, waited)
    words: dict[_Word, dict[_Thread, None]] = {}
    for thread, moves in threads.items():
        for word in dict.fromkeys(moves.word):
            if word is not None:
                words.setdefault(word, {})[thread] = None
    found = [_describe(case, word, list(users), threads) for word, users in words.items()]
    return [lock for _, lock in sorted(found, key=lambda one: (-one[0], one[1].name))]


def _read_threads(
    frame: Frame, labels: list[Label], waited: frozenset[str]
) -> dict[_Thread, _Moves]:
    names = ("pid", "tid", "moved_ns", "end_ns", "run_ns", "wait_ns", "futex_owner")
    columns = [frame.integers(name).tolist() for name in names]
    calls, addresses = (frame.integers(name).tolist() for name in ("syscall", "arg0"))
    threads: dict[_Thread, _Moves] = {}
    for row, (pid, tid, moved, end, run, wait, owner) in enumerate(zip(*columns, strict=True)):
        label = labels[row]
        is_wait = calls[row] == FUTEX and _name(label) in waited
        moves = threads.setdefault((pid, tid), _Moves([], [], [], [], [], [], []))
        moves.moved.append(moved)
        moves.end.append(end)
        moves.run_ns.append(run)
        moves.wait_ns.append(wait)
        moves.owner.append(owner if label.state is State.LOCK_WAIT else 0)
        moves.label.append(Label(State.ON_CPU) if calls[row] == RUNNING else label)
        moves.word.append((pid, addresses[row]) if is_wait else None)
    return threads


def _name(label: Label) -> str:
    """The ledger's name of a lock; "" for a label that is none."""
    if label.state is State.FUTEX:
        return name_word(label.culprit)
    return label.culprit if label.state is State.LOCK_WAIT else ""


def _looks(moves: _Moves, word: _Word, step_ns: int) -> Iterator[int]:
    """The instants at which a thread is looked at while it waits."""
    for row, one in enumerate(moves.word):
        if one == word:
            yield from range(moves.moved[row], moves.end[row] + 1, step_ns)


class _Taking(NamedTuple):
    """From this instant on a thread is taken to hold the lock."""

    t_ns: int
    holder: _Thread
    is_named: bool


def _takings(users: list[_Thread], threads: dict[_Thread, _Moves], word: _Word) -> list[_Taking]:
    """What tells of the lock's holders, in time: owners that its word named, and waits that ended.

    The word is read when a wait is first seen. A long wait sees many holders after that one.
    """
    found = []
    for user in users:
        moves = threads[user]
        for row, one in enumerate(moves.word):
            if one != word:
                continue
            if moves.owner[row]:
                found.append(_Taking(moves.moved[row], (word[0], moves.owner[row]), True))
            if row + 1 < len(moves.word):
                left_ns = (moves.end[row] + moves.moved[row + 1]) // 2
                found.append(_Taking(left_ns, user, False))
    return sorted(found)


def _describe(
    case: Case,
    word: _Word,
    users: list[_Thread],
    threads: dict[_Thread, _Moves],
) -> tuple[int, Lock]:
    """One lock, and how often it was seen waited for."""
    step_ns = max(LOOK_NS, int(case.window_ns) * len(users) // LOOK_LIMIT)
    takings = _takings(users, threads, word)
    times = [one.t_ns for one in takings]
    holders: Counter[_Thread] = Counter()
    doing: Counter[tuple[State, str]] = Counter()
    count = named = 0
    for user in users:
        for t_ns in _looks(threads[user], word, step_ns):
            count += 1
            place = bisect_right(times, t_ns) - 1
            if place < 0 or takings[place].holder == user:
                continue
            holder = takings[place].holder
            label = _doing(threads, holder, t_ns, word)
            if label is not None:
                named += takings[place].is_named
                holders[holder] += 1
                doing[label.state, label.culprit] += 1
    known = max(sum(holders.values()), 1)
    by_state = sorted(doing.items(), key=lambda one: (-one[1], one[0]))
    culprits = {_name(label) for user in users for label in _labels_of(threads[user], word)}
    lock = Lock(
        name=name_word(f"{word[0]}:{word[1]:x}"),
        culprits=frozenset(culprits),
        waiter_count=len(users),
        known_ratio=sum(holders.values()) / max(count, 1),
        by_owner=2 * named > known,
        holders=tuple(
            (name_thread(holder, case.thread_names), seen / known)
            for holder, seen in sorted(holders.items(), key=lambda one: (-one[1], one[0]))
        ),
        doing=tuple((*key, seen / known) for key, seen in by_state),
    )
    return count, lock


def _labels_of(moves: _Moves, word: _Word) -> set[Label]:
    return {label for label, one in zip(moves.label, moves.word, strict=True) if one == word}


def _doing(threads: dict[_Thread, _Moves], holder: _Thread, t_ns: int, word: _Word) -> Label | None:
    """What a holder did; None where it cannot have held the lock, since it waited or idled."""
    moves = threads.get(holder)
    label, waits_for = moves.at(t_ns) if moves is not None else (None, None)
    if label is None or waits_for == word or label.state in IDLE_STATES:
        return None
    if waits_for is not None:
        return Label(State.LOCK_WAIT, _name(label))
    return Label(State.HANDOFF_WAIT) if label.state is State.FUTEX else label
