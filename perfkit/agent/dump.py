"""One look at all threads of a process, or of its service: facts only, nobody is stopped.

What the numbers mean, and what addresses are called, is the reporter's to say (`report/dump.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from perfkit import __version__
from perfkit.agent.census import read_name
from perfkit.agent.target import resolve
from perfkit.collectors._descriptors import parse_epoll, parse_link, to_text
from perfkit.collectors._native_frames import KINDS
from perfkit.collectors._proc import parse_status, read_stat
from perfkit.collectors._pyframes import find_interpreter, read_gil
from perfkit.collectors._pyoffsets import Offsets
from perfkit.collectors._socket_text import parse_table
from perfkit.collectors.python_runtime import LoadedRuntime, find_runtime
from perfkit.dump import CodeObject, Dump, DumpedProcess, DumpedThread, Gil, Problem, PythonFrame
from perfkit.errors import NativeMissing, TargetError, Unavailable
from perfkit.host import Host

if TYPE_CHECKING:
    from perfkit._native import DumpedThread as DumpedRow

THREAD_LIMIT = 4096
PROCESS_LIMIT = 64
LINK_LIMIT = 1024
EPOLL_LIMIT = 64
LOOK_LIMIT_S = 10.0
TABLE_LIMIT_BYTES = 8 << 20
SMALL_LIMIT_BYTES = 1 << 16
EPOLL_LIMIT_BYTES = 256 * 1024
ENTRY_BIT = 1 << 31
GRANT = "root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; the same user where ptrace_scope is 0"

_CLOCK_SLEEP, _SLEEP, _ABSOLUTE, _LISTEN = 230, 35, 1, 10
_RUNNING, _IN_NO_CALL = -2, -1
_Answer = TypeVar("_Answer")


class _Python(Struct, frozen=True):
    """The interpreter of a process, as far as it can be read, and why not further."""

    loaded: LoadedRuntime | None = None
    offsets: Offsets | None = None
    problem: Problem | None = None


def take_dump(pid: int, *, whole_service: bool, host: Host | None = None) -> Dump:
    """Looks at all threads of a process, or of its service.

    Raises: `TargetError` where there is no such process, or it ended; `NativeMissing`.
    """
    host = host or Host()
    target = resolve(host, pid, only_pid=not whole_service)
    pids = [one.pid for one in target.processes if whole_service or one.pid == pid]
    pids.sort(key=lambda one: (one != pid, one))
    taken_ns = time.time_ns()
    processes, problems = [], []
    for one in pids[:PROCESS_LIMIT]:
        try:
            processes.append(_call_within(partial(_take_process, host, one), one))
        except Unavailable as absent:
            problems.append(Problem(absent.reason, absent.grant))
        except ProcessLookupError:
            problems.append(Problem(f"process {one} ended while it was looked at"))
    if not processes:
        fix = problems[0].grant or "perfkit diagnose .   (picks the busiest serving process)"
        raise TargetError(problems[0].what, fix=fix)
    return Dump(
        host=socket.gethostname(),
        taken_ns=taken_ns,
        perfkit_version=__version__,
        target=target.name,
        processes=tuple(processes),
        left_out_count=max(0, len(pids) - PROCESS_LIMIT),
        problems=tuple(problems),
    )


def _call_within(call: Callable[[], _Answer], pid: int) -> _Answer:
    """What a call gives that may hang in the kernel; its thread is then left behind."""
    found: list[_Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # it is raised where the answer is waited for
            errors.append(error)

    worker = threading.Thread(target=run, name="perfkit dump", daemon=True)
    worker.start()
    worker.join(LOOK_LIMIT_S)
    if errors:
        raise errors[0]
    if not found:
        raise Unavailable(f"process {pid}: its files did not answer within {LOOK_LIMIT_S:g} s")
    return found[0]


def _take_process(host: Host, pid: int) -> DumpedProcess:
    try:
        from perfkit import _native
    except ImportError as error:
        raise NativeMissing("the C extension is not built", fix="install perfkit again") from error

    status = parse_status(_read(host, f"{pid}/status"))
    python = _find_python(host, pid)
    start = python.loaded.start_address if python.loaded else 0
    offsets = python.offsets.as_tuple() if python.offsets else None
    try:
        found = _native.dump_threads(os.fspath(host.proc), pid, start, offsets, THREAD_LIMIT)
    except ProcessLookupError:
        raise
    except OSError as error:
        raise Unavailable(f"process {pid}: {error.strerror}", grant=GRANT) from error
    rows, objects, stacks, names, python_stacks, span_ns, over_count, gone_count = found
    with _memory(host, pid) as memory:
        threads = tuple(_to_thread(host, pid, row, memory) for row in rows)
        gil = _read_gil(memory, python)
    functions = [(_to_name(name), _to_name(file)) for name, file in names]
    links = dict(_read_links(host, pid, threads))
    return DumpedProcess(
        pid=pid,
        name=read_name(host, read_stat(host, pid)),
        user_id=int((status.get("Uid", "").split() or ["-1"])[0]),
        namespace_pid=int((status.get("NSpid", "").split() or ["-1"])[-1]),
        span_ns=span_ns,
        left_out_count=over_count,
        gone_count=gone_count,
        threads=threads,
        objects=tuple(_to_object(kind, path, build_id) for _, kind, path, build_id in objects),
        stacks=tuple(stacks),
        python_stacks=tuple(
            tuple(_to_frame(functions, number) for number in stack) for stack in python_stacks
        ),
        python_version=python.loaded.version if python.loaded else "",
        runtime=python.loaded.span if python.loaded else (0, 0),
        gil=gil,
        links=links,
        sockets=_read_sockets(host, pid, links),
        epolls=dict(_read_epolls(host, pid, links)),
        problems=tuple(_find_problems(threads, python)),
    )


def _find_python(host: Host, pid: int) -> _Python:
    """The interpreter of a process; the GIL is known by the runtime alone."""
    try:
        loaded = find_runtime(host, pid, {})
        if loaded is None:
            return _Python()
        found = find_interpreter(host, pid, {})
    except Unavailable as absent:
        return _Python(problem=Problem(absent.reason, absent.grant))
    if found is None:
        what = f"Python frames of CPython {loaded.version} in this process are not read"
        return _Python(loaded, problem=Problem(what))
    return _Python(loaded, found[1])


@contextlib.contextmanager
def _memory(host: Host, pid: int) -> Iterator[int]:
    """The memory of a process, open; -1 where it is refused."""
    try:
        descriptor = os.open(f"{host.proc}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield -1
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_gil(memory: int, python: _Python) -> Gil | None:
    if memory < 0 or python.loaded is None or python.offsets is None:
        return None
    return read_gil(memory, python.loaded.start_address, python.offsets)


def _to_thread(host: Host, pid: int, row: DumpedRow, memory: int) -> DumpedThread:
    tid, name, letter, call, wait, stack, end, stack_error, *rest = row
    python_stack, frames_error, is_exact, is_still = rest
    number, arguments, _, _ = call
    fd_inode, futex_owner, members = wait
    has_stack = stack != -1
    # The kernel's own word is asked for where the system call does not tell.
    is_dark = number != _RUNNING and (not has_stack or number == _IN_NO_CALL)
    return DumpedThread(
        tid=tid,
        name=to_text(os.fsdecode(name)),
        state_letter=chr(letter) if letter else "",
        syscall=number,
        arguments=arguments,
        fd_inode=fd_inode,
        futex_owner=futex_owner,
        members=members,
        kernel_function=_read(host, f"{pid}/task/{tid}/wchan").strip("0\n") if is_dark else "",
        left_ns=_read_left(memory, number, arguments),
        stack=stack,
        end=end if has_stack else -1,
        stack_problem=_to_reason(stack_error),
        python_stack=python_stack,
        python_problem=_to_reason(frames_error),
        is_exact=bool(is_exact),
        is_still=bool(is_still),
    )


def _to_reason(error: int) -> str:
    if error == errno.EAGAIN:
        return "it moved while it was read"
    return os.strerror(error).lower() if error else ""


def _read_left(memory: int, number: int, arguments: tuple[int, ...]) -> int:
    """How long a sleeper still sleeps; -1 where that is not known."""
    if memory < 0 or number not in (_SLEEP, _CLOCK_SLEEP):
        return -1
    is_plain = number == _SLEEP
    clock, flags, address = (1, 0, arguments[0]) if is_plain else arguments[:3]
    try:
        seconds, rest_ns = struct.unpack("<qq", os.pread(memory, 16, address))
        until_ns = seconds * 1_000_000_000 + rest_ns
        now_ns = time.clock_gettime_ns(int(clock)) if flags & _ABSOLUTE else 0
    except (OSError, struct.error, OverflowError):
        return -1
    left_ns: int = until_ns - now_ns
    return min(max(left_ns, 0), (1 << 63) - 1)


def _to_object(kind: int, path: bytes, build_id: str) -> CodeObject:
    word = KINDS[kind]
    return CodeObject(word, "" if word == "anonymous" else to_text(os.fsdecode(path)), build_id)


def _to_frame(functions: list[tuple[str, str]], number: int) -> PythonFrame:
    return PythonFrame(*functions[number & ~ENTRY_BIT], is_entry=bool(number & ENTRY_BIT))


def _to_name(text: bytes) -> str:
    return to_text(text.decode("utf-8", "replace"))


def _read(host: Host, path: str) -> str:
    try:
        return host.read_proc(path, SMALL_LIMIT_BYTES)
    except Unavailable:
        return ""


def _read_links(host: Host, pid: int, threads: Iterable[DumpedThread]) -> Iterator[tuple[int, str]]:
    """What the descriptors that threads may wait for point to."""
    wanted = {
        fd
        for one in threads
        if one.syscall >= 0
        for fd in (one.arguments[0] & 0xFFFFFFFF, *(member[0] for member in one.members))
        if 0 <= fd < 1 << 20
    }
    for fd in sorted(wanted)[:LINK_LIMIT]:
        try:
            yield fd, to_text(host.link_proc(f"{pid}/fd/{fd}"))
        except Unavailable:
            continue


def _read_sockets(host: Host, pid: int, links: dict[int, str]) -> dict[int, str]:
    """Whom sockets are connected to, or what they listen at, in the process's own network."""
    found = (parse_link(link) for link in links.values())
    wanted = {inode for kind, inode in found if kind == "socket"}
    told: dict[int, str] = {}
    for name in ("tcp", "tcp6") if wanted else ():
        for one in parse_table(_read_table(host, f"{pid}/net/{name}"), name):
            if one.inode in wanted:
                listens = one.state == _LISTEN
                words = "listening at" if listens else "peer"
                told[one.inode] = f"{words} {_to_address(*(one.local if listens else one.peer))}"
    for line in _read_table(host, f"{pid}/net/unix").splitlines()[1:] if wanted - set(told) else ():
        fields = line.split(None, 7)
        if len(fields) >= 7 and fields[6].isdecimal() and int(fields[6]) in wanted:
            told[int(fields[6])] = f"Unix socket {fields[7] if len(fields) > 7 else ''}".strip()
    return told


def _read_table(host: Host, path: str) -> str:
    try:
        return host.read_proc(path, TABLE_LIMIT_BYTES)
    except Unavailable:
        return ""


def _to_address(name: str, port: int) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _read_epolls(host: Host, pid: int, links: dict[int, str]) -> Iterator[tuple[int, int]]:
    """How many descriptors each epoll watches."""
    epolls = [fd for fd, link in links.items() if parse_link(link)[0] == "eventpoll"]
    for fd in epolls[:EPOLL_LIMIT]:
        try:
            text = host.read_proc(f"{pid}/fdinfo/{fd}", EPOLL_LIMIT_BYTES)
        except Unavailable:
            continue
        yield fd, sum(1 for _ in parse_epoll(text))


def _find_problems(threads: tuple[DumpedThread, ...], python: _Python) -> Iterator[Problem]:
    refused = {os.strerror(errno.EACCES).lower(), os.strerror(errno.EPERM).lower()}
    count = sum(one.stack_problem in refused for one in threads)
    if count:
        yield Problem(f"the stacks of {count} threads are refused", GRANT)
    if python.problem is not None:
        yield python.problem
