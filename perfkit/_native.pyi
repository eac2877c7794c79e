"""The C extension: samplers, histograms, tables of stacks. Built from native/."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, SupportsFloat, SupportsIndex, final

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

# --- histograms (native/module_histogram*.c) ---

@final
class HistogramTimer:
    """Counts how long a with block takes, also where it raises; made by `Histogram.timer`."""

    def __enter__(self) -> HistogramTimer: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Histogram:
    """Counts numbers in base-2 exponential buckets, those of OpenTelemetry and Prometheus.

    Bucket i of scale s (0 to 8) holds (2^(i/N), 2^((i+1)/N)], N = 2^s; negative numbers have the
    same buckets by magnitude. Every number is counted: without `min_value` and `max_value` all
    finite ones have buckets, else those outside of the powers of two around them are in
    `under_count` and `over_count`. Memory is that of the buckets between the least and the greatest
    magnitude, 8 bytes each, at most 16 * 2046 * N bytes.
    Unit: `unit` is that of the values, at most 63 bytes; times are counted in ns, us, ms or s.
    One thread may record while others do under the GIL. Equal are those with the same unit,
    settings, counts, min and max; sums, which depend on the order of additions, are not compared.
    Raises: ValueError; OverflowError beyond 2**63 - 1 values; MemoryError. Nothing changes then.
    """

    def __new__(
        cls,
        unit: str = "ns",
        *,
        scale: int = 6,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> Histogram: ...
    @property
    def unit(self) -> str:
        """The unit of the values."""
        ...
    @property
    def scale(self) -> int:
        """Buckets are 2^(1 / 2^scale) wide."""
        ...
    @property
    def relative_error(self) -> float:
        """By how much a quantile is off at most; 0.005415 at scale 6."""
        ...
    @property
    def count(self) -> int:
        """Values counted, infinite ones included, NaN not."""
        ...
    @property
    def sum(self) -> float:
        """Sum of the finite values."""
        ...
    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN where there is none."""
        ...
    @property
    def min(self) -> float | None:
        """The least value, exactly, or a lower bound in a difference. Missing: none was counted."""
        ...
    @property
    def max(self) -> float | None:
        """The greatest value, exactly, or an upper bound in a difference. Missing: as min."""
        ...
    @property
    def zero_count(self) -> int:
        """How often 0.0 or -0.0 was counted."""
        ...
    @property
    def negative_count(self) -> int:
        """Negative values in buckets or below the negative end of the range."""
        ...
    @property
    def nan_count(self) -> int:
        """What was no number: in no other count, nor in sum, min and max."""
        ...
    @property
    def positive_infinity_count(self) -> int:
        """How often +inf was counted; in `count` and `max`, not in `sum`."""
        ...
    @property
    def negative_infinity_count(self) -> int:
        """How often -inf was counted; in `count` and `min`, not in `sum`."""
        ...
    @property
    def subnormal_count(self) -> int:
        """Values of a magnitude below 2^-1022, which share the lowest bucket."""
        ...
    @property
    def under_count(self) -> int:
        """Values, not zero, of a magnitude below the range; quantiles take them for 0."""
        ...
    @property
    def over_count(self) -> int:
        """Finite values of a magnitude above the range; quantiles take them for min or max."""
        ...
    def record(self, value: SupportsFloat | SupportsIndex, /) -> None:
        """Counts a value. Raises: TypeError where it is no number."""
        ...
    def record_n(self, value: SupportsFloat | SupportsIndex, count: int, /) -> None:
        """Counts a value `count` times. Raises: ValueError for a negative count."""
        ...
    def record_many(
        self,
        values: Buffer | Iterable[SupportsFloat | SupportsIndex],
        kernel: Literal["scalar", "avx512"] | None = None,
        /,
    ) -> None:
        """Counts all numbers of an array of any shape, or of an iterable.

        Buffers of float64, float32 and integers of 32 or 64 bits are read once, without the GIL and
        without a copy unless they have gaps; integers become the nearest float. All of a buffer's
        values are counted or none; of an iterable those before the one that raises are.
        `kernel` is for tests and benchmarks; None takes the fastest that the CPU has.
        Raises: TypeError for other formats, foreign byte order, and items that are no numbers.
        """
        ...
    def start(self) -> int:
        """The moment, monotonic in ns, to be given to `stop`. Raises: ValueError for the unit."""
        ...
    def stop(self, start: int, /) -> None:
        """Counts the time since `start`, in the histogram's unit."""
        ...
    def timer(self) -> HistogramTimer:
        """A context manager that counts how long its block takes. Raises: as `start`."""
        ...
    def quantile(self, quantile: float, /) -> float:
        """The value of rank floor(quantile * (count - 1)), off by at most `relative_error`.

        Never beyond min and max; of subnormal numbers and those outside of the range the error has
        no bound. NaN where nothing was counted. Raises: ValueError outside of 0 to 1.
        """
        ...
    def quantiles(self, quantiles: Iterable[float], /) -> list[float]:
        """The value of each quantile."""
        ...
    def cdf(self, value: float, /) -> float:
        """The share of values that are at most `value`; NaN where nothing was counted.

        Exact at bounds of buckets, of negative ones without the bound itself, linear between.
        """
        ...
    def positive_buckets(self) -> tuple[int, list[int]]:
        """OpenTelemetry's index of the first used bucket, and counts from there to the last."""
        ...
    def negative_buckets(self) -> tuple[int, list[int]]:
        """The same of negative values, by magnitude."""
        ...
    def merge(self, other: Histogram, /) -> None:
        """Adds what `other` counted; the scale falls to the lower one of both.

        Raises: ValueError where unit or range differ.
        """
        ...
    @classmethod
    def merge_all(cls, histograms: Iterable[Histogram | Buffer], /) -> Histogram:
        """The sum of histograms, or of what `to_bytes` gave. Raises: ValueError; also for none."""
        ...
    def downscale(self, scale: int, /) -> None:
        """Goes to wider buckets; what is counted stays. Raises: ValueError for a higher scale."""
        ...
    def copy(self) -> Histogram:
        """A copy that shares nothing."""
        ...
    def to_bytes(self) -> bytes:
        """All of it as some hundred bytes; see native/pk_wire.h."""
        ...
    @classmethod
    def from_bytes(cls, encoded: Buffer, /) -> Histogram:
        """What `to_bytes` gave, from anyone. Raises: ValueError where it is no histogram."""
        ...
    def __add__(self, other: Histogram, /) -> Histogram: ...
    def __iadd__(self, other: Histogram, /) -> Histogram: ...
    def __sub__(self, other: Histogram, /) -> Histogram:
        """What was counted since `other`, an earlier copy. Raises: ValueError where it is none."""
        ...
    def __copy__(self) -> Histogram: ...
    def __deepcopy__(self, memo: Any, /) -> Histogram: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...

