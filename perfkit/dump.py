"""What one look at all threads of a process, or a service, tells: facts, as the agent read them.

The numbers are the kernel's and the files' own, the texts are not trusted; what they mean, and what
addresses are called, is the reporter's to say.
"""

from __future__ import annotations

from msgspec import Struct

SCHEMA = "perfkit.dump/1"


class Problem(Struct, frozen=True):
    """What could not be seen, and what would show it; "" where nothing would."""

    what: str
    grant: str = ""


class CodeObject(Struct, frozen=True):
    """A file that code of a process lies in; kind anonymous: whatever lies in none."""

    kind: str
    path: str
    build_id: str


class PythonFrame(Struct, frozen=True):
    """A Python function that is being run; `is_entry`: C called it."""

    function: str
    file: str
    is_entry: bool


class DumpedThread(Struct, frozen=True):
    """What one thread did. Numbers as the kernel tells them; `syscall` -2 running, -3 refused.

    Shape: `members` of a poll as (fd, events, inode). Missing: `stack` and `python_stack` -1 with
    the reason; `left_ns` -1 where it sleeps for no known time.
    """

    tid: int
    name: str
    state_letter: str
    syscall: int
    arguments: tuple[int, ...]
    fd_inode: int
    futex_owner: int
    members: tuple[tuple[int, int, int], ...]
    kernel_function: str
    left_ns: int
    stack: int
    end: int
    stack_problem: str
    python_stack: int
    python_problem: str
    is_exact: bool
    is_still: bool


class Gil(Struct, frozen=True):
    """The lock of an interpreter: whether it is held, and by whom it was taken last.

    Missing: `holder_tid` 0 where nobody has taken it yet.
    """

    is_held: bool
    holder_tid: int


class DumpedProcess(Struct, frozen=True):
    """All threads of a process at one moment, and what their waits refer to.

    Shape: `stacks` of (object, offset, flags), leaf first; `links` by descriptor, `sockets` by
    inode, `epolls` by descriptor the number of members. `span_ns` is how long the look took.
    """

    pid: int
    name: str
    user_id: int
    namespace_pid: int
    span_ns: int
    left_out_count: int
    gone_count: int
    threads: tuple[DumpedThread, ...]
    objects: tuple[CodeObject, ...]
    stacks: tuple[tuple[tuple[int, int, int], ...], ...]
    python_stacks: tuple[tuple[PythonFrame, ...], ...]
    python_version: str
    runtime: tuple[int, int]
    gil: Gil | None
    links: dict[int, str]
    sockets: dict[int, str]
    epolls: dict[int, int]
    problems: tuple[Problem, ...]


class Dump(Struct, frozen=True):
    """One look at a process or a service; `left_out_count` processes were not looked at."""

    host: str
    taken_ns: int
    perfkit_version: str
    target: str
    processes: tuple[DumpedProcess, ...]
    left_out_count: int = 0
    problems: tuple[Problem, ...] = ()
    schema: str = SCHEMA
