"""What a thread waits for, in words: from its system call and what lies behind that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from perfkit.analysis import states
from perfkit.dump import DumpedProcess, DumpedThread
from perfkit.units import to_duration

_LETTERS = {"R": "is running, or ready to", "S": "sleeps", "D": "waits uninterruptibly"}
_OPERATIONS = {"pipe": "a pipe", "eventfd": "an eventfd", "eventpoll": "an epoll"}
_POLLIN, _POLLOUT = 1, 4
_MEMBERS_SHOWN = 3


class Wait(Struct, frozen=True):
    """What a thread waits for. `kind` is a word for programs; `text` holds untrusted text.

    Missing: `holder_tid` 0 where nobody of the process is known to hold it.
    """

    kind: str
    text: str
    holder_tid: int = 0


_STOPPED, _ENDED = Wait("stopped", "is stopped"), Wait("ended", "has ended")
_ENDED_OR_STOPPED = {"t": _STOPPED, "T": _STOPPED, "Z": _ENDED, "X": _ENDED}


class Place(Struct, frozen=True):
    """Where a thread is: its process, the names of all its threads, and its native functions.

    Shape: `functions` leaf first.
    """

    process: DumpedProcess
    names: Mapping[int, str]
    functions: Sequence[str]


def word_wait(thread: DumpedThread, place: Place) -> Wait:
    """Names the wait of one thread."""
    number = thread.syscall
    if thread.state_letter in _ENDED_OR_STOPPED:
        return _ENDED_OR_STOPPED[thread.state_letter]
    if number == states.FUTEX:
        return _word_futex(thread, place)
    if number in states.POLL:
        return _word_poll(thread, place.process)
    if number >= 0:
        return _word_call(thread, place.process)
    return _word_outside(thread)


def _word_outside(thread: DumpedThread) -> Wait:
    """A thread in no system call, or in one that is not told."""
    if thread.syscall == states.RUNNING:
        return Wait("running", "is running, or ready to")
    inside = f" in {thread.kernel_function}" if thread.kernel_function else ""
    if thread.syscall == states.NOT_IN_SYSCALL:
        return Wait("kernel", f"is blocked in the kernel{inside}, outside a system call")
    # The state letter and the kernel's function are open to all.
    text = _LETTERS.get(thread.state_letter, "cannot be looked at")
    return Wait("running" if thread.state_letter == "R" else "unread", f"{text}{inside}")


def _word_futex(thread: DumpedThread, place: Place) -> Wait:
    word = thread.arguments[0] & ((1 << 64) - 1)
    begin, end = place.process.runtime
    if begin <= word < end:
        if thread.arguments[3] == 0:
            return Wait("interpreter", "waits in the interpreter")
        return _word_gil(thread, place)
    what = _name_futex(place.functions)
    owner = thread.futex_owner
    if what in ("lock", "") and owner in place.names and owner != thread.tid:
        held = _word_holder(owner, place)
        return Wait("lock", f"waits for the lock at {word:#x}, held by {held}", owner)
    texts = {
        "lock": f"waits for the lock at {word:#x}",
        "condition": f"waits on the condition at {word:#x}",
        "semaphore": f"waits for the semaphore at {word:#x}",
        "python lock": f"waits for the Python lock at {word:#x}",
        "join": "waits for another thread to end",
        "barrier": f"waits at the barrier at {word:#x}",
    }
    if what == "join":
        tid = thread.arguments[2] & 0xFFFFFFFF
        if tid in place.names:
            return Wait("join", f"waits for {_word_holder(tid, place)} to end", tid)
    return Wait(what or "futex", texts.get(what, f"waits on the futex at {word:#x}"))


_FUTEX_FUNCTIONS = (
    ("PyThread_acquire_lock", "python lock"),
    ("pthread_cond", "condition"),
    ("pthread_join", "join"),
    ("pthread_clockjoin", "join"),
    ("pthread_timedjoin", "join"),
    ("pthread_barrier", "barrier"),
    ("sem_", "semaphore"),
    ("pthread_mutex", "lock"),
    ("pthread_rwlock", "lock"),
    ("lll_lock", "lock"),
)


def _name_futex(functions: Sequence[str]) -> str:
    """What the C library's function is about that waits; "" where no name tells."""
    for part, word in _FUTEX_FUNCTIONS:
        if any(part in function for function in functions):
            return word
    return ""


def _word_gil(thread: DumpedThread, place: Place) -> Wait:
    gil = place.process.gil
    if gil is None or gil.holder_tid == thread.tid:
        return Wait("gil", "waits for the GIL")
    if not gil.is_held:
        return Wait("gil", "waits for the GIL, just given back")
    held = _word_holder(gil.holder_tid, place)
    return Wait("gil", f"waits for the GIL, held by {held}", gil.holder_tid)


def _word_holder(tid: int, place: Place) -> str:
    name = place.names.get(tid, "")
    return f"{tid} ({name})" if name else f"thread {tid}"


def _word_poll(thread: DumpedThread, process: DumpedProcess) -> Wait:
    members = thread.members
    if not members:
        return Wait("sleep", "sleeps in poll or select")
    shown = [_name_fd(fd, process) for fd, _, _ in members[:_MEMBERS_SHOWN]]
    more = f", and {len(members) - _MEMBERS_SHOWN} more" if len(members) > _MEMBERS_SHOWN else ""
    verb = "write to" if all(events & _POLLOUT and not events & _POLLIN
                             for _, events, _ in members) else "read from"  # fmt: skip
    return Wait("poll", f"polls to {verb} {', '.join(shown)}{more}")


def _word_call(thread: DumpedThread, process: DumpedProcess) -> Wait:
    number, fd = thread.syscall, thread.arguments[0] & 0xFFFFFFFF
    if number in states.EPOLL:
        count = process.epolls.get(fd)
        watched = f" of {count} descriptors" if count is not None else ""
        return Wait("epoll", f"waits for events{watched} in epoll {fd}")
    if number in states.SLEEP:
        left = f", {to_duration(thread.left_ns / 1e9)} left" if thread.left_ns >= 0 else ""
        return Wait("sleep", f"sleeps{left}")
    if number in states.CHILD:
        return Wait("child", "waits for a child process")
    if number in states.SIGNAL:
        return Wait("signal", "waits for a signal")
    verbs = (
        (states.ACCEPT, "accept", "waits for connections at"),
        (states.RECEIVE, "read", "reads from"),
        (states.SEND, "write", "writes to"),
        ({states.CONNECT}, "connect", "connects"),
        (states.FLUSH, "flush", "flushes"),
        (states.FILE, "file", "is in a file operation on"),
    )
    for numbers, kind, verb in verbs:
        if number in numbers:
            return Wait(kind, f"{verb} {_name_fd(fd, process)}".replace("connects", "connects by"))
    return Wait("call", f"is blocked in system call {number}")


def _name_fd(fd: int, process: DumpedProcess) -> str:
    """A descriptor in words; the text is the target's."""
    link = process.links.get(fd, "")
    if link.startswith("socket:["):
        digits = link[8:-1]
        told = process.sockets.get(int(digits)) if digits.isdecimal() else None
        return f"fd {fd} ({told or 'a socket'})"
    for kind, words in _OPERATIONS.items():
        if link.startswith((f"{kind}:[", f"anon_inode:[{kind}")):
            return f"fd {fd} ({words})"
    return f"fd {fd} ({link})" if link else f"fd {fd}"