# --- tables of stacks (native/module_stacktable*.c, native/module_stacktree.c) ---

StackFrame = tuple[str, str]
"""A function's name and its file (of native code, the object that holds it), "" where it has none;
at most 65,535 bytes of UTF-8 each."""

@final
class StackTree:
    """The counts of a table of stacks by frames; made by `StackTable.tree` and `diff`.

    Node 0 is the root, `("(all)", "")`. Each node stands before its children with all of its
    subtree behind it, siblings in the order of their texts: equal tables give equal trees.
    Nothing changes it, so several threads may read it.
    """

    @property
    def node_count(self) -> int:
        """Nodes, the root included."""
        ...
    def columns(self) -> dict[str, memoryview]:
        """One number for each node, in columns that are made anew by each call.

        Shape: `parent` (-1 of the root) and `frame` (a place in `frames`), `self` (counts of
        stacks that end in it) and `total` (those below it, too), of 64-bit integers; of a
        difference also `earlier_self`, `earlier_total`, and `change`, of float64: total less
        earlier total, each per second of its profile, or as a share of its whole.
        """
        ...
    def frames(self) -> list[StackFrame]:
        """The frames that nodes refer to; the first ones are those of perfkit's own nodes."""
        ...
    def prune(self, ratio_min: float, /) -> StackTree:
        """A tree without nodes whose total is below this share of the root's.

        They are one node `("(other)", "")` below their parent: sums and all other totals stay. In a
        difference a node stays that has the share on either side.
        Raises: ValueError outside of 0 to 1.
        """
        ...
    def fold(self) -> str:
        """A line for each node with counts of its own, as flame graph tools read it.

        Shape: `name (file)` of each frame, outermost first, with `;` between, a space, the count;
        of a difference the earlier count, then the later one, the earlier one brought to the
        later one's duration or total. What has no frame is `(all)`. `;` in a text is written as
        `:`, control characters as `?`.
        Raises: OverflowError beyond 1 GiB.
        """
        ...

