"""The C extension: samplers of threads, sockets and stacks. Built from native/."""

from collections.abc import Iterable

from typing_extensions import Buffer

# --- threads and processes (native/module_threads.c) ---

ThreadRows = tuple[tuple[bytes, ...], int, int]
"""Columns of 64-bit integers, row count, rows dropped since the last take."""

class ThreadSampler:
    """Samples the threads of processes, on a thread of its own that no read can make us wait for.

    It begins at once, at 1 / `interval_ns` or what `budget_ratio` of a core pays for. At most
    `row_limit` rows wait between two takes, at most `thread_limit` threads are followed, at most
    `descriptor_limit` files stay open (-1: what RLIMIT_NOFILE leaves). Stacks of blocked threads
    are taken for `wall_budget_ratio` of a core beside that; 0: none. One caller at a time.
    Raises: OSError, ValueError.
    """

    def __new__(
        cls,
        proc_root: str,
        pids: Iterable[int],
        *,
        interval_ns: int = 10_000_000,
        budget_ratio: float = 0.02,
        row_limit: int = 32_768,
        thread_limit: int = 4096,
        descriptor_limit: int = -1,
        wall_budget_ratio: float = 0.0,
    ) -> ThreadSampler: ...
    def add_pids(self, pids: Iterable[int], /) -> None:
        """Begins to follow more processes, from the next tick on; known ones change nothing."""
        ...
    def add_cgroup(self, cgroup_index: int, path: str, version: int, /) -> None:
        """Begins to read a cpu.stat file at every tick."""
        ...
    def set_budget(self, budget_ratio: float, /) -> None:
        """Changes the share of a core that it may cost, from the next tick on."""
        ...
    def take(self) -> dict[str, ThreadRows]:
        """Hands over the rows that were closed since the last take; never waits.

        Shape: thread_runs, poll_members, sampler_ticks and cgroup_ticks with the columns of those
        tables; threads_met: pid, tid, start_ticks, nice, policy, first_seen_ns and a name of 16
        bytes in two columns; thread_runs_open: rows of a sampler that had to be abandoned;
        wall_samples: the columns of that table.
        """
        ...
    def add_python(self, pid: int, runtime_address: int, offsets: Iterable[int], /) -> None:
        """Has the Python frames of a process read with its stacks, of up to 64 processes.

        Offsets as in native/pk_pylayout.h. Raises: OSError where there is no more room.
        """
        ...
    def set_wall_budget(self, budget_ratio: float, /) -> None:
        """Changes the share of a core that stacks may cost, from the next tick on."""
        ...
    def take_stacks(
        self,
    ) -> tuple[
        list[NativeObject],
        tuple[bytes, ...],
        list[tuple[bytes, bytes]],
        list[tuple[int, ...]],
    ]:
        """Hands over what wall_samples refer to, as far as it is new; asked for after `take`.

        Shape: objects; columns of frames (stack, depth, object, offset, flags), leaf first;
        functions as (name, file); Python stacks as numbers of functions (innermost first; with bit
        31 where C called it). Each is numbered from 0 in the order in which they come.
        """
        ...
    def wall_status(self) -> dict[str, int]:
        """Cost and counts of stacks so far; names as in native/pk_wall.h."""
        ...
    def stop(self, timeout_ns: int = 300_000_000, /) -> bool:
        """Observes every thread once more, closes all rows and ends the sampler.

        False: a read under /proc did not return in time. The sampler is left behind and frees its
        memory when it does; the rows that were open come as thread_runs_open.
        """
        ...
    def status(self) -> dict[str, int]:
        """Ticks, cost and counts so far; names as in native/pk_sampler.h."""
        ...

def process_cpu_ns(pids: Buffer, /) -> bytes:
    """CPU ns of each process, exited threads included; packed 64-bit integers, -1 where gone."""
    ...

def list_fds(proc_root: str, pid: int, limit: int, /) -> list[tuple[int, str]]:
    """Open descriptors of a process and what their links say, at most `limit`. Raises: OSError."""
    ...

# --- sockets (native/module_sockets.c) ---

PackedRows = tuple[tuple[bytes, ...], int, int]
"""Columns of 64-bit integers, row count, dropped count."""

