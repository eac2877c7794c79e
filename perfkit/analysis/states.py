"""Facts -> named states: what a thread was doing, from its system call and what lies behind it.

The recorder writes numbers only; what they mean is decided here, so that old captures profit from
better names. Syscall numbers are those of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

from perfkit.analysis.align import Aligned
from perfkit.analysis.columns import Frame
from perfkit.analysis.endpoints import Endpoints

RUNNING, NOT_IN_SYSCALL, UNREADABLE = -2, -1, -3
# Behind a socket that came and went between two listings of the service's TCP sockets.
UNKNOWN_PEER = "a peer that is not known"
# Within this time a socket is listed, and found to be the service's (collectors/sockets.py).
LISTED_NS = 2_000_000_000


class State(IntEnum):
    """Named states of a thread. A culprit goes with some of them, see `Label`."""

    ON_CPU = 0
    RUNNABLE = 1
    THROTTLED = 2
    GIL_WAIT = 3
    LOCK_WAIT = 4
    HANDOFF_WAIT = 5
    PEER_WAIT = 6
    SEND_WAIT = 7
    DISK_WAIT = 8
    TIMER_WAIT = 9
    FAULT_WAIT = 10
    STOPPED = 11
    BLOCKED = 12
    UNKNOWN = 13
    IDLE_POOL = 20
    IDLE_CLIENT = 21
    IDLE_SELECTOR = 22
    IDLE_ACCEPT = 23
    IDLE_PIPE = 24
    IDLE_OTHER = 25
    FUTEX = 30
    QUEUE_WAIT = 40
    UNSEEN_WAIT = 41


IDLE_STATES = frozenset(state for state in State if State.IDLE_POOL <= state <= State.IDLE_OTHER)
# Never useful work, whatever the service: the physics that needs no reference.
WASTE_STATES = frozenset({State.RUNNABLE, State.THROTTLED, State.GIL_WAIT, State.LOCK_WAIT})

STATE_WORDS = {
    State.ON_CPU: "on CPU",
    State.RUNNABLE: "waiting for a CPU",
    State.THROTTLED: "throttled",
    State.GIL_WAIT: "waiting for the GIL",
    State.LOCK_WAIT: "waiting for a lock",
    State.HANDOFF_WAIT: "waiting for another thread",
    State.PEER_WAIT: "waiting for a peer",
    State.SEND_WAIT: "sending to a full peer",
    State.DISK_WAIT: "disk I/O",
    State.TIMER_WAIT: "timed wait",
    State.FAULT_WAIT: "page fault",
    State.STOPPED: "stopped",
    State.BLOCKED: "blocked in a system call",
    State.UNKNOWN: "unknown",
    State.QUEUE_WAIT: "queued",
    State.UNSEEN_WAIT: "a wait not seen from outside (timer, ...)",
}


@dataclass(frozen=True)
class Label:
    """A named state and whom it leads to: a peer, a file, a futex word; "" where nothing does.

    `held` marks a wait for a CPU that began on one: locks that the thread held stay held.
    `flush` marks a wait for the disk that a call such as fsync asked for.
    """

    state: State
    culprit: str = ""
    held: bool = False
    flush: bool = False


class Labels:
    """Numbers labels in order of first use, after those that it is given."""

    def __init__(self, labels: tuple[Label, ...] = ()) -> None:
        self._index = {label: index for index, label in enumerate(labels)}

    def index(self, label: Label) -> int:
        """The number of a label; a new one gets the next."""
        return self._index.setdefault(label, len(self._index))

    def all(self) -> tuple[Label, ...]:
        """All labels, by number."""
        return tuple(self._index)


RECEIVE = frozenset({0, 19, 45, 47, 299})
SEND = frozenset({1, 20, 40, 44, 46, 307})
CONNECT = 42
TRANSFER = RECEIVE | SEND | {CONNECT}
FLUSH = frozenset({26, 74, 75, 162, 277, 306})
FLUSH_ALL = frozenset({26, 162})  # msync and sync name no descriptor
FILE = FLUSH | {2, 4, 5, 6, 17, 18, 21, 76, 77, 78, 82, 87, 217, 257, 262, 285, 295, 296, 316, 332}
DISK_QUEUE = frozenset({208, 333})
ACCEPT = frozenset({43, 288})
POLL = frozenset({7, 271, 23, 270})
EPOLL = frozenset({232, 281, 441})
SLEEP = frozenset({35, 230})
CHILD = frozenset({61, 247})
SIGNAL = frozenset({34, 128, 130, 282, 289})
FUTEX = 202
_ALWAYS = {
    RUNNING: State.ON_CPU,
    UNREADABLE: State.UNKNOWN,
    **dict.fromkeys(DISK_QUEUE, State.DISK_WAIT),
    **dict.fromkeys(ACCEPT, State.IDLE_ACCEPT),
    **dict.fromkeys(EPOLL, State.IDLE_SELECTOR),
    **dict.fromkeys(SLEEP, State.TIMER_WAIT),
    **dict.fromkeys(CHILD | SIGNAL, State.IDLE_OTHER),
}
_STOPPED_LETTERS = frozenset(map(ord, "tT"))
_DISK_LETTER = ord("D")


class Namer:
    """Names the rows of `thread_runs` one by one; equal facts get the same label object."""

    def __init__(self, aligned: Aligned, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._polled = _poll_members(aligned)
        self._lasting = _lasting_inodes(aligned)
        self._gil_words = gil_words(aligned)
        self._runtimes = runtime_ranges(aligned)
        self._threads = thread_names(aligned)
        self._known: dict[tuple[int, ...], Label] = {}

    def name(self, row: tuple[int, ...]) -> Label:
        """Names one row, given as the values of ROW_COLUMNS."""
        pid, tid, moved_ns, number, arg0, _, arg2, arg3, letter, inode, owner = row
        if letter in _STOPPED_LETTERS:
            return Label(State.STOPPED)
        if number in POLL:
            forever = number in (7, 271) and arg2 < 0
            members = self._polled.get((pid, tid, moved_ns), ()) or ((-1, inode),) * (inode > 0)
            return self._name_poll(pid, members, forever)
        key = (pid, number, arg0, int(arg3 != 0), letter, inode, owner)
        label = self._known.get(key)
        if label is None:
            label = self._known[key] = self._name_call(row)
        return label

    def _name_call(self, row: tuple[int, ...]) -> Label:
        pid, _, _, number, arg0, _, _, _, letter, _, _ = row
        if number == NOT_IN_SYSCALL:
            return Label(State.ON_CPU if letter == ord("R") else State.FAULT_WAIT)
        if number == FUTEX:
            return self._name_futex(row)
        if number in TRANSFER:
            return self._name_transfer(row, number)
        if number in FLUSH:
            path = "" if number in FLUSH_ALL else self._path(pid, arg0)
            return Label(State.DISK_WAIT, path, flush=True)
        if number in FILE:
            return Label(State.DISK_WAIT, self._path(pid, arg0))
        state = _ALWAYS.get(number)
        return Label(State.BLOCKED, f"syscall {number}") if state is None else Label(state)

    def _name_futex(self, row: tuple[int, ...]) -> Label:
        """A futex is the GIL, a lock whose owner its word names (glibc), or undecided (FUTEX)."""
        pid, tid, _, _, word, _, _, timeout, _, _, owner = row
        if (pid, word) in self._gil_words and timeout != 0:
            return Label(State.GIL_WAIT)
        if _inside(self._runtimes, pid, word):
            return Label(State.BLOCKED, "interpreter")
        if owner != tid and (pid, owner) in self._threads:
            return Label(State.LOCK_WAIT, f"thread {owner} ({self._threads[pid, owner]})")
        return Label(State.FUTEX, f"{pid}:{word:x}")

    def _name_transfer(self, row: tuple[int, ...], number: int) -> Label:
        pid, _, _, _, fd, _, _, _, letter, inode, _ = row
        role = self._endpoints.role_of.get(inode)
        if role == "accepted":
            return Label(State.IDLE_CLIENT if number in RECEIVE else State.SEND_WAIT, "client")
        if role == "outgoing":
            state = State.SEND_WAIT if number in SEND else State.PEER_WAIT
            return Label(state, self._endpoints.peer_of[inode])
        kind = self._endpoints.kind_of.get((pid, fd), "")
        if number == CONNECT:
            return Label(State.PEER_WAIT, "connecting")
        if kind == "file" or letter == _DISK_LETTER:
            return Label(State.DISK_WAIT, self._path(pid, fd))
        if kind == "socket":
            lasts = inode in self._lasting
            return Label(State.PEER_WAIT, "a socket that is not TCP" if lasts else UNKNOWN_PEER)
        return Label(State.IDLE_PIPE)

    def _name_poll(self, pid: int, polled: tuple[tuple[int, int], ...], forever: bool) -> Label:
        members = [inode for _, inode in polled]
        if any(self._endpoints.serves(member) for member in members):
            return Label(State.IDLE_CLIENT)
        peers = sorted(
            {
                self._endpoints.peer_of[member]
                for member in members
                if self._endpoints.role_of.get(member) == "outgoing"
            }
        )
        if len(peers) == 1:
            return Label(State.PEER_WAIT, peers[0])
        if peers:
            return Label(State.PEER_WAIT, f"one of {len(peers)} peers")
        if len(polled) == 1 and self._is_brief_socket(pid, *polled[0]):
            return Label(State.PEER_WAIT, UNKNOWN_PEER)
        return Label(State.IDLE_OTHER if members or forever else State.TIMER_WAIT)

    def _is_brief_socket(self, pid: int, fd: int, inode: int) -> bool:
        """Whether this may be a connection opened for one question; no pipe, no lasting one."""
        may_be = self._endpoints.kind_of.get((pid, fd), "socket") == "socket"
        return inode > 0 and may_be and inode not in self._lasting

    def _path(self, pid: int, fd: int) -> str:
        return self._endpoints.path_of.get((pid, fd), "")


def thread_names(aligned: Aligned) -> dict[tuple[int, int], str]:
    """The kernel's name of each thread by (pid, tid); untrusted text."""
    table = aligned.table("threads")
    columns = (table.integers("pid"), table.integers("tid"), table.text("name"))
    return {(int(pid), int(tid)): name for pid, tid, name in zip(*columns, strict=True)}