@final
class StackTable:
    """Counts stacks, by samples or by any other number, and adds the counts of other hosts.

    A stack's frames are given and told leaf first. It is known by a hash of 128 bits of its frames'
    names and files (native/pk_stackid.h), the same in every process and on every host, and is
    numbered from 0 as it comes. Of ids whose frames are not known the counts are kept, as
    `[unknown]`. Of more than 16,384 frames the outer ones become one, `[truncated]`.
    Unit: that of the counts is the caller's; `duration_ns` is the time in which they were counted.
    One thread at a time: a call while another thread is in one is a RuntimeError, as calls that
    take long let go of the GIL. Equal are those with the same stacks, counts and duration.
    Raises: ValueError; OverflowError where counts or durations are more than 2**63 - 1 in all;
    MemoryError. Nothing that was counted changes then.
    """

    def __new__(cls, *, duration_ns: int = 0) -> StackTable: ...
    @property
    def duration_ns(self) -> int:
        """The time in which this was counted, summed over hosts. Missing: 0, not known."""
        ...
    @duration_ns.setter
    def duration_ns(self, duration_ns: int, /) -> None: ...
    @property
    def stack_count(self) -> int:
        """Distinct stacks, those without counts or without known frames included."""
        ...
    @property
    def total(self) -> int:
        """The sum of all counts."""
        ...
    @property
    def unknown_total(self) -> int:
        """The counts of stacks whose frames are not known."""
        ...
    def intern(self, frames: Iterable[StackFrame], /) -> int:
        """The number of a stack, which is added with a count of 0 where it is new."""
        ...
    def record(self, frames: Iterable[StackFrame], count: int = 1, /) -> None:
        """Counts a stack. Raises: ValueError for a negative count."""
        ...
    def add(self, ids: Buffer, counts: Buffer, /) -> None:
        """Counts stacks by their ids, without the GIL where there are many.

        Shape: a buffer of 16 bytes for each id, and one of as many integers of 64 bits; neither has
        gaps. All are counted or none.
        Raises: ValueError where lengths differ or a count is negative; TypeError for other formats.
        """
        ...
    def frames(self, number: int, /) -> tuple[StackFrame, ...] | None:
        """The frames of a stack. Missing: not known. Raises: IndexError."""
        ...
    def ids(self) -> bytes:
        """The ids of all stacks, 16 bytes each, in the order of their numbers."""
        ...
    def counts(self) -> memoryview:
        """How often each stack was seen, as 64-bit integers, in the order of their numbers."""
        ...
    def merge(self, other: StackTable, /) -> None:
        """Adds what `other` counted, its stacks and its duration."""
        ...
    @classmethod
    def merge_all(cls, tables: Iterable[StackTable | Buffer], /) -> StackTable:
        """The sum of tables, or of what `to_bytes` gave; empty for none."""
        ...
    def tree(self) -> StackTree:
        """The counts as a tree of frames."""
        ...
    def diff(self, earlier: StackTable, /, by: Literal["time", "total"] = "time") -> StackTree:
        """The tree of both tables' stacks, with the counts of both.

        Changes are told per second of `duration_ns`, or as shares of the totals.
        Raises: ValueError where a duration is 0 and changes are told by time.
        """
        ...
    def top(self, limit: int = 20, /) -> list[tuple[str, str, int, int]]:
        """The frames with the most counts of their own first, as (name, file, self, total).

        `self` is what ended in the frame, and sums up to `total` over all frames; `total` is what
        had it anywhere, each stack once however often it recurs there. Raises: ValueError.
        """
        ...
    def to_bytes(self) -> bytes:
        """All of it; the same bytes for equal tables; see native/pk_stackwire.h."""
        ...
    @classmethod
    def from_bytes(cls, encoded: Buffer, /) -> StackTable:
        """What `to_bytes` gave, from anyone, in at most 256 times its memory, and 1 MiB.

        Raises: ValueError where it is no table.
        """
        ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...