NamedRows = tuple[PackedRows, list[str], list[str]]
"""Rows, and for each the local and the peer address ("ip:port").

Columns of identities: socket_index, inode, first_seen_ns, role, family (4 or 6). Of closed sockets:
the same with t_ns in the place of first_seen_ns, then the counters from last_sent_ms on. Roles: 1
listener, 2 accepted, 3 outgoing.
"""

class SocketSampler:
    """Reads a service's TCP sockets at a steady rate, on a thread of its own.

    `netns_path` is the target's namespace (/proc/PID/ns/net), None stays in the caller's. At most
    `get_limit` connections are read in a poll, a rotating random sample when there are more. The
    rate falls where it would cost more than `budget_ratio` of a core. One caller at a time.
    Processes beside the service listen at the `shared_ports` too (packed 16-bit integers): what
    comes in there counts only where the service holds it.
    Raises: OSError whose filename says what failed: open_namespace, enter_namespace, query, thread.
    """

    def __new__(
        cls,
        netns_path: str | None,
        *,
        poll_interval_ns: int = 50_000_000,
        dump_interval_ns: int = 1_000_000_000,
        accept_interval_ns: int = 250_000_000,
        budget_ratio: float = 0.007,
        get_limit: int = 200,
        socket_limit: int = 16_384,
        inode_limit: int = 65_536,
        row_limit: int = 32_768,
        shared_ports: bytes = b"",
    ) -> SocketSampler: ...
    def set_inodes(self, inodes: bytes, /) -> None:
        """Tells which socket inodes the service holds, as packed 64-bit integers."""
        ...
    def set_budget(self, budget_ratio: float, /) -> None:
        """Changes the share of a core that it may cost, from the next poll on."""
        ...
    def take(self) -> tuple[PackedRows, NamedRows, PackedRows, NamedRows]:
        """Hands over runs, closed sockets, polls and identities recorded since the last take.

        Columns of runs and polls are those of the tables socket_runs and socket_polls. Open runs
        come after `stop`.
        """
        ...
    def stop(self) -> bool:
        """Ends the sampler within 0.3 s; False when its thread is stuck in the kernel."""
        ...
    def stats(self) -> dict[str, int]:
        """Counts of the sampler so far; names as in struct pk_socket_stats."""
        ...

def parse_sock_diag(datagram: bytes, /) -> list[tuple[object, ...]]:
    """Reads the messages of one netlink datagram; for tests.

    Shape: (kind, sequence, error), and of facts (kind 0) also family, state, inode, counters.
    """
    ...

# --- one look at all threads (native/module_dump.c) ---

NativeObject = tuple[int, int, bytes, str]
"""A process that maps it, its kind (0 file, 1 vdso, 2 kernel, 3 anonymous), path, build-id."""

NativeFrame = tuple[int, int, int]
"""Number of the object, offset in its file (the address where it has none), PK_FRAME_* flags."""

DumpedThread = tuple[
    int,
    bytes,
    int,
    tuple[int, tuple[int, int, int, int, int, int], int, int],
    tuple[int, int, tuple[tuple[int, int, int], ...]],
    int,
    int,
    int,
    int,
    int,
    int,
    int,
]
"""A thread: tid, name, state letter; its system call (number, arguments, stack pointer, program
counter); what lies behind that (inode of the descriptor, word behind the futex, members of a poll
as (fd, events, inode)); native stack (-1: none), why that ends (pk_unwind_end), why there is none
(errno; 0: it runs); Python stack (-1: none), why there is none (errno; 0: it runs no Python);
whether it has not run during the look, and not until the end of all looks."""

def dump_threads(
    proc_root: str,
    pid: int,
    runtime_address: int,
    offsets: Iterable[int] | None,
    thread_limit: int,
    /,
) -> tuple[
    list[DumpedThread],
    list[NativeObject],
    list[tuple[NativeFrame, ...]],
    list[tuple[bytes, bytes]],
    list[tuple[int, ...]],
    int,
    int,
    int,
]:
    """One look at all threads of a process, none of which is stopped.

    Shape: threads, objects, native stacks (leaf first), functions as (name, file), Python stacks
    as numbers of functions (innermost first; with bit 31 where C called it), the time that it took
    in ns, threads beyond the limit, threads that ended meanwhile.
    Missing: no Python frames where `offsets` is None; else they are as in native/pk_pylayout.h.
    Raises: OSError (ProcessLookupError where there is no such process), ValueError.
    """
    ...