def runtime_ranges(aligned: Aligned) -> dict[int, list[tuple[int, int]]]:
    """The address ranges of `_PyRuntime` in each process, from `python_runtimes`."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    table = aligned.table("python_runtimes")
    columns = [table.integers(name).tolist() for name in ("pid", "start_address", "end_address")]
    for pid, begin, end in zip(*columns, strict=True):
        ranges.setdefault(pid, []).append((begin, end))
    return ranges


def _inside(ranges: dict[int, list[tuple[int, int]]], pid: int, word: int) -> bool:
    return any(begin <= word < end for begin, end in ranges.get(pid, ()))


def gil_words(aligned: Aligned) -> frozenset[tuple[int, int]]:
    """The futex words of each process's GIL, as (pid, address).

    Waiters for the GIL are in *timed* waits on the two adjacent words of one condition variable
    inside `_PyRuntime` (CPython 3.9 to 3.13, Python/ceval_gil.c: take_gil). Other futexes of the
    runtime, timed ones on other addresses or rare ones, are not the GIL: the most used pair is.
    """
    ranges = runtime_ranges(aligned)
    runs = aligned.table("thread_runs")
    runs = runs.where((runs.integers("syscall") == FUTEX) & (runs.integers("arg3") != 0))
    columns = [runs.integers(name).tolist() for name in ("pid", "arg0")]
    words = zip(*columns, strict=True)
    seen = Counter((pid, word) for pid, word in words if _inside(ranges, pid, word))
    return frozenset(_most_used_pairs(seen))


def _most_used_pairs(seen: Counter[tuple[int, int]]) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for pid in {pid for pid, _ in seen}:
        words = [word for other, word in seen if other == pid]
        weight = {word: seen[pid, word] + seen.get((pid, word + 4), 0) for word in words}
        best = max(sorted(weight), key=lambda word: weight[word])
        pairs += [(pid, best), (pid, best + 4)]
    return pairs


def _lasting_inodes(aligned: Aligned) -> frozenset[int]:
    """Sockets waited on for so long that they were listed, were they TCP sockets."""
    runs = aligned.table("thread_runs")
    seen: dict[int, tuple[int, int]] = {}
    columns = [runs.integers(name).tolist() for name in ("fd_inode", "moved_ns", "end_ns")]
    for inode, begin, end in zip(*columns, strict=True):
        first, last = seen.get(inode, (begin, end))
        seen[inode] = (min(first, begin), max(last, end))
    return frozenset(inode for inode, (first, last) in seen.items() if last - first > LISTED_NS)


def _poll_members(
    aligned: Aligned,
) -> dict[tuple[int, int, int], tuple[tuple[int, int], ...]]:
    """The (descriptor, inode) pairs that a wait in poll or select is for, by (pid, tid, moved)."""
    table = aligned.table("poll_members")
    found: dict[tuple[int, int, int], tuple[tuple[int, int], ...]] = {}
    names = ("pid", "tid", "moved_ns", "fd", "inode")
    columns = [table.integers(name).tolist() for name in names]
    for pid, tid, moved_ns, fd, inode in zip(*columns, strict=True):
        found[pid, tid, moved_ns] = (*found.get((pid, tid, moved_ns), ()), (fd, inode))
    return found


ROW_COLUMNS = (
    "pid",
    "tid",
    "moved_ns",
    "syscall",
    "arg0",
    "arg1",
    "arg2",
    "arg3",
    "state_letter",
    "fd_inode",
    "futex_owner",
)


def name_rows(aligned: Aligned, runs: Frame, endpoints: Endpoints) -> list[Label]:
    """One label per row of `runs`, in its order."""
    namer = Namer(aligned, endpoints)
    columns = [runs.integers(name).tolist() for name in ROW_COLUMNS]
    return [namer.name(row) for row in zip(*columns, strict=True)]