# --- shared histograms (native/module_shared*.c) ---

@final
class SharedHistogram:
    """A histogram of scale 6 in a sealed memfd, which others read through /proc without our help.

    It begins empty, lives as long as the object, and has one file for the process and all that are
    forked from it. Values have buckets from `min_value` to `max_value`, which together span at most
    128 octaves, by default 1 ns to 73 minutes, or 1 to 2^42 where the unit is none of time.
    `shard_count`, 1 to 1024, is how many processes write at full speed; memory is some
    22 KB * (shard_count + 1), taken when it is made. Others write more slowly, and lose nothing.
    `name` is a letter or _, then letters, digits, _ . : and -, at most 63; `labels` are at most 16,
    767 bytes in all. All threads of the interpreter may record.
    Raises: ValueError; OSError where there is no room, or Linux is older than 4.14.
    """

    def __new__(
        cls,
        name: str,
        unit: str = "ns",
        *,
        labels: Mapping[str, str] | None = None,
        min_value: float | None = None,
        max_value: float | None = None,
        shard_count: int = 16,
    ) -> SharedHistogram: ...
    @property
    def name(self) -> str:
        """What is counted."""
        ...
    @property
    def unit(self) -> str:
        """The unit of the values."""
        ...
    @property
    def labels(self) -> dict[str, str]:
        """What tells it from others of its name."""
        ...
    def record(self, value: SupportsFloat | SupportsIndex, /) -> None:
        """Counts a value; never waits. Raises: TypeError where it is no number."""
        ...
    def start(self) -> int:
        """The moment, monotonic in ns, to be given to `stop`. Raises: ValueError for the unit."""
        ...
    def stop(self, start: int, /) -> None:
        """Counts the time since `start`. Raises: ValueError for the unit or a later start."""
        ...
    def timer(self) -> HistogramTimer:
        """Counts the time of a with block. Raises: ValueError where the unit is none of time."""
        ...
    def snapshot(self) -> Histogram:
        """What all processes that share it have counted, as `SharedHistogramReader.snapshot`."""
        ...
    def fileno(self) -> int:
        """The descriptor of the file, which stays ours."""
        ...

@final
class SharedHistogramReader:
    """Reads the shared histogram of any process by a link such as /proc/PID/fd/N.

    The file stays readable after its processes have ended, for as long as the object lives.
    Raises: OSError where the link is gone or refused; ValueError where the file is none, unsealed,
    not ready, of another version or byte order, or damaged.
    """

    def __new__(cls, path: str, /) -> SharedHistogramReader: ...
    @property
    def path(self) -> str:
        """The link that it was opened by."""
        ...
    @property
    def name(self) -> str:
        """What is counted."""
        ...
    @property
    def unit(self) -> str:
        """The unit of the values."""
        ...
    @property
    def labels(self) -> dict[str, str]:
        """What tells it from others of its name."""
        ...
    @property
    def inode(self) -> int:
        """The file's number; with the generation the same file, whoever has it open."""
        ...
    @property
    def generation(self) -> int:
        """When the file was made, in ns since the host started; even."""
        ...
    @property
    def creator_pid(self) -> int:
        """The process that made it, in its own namespace of process ids."""
        ...
    def snapshot(self) -> Histogram:
        """What is counted by now; no count of a later snapshot is lower.

        Shape: scale 6 and the range of its writer. Negative values have no buckets: quantiles take
        them for `min`. A record that is just being made may be missing in `sum`, and `min` and
        `max` are bounds then. Raises: ValueError where the file is damaged.
        """
        ...
