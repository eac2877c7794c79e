"""What every thread of the service does, without stopping it: runs of facts at up to 100 Hz, and
the stacks of those that are blocked.

A thread in C reads /proc/PID/task (see native/pk_sampler.h); this file tells it which processes
belong to the service, and adds what is read once: names, descriptors, what epolls watch.
"""

from __future__ import annotations

import os
import resource
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator

from perfkit import _native
from perfkit.allowance import Want
from perfkit.collectors._cgroup import cpu_chains
from perfkit.collectors._descriptors import EPOLL_MEMBERS, FDS, DescriptorTable, to_text
from perfkit.collectors._proc import parse_status
from perfkit.collectors._service import ServiceTracker
from perfkit.collectors._wall import TABLES as WALL_TABLES
from perfkit.collectors._wall import WallStacks, choose_want
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import (
    Collector,
    Column,
    ColumnType,
    Item,
    Rate,
    Row,
    Rows,
    Session,
    TableSchema,
    Target,
)

FIXTURE = "live"  # proved on real threads, not on fixture trees

INTERVAL_NS = 10_000_000
WANT = Want(start_ratio=0.006, ratio_min=0.0025, ratio_max=0.02, weight=5)
MISSED_RATIO = 0.05  # more ticks missed than this are worth a remark
FIRST_INTERPRETERS = 16  # looked for before the window begins
STATUS_LIMIT = 256  # files /proc/PID/task/TID/status read in one poll
STATUS_LIMIT_NS = 300_000  # and the CPU time they may take
LAST_STATUS_LIMIT_NS = 100_000_000  # the same after the window
PUT_OFF_RATIO = 0.02  # more ticks that could not list threads than this are worth a remark
STATUS_LIMIT_BYTES = 16384
_GRANT = "root or CAP_SYS_PTRACE"
_TEXT = ColumnType.TEXT

THREADS = TableSchema(
    "threads",
    (
        Column("pid"),
        Column("tid"),
        Column("start_ticks", "1/100 s", help="since boot; -1 where it exited at once"),
        Column("name", type=_TEXT, help="untrusted"),
        Column("nice"),
        Column("policy", help="SCHED_ number; -1 unread"),
        Column("cpus_allowed", type=_TEXT, help='as "0-3,8"; "" unread'),
        Column("first_seen_ns", "ns"),
    ),
    source="/proc/PID/task/TID/stat and status",
    help="Every thread of the service that was met.",
)
THREAD_RUNS = TableSchema(
    "thread_runs",
    (
        Column("pid"),
        Column("tid"),
        Column(
            "start_ns",
            "ns",
            help="the observation before the move; in the first row of a thread that was born in "
            "the window: at most 10 ms before its birth, when its counters began",
        ),
        Column("moved_ns", "ns", help="the observation that found the move"),
        Column("end_ns", "ns", help="the last observation without a further move"),
        Column("tick_count", help="observations from moved_ns to end_ns"),
        Column("run_ns", "ns", help="on a CPU, booked in (start_ns, moved_ns]"),
        Column("wait_ns", "ns", help="runnable without a CPU; booked only once it runs again"),
        Column("slice_count", help="times it was put on a CPU"),
        Column("syscall", help="number at moved_ns; -1 in none, -2 running, -3 unreadable"),
        *(Column(f"arg{place}", help="raw bits") for place in range(6)),
        Column("stack_pointer", help="raw bits"),
        Column("state_letter", help="ASCII code of R, S, D, ...; 0 unread"),
        Column("minor_faults", help="since this was last read; -1 unread"),
        Column("major_faults", help="since this was last read; -1 unread"),
        Column("cpu", help="it ran on last; -1 unread"),
        Column("fd_inode", help="of the socket or pipe that the call, or its one poll, waits for"),
        Column("futex_owner", help="32 bits behind the futex: a mutex' owner in glibc; 0 unread"),
        Column("end_letter", help="state letter at the end of the window, in last rows; else 0"),
    ),
    source="/proc/PID/task/TID/schedstat, syscall and stat; process_vm_readv",
    help="A row per move: schedstat had changed. Rows of a thread follow without gap: the next "
    "start_ns is this end_ns. What a thread did after its last row is not known.",
)
POLL_MEMBERS = TableSchema(
    "poll_members",
    (
        Column("pid"),
        Column("tid"),
        Column("moved_ns", "ns", help="of the row in thread_runs"),
        Column("fd"),
        Column("events", help="POLLIN 1, POLLPRI 2, POLLOUT 4, ..."),
        Column("inode", help="of a socket or pipe; else 0"),
    ),
    source="the arguments of poll, ppoll, select and pselect6 by process_vm_readv",
    help="What a wait in poll or select is for: the first 8 descriptors, below 1024 in select.",
)
SAMPLER_TICKS = TableSchema(
    "sampler_ticks",
    (
        Column("t_ns", "ns"),
        Column("late_ns", "ns", help="behind its plan"),
        Column("thread_read_count"),
        Column("cpu_ns", "ns", help="CPU time of the sampler since the last tick"),
    ),
    source="CLOCK_MONOTONIC and the CPU clock of the sampler's thread",
    help="One row per tick.",
)
CGROUP_TICKS = TableSchema(
    "cgroup_ticks",
    (
        Column("t_ns", "ns", help="within the tick that read the threads"),
        Column("cgroup_index", help="as in the table cgroups"),
        Column("period_count", help="-1 where the file does not tell"),
        Column("throttled_count"),
        Column("throttled_ns", "ns", help="summed over CPUs"),
    ),
    source="cpu.stat: nr_periods, nr_throttled, throttled_time (v1) or throttled_usec (v2)",
    help="Counters of each cgroup that can throttle the service: at start, at change, at end.",
)