# --- Python stacks (native/module_pystacks.c) ---

class PythonSampler:
    """Reads the stacks of Python threads without stopping them, on a thread of its own.

    It looks every `interval_ns`, or as often as `budget_ratio` of a core pays for. At most
    `row_limit` rows wait between two takes. One caller at a time. Raises: OSError, ValueError.
    """

    def __new__(
        cls,
        proc_root: str,
        *,
        interval_ns: int = 20_000_000,
        budget_ratio: float = 0.005,
        row_limit: int = 16_384,
    ) -> PythonSampler: ...
    def add(self, pid: int, runtime_address: int, offsets: Iterable[int], /) -> None:
        """Begins to look at one more process; offsets as in native/pk_pylayout.h.

        At most 16 are looked at at once; others wait until one has exited.
        """
        ...
    def set_budget(self, budget_ratio: float, /) -> None:
        """Changes the share of a core that it may cost, from the next tick on."""
        ...
    def take(
        self,
    ) -> tuple[tuple[bytes, ...], list[tuple[bytes, bytes]], list[tuple[int, ...]], int]:
        """Hands over what is new since the last take; never waits.

        Shape: columns of 64-bit integers (begin_ns, end_ns, pid, tid, is_running, stack, run_ns);
        functions as (name, file) in UTF-8; stacks as numbers of functions, innermost first; rows
        dropped. Functions and stacks are numbered from 0 in the order in which they come.
        """
        ...
    def stop(self, timeout_ns: int = 300_000_000, /) -> bool:
        """Looks once more, closes all rows and ends; False: a read hung, and it was left behind."""
        ...
    def status(self) -> dict[str, int]:
        """Ticks, cost and counts so far; names as in native/pk_pysampler.h and pk_pyprocess.h."""
        ...

# --- native stacks (native/module_profiler.c) ---

class NativeSampler:
    """Samples what runs, with its native stack, without stopping it, on a thread of its own.

    It samples each busy CPU every `interval_ns`, or as often as `budget_ratio` of a core pays for:
    all CPUs whatever runs on them, or else only the `threads` and what they beget. Stacks are taken
    of the wanted processes, nobody's at first. `has_switches` tells how long their threads were off
    the CPU, too, unless there are more than 10,000 switches a second. At most `row_limit` rows wait
    between two takes. One caller at a time.
    Raises: OSError (EACCES, EPERM: the kernel refuses to record that), ValueError.
    """

    def __new__(
        cls,
        proc_root: str,
        *,
        interval_ns: int = 20_408_163,
        budget_ratio: float = 0.0025,
        stack_bytes: int = 16_384,
        row_limit: int = 16_384,
        is_host_wide: bool = True,
        has_kernel: bool = True,
        has_switches: bool = False,
        threads: Iterable[int] = (),
    ) -> NativeSampler: ...
    def set_wanted(self, pids: Iterable[int] | None, /) -> None:
        """Tells whose stacks are wanted, with all that they beget; None: everybody's."""
        ...
    def set_budget(self, budget_ratio: float, /) -> None:
        """Changes the share of a core that it may cost, from the next tick on."""
        ...
    def take(
        self,
    ) -> tuple[tuple[bytes, ...], tuple[bytes, ...], list[NativeObject], int]:
        """Hands over what is new since the last take; never waits.

        Shape: columns of 64-bit integers (t_ns, pid, tid, cpu, kind, stack, weight_ns, end,
        is_open) with kind 0 on a CPU, 1 left it, 2 would have run on; columns of frames (stack,
        depth, object, offset, flags); objects; rows dropped. Stacks and objects are numbered from 0
        in the order in which they come.
        """
        ...
    def stop(self, timeout_ns: int = 300_000_000, /) -> bool:
        """Looks once more and ends; False: a read hung, and the sampler was left behind."""
        ...
    def status(self) -> dict[str, int]:
        """Samples, cost and counts so far; names as in native/pk_profiler.h and pk_profile.h."""
        ...