class _Session:
    """The sampler at work."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._tracker = ServiceTracker(host, target)
        self._descriptors = DescriptorTable(host)
        self._met: deque[tuple[int, ...]] = deque()
        self._dropped_count = 0
        pids = self._tracker.service_pids
        self._sampler = _native.ThreadSampler(
            os.fspath(host.proc),
            pids,
            interval_ns=INTERVAL_NS,
            budget_ratio=WANT.start_ratio,
            wall_budget_ratio=choose_want(host).start_ratio,
        )
        self._wall = WallStacks(host, self._sampler)
        self._wall.find_interpreters(pids, limit=FIRST_INTERPRETERS)
        self._told = set(pids)
        self._ratios = [WANT.start_ratio]
        for ref in cpu_chains(host, target):
            path = os.fspath(ref.folder / "cpu.stat")
            self._sampler.add_cgroup(ref.index, path, ref.version)

    def poll(self) -> Iterable[Item]:
        self._tracker.update()
        pids = self._tracker.service_pids
        new = [pid for pid in pids if pid not in self._told]
        self._sampler.add_pids(new)
        self._told = set(pids)
        self._wall.find_interpreters(pids)
        yield from self._take()
        yield from self._describe(STATUS_LIMIT_NS)
        yield from self._descriptors.poll(pids)
        self._share_budget()

    def _share_budget(self) -> None:
        """Asks what the sampler may take of a core by now."""
        self._wall.share_budget()
        if self._host.allowance is None:
            return
        status = self._sampler.status()
        is_full = status["interval_ns"] <= INTERVAL_NS
        ratio = self._host.allowance.share("threads", WANT, status["spent_ns"], is_full=is_full)
        self._ratios.append(ratio)
        self._sampler.set_budget(ratio)

    def close(self) -> Iterable[Item]:
        self._sampler.stop()
        yield from self._take()
        yield from self._describe(LAST_STATUS_LIMIT_NS)
        yield from (self._to_row(met, {}) for met in self._met)
        yield from self._descriptors.close()

    def rate(self) -> Rate:
        status = self._sampler.status()
        span_ns = max(status["last_tick_ns"] - status["started_ns"], 1)
        return Rate(
            "threads",
            requested_hertz=1e9 / INTERVAL_NS,
            achieved_hertz=max(status["tick_count"] - 1, 0) * 1e9 / span_ns,
            tick_count=status["tick_count"],
            missed_count=status["missed_count"],
            note="; ".join(self._to_notes(status)),
        )

    def _to_notes(self, status: dict[str, int]) -> Iterator[str]:
        yield from to_pace_remark(status, sum(self._ratios) / len(self._ratios))
        yield from to_remarks(status, self._dropped_count, len(self._descriptors.refused))
        yield from self._wall.to_remarks()

    def _take(self) -> Iterator[Item]:
        taken = self._sampler.take()
        columns, _, dropped_count = taken.pop("threads_met")
        self._met.extend(zip(*(array("q", column) for column in columns), strict=True))
        yield Rows("threads", (), 0, dropped_count)
        yield Rows("thread_runs", *taken.pop("thread_runs_open"))
        for table, rows in taken.items():
            self._dropped_count += rows[2]
            yield Rows(table, *rows)
        yield from self._wall.take()

    def _describe(self, limit_ns: int) -> Iterator[Item]:
        """Yields threads with what their status tells; the file is dear, so few at a time."""
        end_ns = time.thread_time_ns() + limit_ns
        for _ in range(min(STATUS_LIMIT, len(self._met))):
            if time.thread_time_ns() > end_ns:
                return
            met = self._met.popleft()
            try:
                text = self._host.read_proc(f"{met[0]}/task/{met[1]}/status", STATUS_LIMIT_BYTES)
            except Unavailable:
                text = ""
            yield self._to_row(met, parse_status(text))

    def _to_row(self, met: tuple[int, ...], fields: dict[str, str]) -> Row:
        pid, tid, start_ticks, nice, policy, first_seen_ns, *words = met
        # A thread is often named only after it began: status is read later than its first row.
        name = fields.get("Name") or parse_name(words)
        allowed = fields.get("Cpus_allowed_list", "")
        return Row("threads", (pid, tid, start_ticks, name, nice, policy, allowed, first_seen_ns))


def to_pace_remark(status: dict[str, int], budget_ratio: float) -> Iterator[str]:
    """Says what kept the sampler from its full rate, if anything did."""
    span_ns = max(status["last_tick_ns"] - status["started_ns"], 1)
    planned = max(status["tick_count"] + status["missed_count"], 1)
    if status["missed_count"] <= MISSED_RATIO * planned:
        return
    hertz = status["tick_count"] * 1e9 / span_ns
    # A budget that is not used up cannot be what held it back: no CPU was free in time.
    is_spent = status["spent_ns"] > 0.75 * budget_ratio * span_ns
    why = f"to stay within {100 * budget_ratio:.1f} % of a core" if is_spent else "by a busy host"
    yield f"slowed to {hertz:.0f} Hz {why}"


def to_remarks(
    status: dict[str, int], dropped_count: int, refused_process_count: int
) -> Iterator[str]:
    """What a reader of the rows must know, from the sampler's status at the end."""
    planned = max(status["tick_count"] + status["missed_count"], 1)
    if status["refused_count"]:
        yield f"system calls of some threads were refused (grant {_GRANT})"
    if refused_process_count:
        yield f"descriptors of {refused_process_count} processes were refused (grant {_GRANT})"
    if status["over_limit_count"]:
        yield "more threads or processes than are followed: some were left out"
    if status["put_off_count"] > PUT_OFF_RATIO * planned:
        yield "threads came and went faster than they could be listed: some were missed"
    if dropped_count:
        yield f"{dropped_count} rows were dropped"
    if status["is_abandoned"]:
        yield "the sampler did not end in time and was left behind"


def parse_name(words: list[int]) -> str:
    """Unpacks a thread's name of 16 bytes from two words."""
    raw = array("q", words).tobytes()
    return to_text(os.fsdecode(raw.partition(b"\0")[0]))


def raise_descriptor_limit() -> None:
    """Raises our soft limit of open descriptors to the hard one: three are wanted per thread."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_session(host: Host, target: Target) -> Session:
    """Starts the sampler. Raises: `Unavailable` where there is no service, or no schedstat."""
    if not target.processes:
        raise Unavailable("no service was chosen, so there are no threads to follow")
    raise_descriptor_limit()
    if not (host.proc / "self" / "schedstat").exists():
        raise Unavailable("this kernel has no schedstat (built without CONFIG_SCHED_INFO)")
    return _Session(host, target)


COLLECTOR = Collector(
    "threads",
    metrics=(),
    tables=(
        THREADS,
        THREAD_RUNS,
        POLL_MEMBERS,
        SAMPLER_TICKS,
        CGROUP_TICKS,
        FDS,
        EPOLL_MEMBERS,
        *WALL_TABLES,
    ),
    scope="target",
    interval_s=1.0,
    timeout_s=0.5,
    open=open_session,
)
