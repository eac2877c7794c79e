"""Native stacks of what runs on the CPUs, read without ever stopping a process.

The kernel samples every CPU; a thread in C unwinds the samples of the service's processes. Where
that is refused, less is asked for, one step after the other, and the rate's note says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from msgspec import Struct

from perfkit import _native
from perfkit.allowance import Want
from perfkit.collectors._native_frames import FRAME_COLUMNS, OBJECT_COLUMNS, to_object_rows
from perfkit.collectors._service import ServiceTracker
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import (
    Collector,
    Column,
    ColumnType,
    Item,
    Rate,
    Rows,
    Session,
    TableSchema,
    Target,
)

FIXTURE = "live"  # proved on real programs, not on fixture trees

WANT = Want(start_ratio=0.001, ratio_min=0.0004, ratio_max=0.002, weight=2)
THREAD_LIMIT = 4096
# More of the samples than this is worth a remark.
REMARK_RATIO = 0.02
SAMPLE_KINDS = ("cpu", "off", "preempted")

_SOURCE = "perf_event_open: cpu-clock with registers and stack; call frame tables of each file"
NATIVE_OBJECTS = TableSchema(
    "native_objects",
    OBJECT_COLUMNS,
    source="/proc/PID/maps, mappings as the kernel tells them, and the ELF notes of each file",
    help=(
        "What code lies in: files, the vdso, the kernel as one, and for each process what lies in "
        "no file, or in none that can be read."
    ),
)
NATIVE_STACKS = TableSchema(
    "native_stacks",
    FRAME_COLUMNS,
    source=_SOURCE,
    help=(
        "Every distinct native stack, one row a frame. Addresses of the kernel are negative: the "
        "64 bits as a signed number."
    ),
)
NATIVE_SAMPLES = TableSchema(
    "native_samples",
    (
        Column("t_ns", "ns", help="when it was seen, or left the CPU"),
        Column("pid"),
        Column("tid"),
        Column("cpu"),
        Column(
            "kind",
            type=ColumnType.TEXT,
            help="cpu: seen on it; off: left it, blocked; preempted: left it, would have run on",
        ),
        Column("stack", help="-1 none was taken"),
        Column("weight_ns", "ns", help="CPU time that it stands for; how long it was off"),
        Column("end", help="0 root, 1 truncated, 2 lost, 3 too deep; -1 no stack"),
        Column("is_open", help="1 still off at the end: weight_ns is a lower bound"),
    ),
    source=_SOURCE + "; context switches, where they are asked for",
    help="What the service's threads ran, a sample each; with switches, each wait of theirs.",
)

_GRANT = (
    "CAP_PERFMON and CAP_SYS_PTRACE, or root; in a container also a seccomp profile that lets "
    "perf_event_open through"
)


class _Step(Struct, frozen=True):
    """One step of the ladder: what is asked for, and what is lost by it."""

    is_host_wide: bool
    has_kernel: bool
    words: str


_NO_KERNEL = "time in the kernel is not seen (refused; needs CAP_PERFMON)"
_OWN = "only threads of the service that ran at the start, and what they begot (the whole host is "
_OWN += "refused; needs CAP_PERFMON or kernel.perf_event_paranoid <= 0)"
_STEPS = (
    _Step(True, True, ""),
    _Step(True, False, _NO_KERNEL),
    _Step(False, True, _OWN),
    _Step(False, False, f"{_OWN}; {_NO_KERNEL}"),
)


class _Session:
    """A sampler at work, and who is wanted of it."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host, self._wish = host, host.stacks
        self._tracker = ServiceTracker(host, target)
        self._interval_ns = int(1e9 / self._wish.rate_hertz)
        ratio_max = max(self._wish.ratio_max, WANT.ratio_min)
        start_ratio = ratio_max * WANT.start_ratio / WANT.ratio_max
        self._want = Want(start_ratio, WANT.ratio_min, ratio_max, WANT.weight)
        self._sampler, self._step = self._start()
        self._wanted: list[int] = []
        self._object_count = 0
        self._python_ns, self._asked = 0, (host.now_ns(), 0)
        self._follow()

    def poll(self) -> Iterator[Item]:
        self._share_budget()
        yield from self._take()
        self._tracker.update()
        self._follow()

    def close(self) -> Iterator[Item]:
        self._sampler.stop()
        yield from self._take()

    def rate(self) -> Rate:
        """How often each CPU was sampled, and what a reader of the stacks must know."""
        status = self._sampler.status()
        span_ns = max(status["last_tick_ns"] - status["started_ns"], 1)
        return Rate(
            "native_stacks",
            requested_hertz=1e9 / self._interval_ns,
            achieved_hertz=status["slot_count"] * 1e9 / span_ns,
            tick_count=status["slot_count"],
            missed_count=max(0, span_ns // self._interval_ns - status["slot_count"]),
            note="; ".join(to_remarks(status, self._step.words)),
        )

    def _start(self) -> tuple[_native.NativeSampler, _Step]:
        """The first step that the kernel grants. Raises: `Unavailable` where it grants none."""
        refusals = []
        for step in _STEPS:
            if self._wish.is_host_wide and not step.is_host_wide:
                continue
            threads = self._list_threads() if self._needs_threads(step) else []
            try:
                return self._open(step, threads), step
            except OSError as error:
                refusals.append((error.strerror or str(error)).lower())
        raise Unavailable(f"perf_event_open: {refusals[0]}", grant=_GRANT)

    def _open(self, step: _Step, threads: list[int]) -> _native.NativeSampler:
        return _native.NativeSampler(
            os.fspath(self._host.proc),
            interval_ns=self._interval_ns,
            budget_ratio=self._want.start_ratio,
            stack_bytes=self._wish.stack_bytes,
            is_host_wide=step.is_host_wide,
            has_kernel=step.has_kernel,
            has_switches=self._wish.has_switches,
            threads=threads,
        )

    def _needs_threads(self, step: _Step) -> bool:
        return self._wish.has_switches or not step.is_host_wide

    def _list_threads(self) -> list[int]:
        threads: list[int] = []
        for pid in self._tracker.service_pids:
            try:
                found = self._host.list_proc(f"{pid}/task")
            except Unavailable:
                continue
            threads += sorted(int(one) for one in found if one.isdecimal())
            if len(threads) >= THREAD_LIMIT:
                break
        return threads[:THREAD_LIMIT]

    def _follow(self) -> None:
        """Tells the sampler who is wanted by now."""
        if self._wish.is_host_wide:
            self._sampler.set_wanted(None)
            return
        pids = self._tracker.service_pids
        if pids != self._wanted:
            self._wanted = pids
            self._sampler.set_wanted(pids)

    def _share_budget(self) -> None:
        """Asks what it may take of a core by now; what was spent here is taken off it."""
        allowance = self._host.allowance
        if allowance is None:
            return
        status, now_ns = self._sampler.status(), self._host.now_ns()
        is_full = status["interval_ns"] <= self._interval_ns
        spent_ns = status["spent_ns"] + self._python_ns
        ratio = allowance.share("native_stacks", self._want, spent_ns, is_full=is_full)
        asked_ns, python_ns = self._asked
        own_ratio = (self._python_ns - python_ns) / max(now_ns - asked_ns, 1)
        self._asked = now_ns, self._python_ns
        self._sampler.set_budget(max(ratio - own_ratio, ratio / 4))

    def _take(self) -> Iterator[Item]:
        begin_ns = time.thread_time_ns()
        samples, frames, objects, dropped_count = self._sampler.take()
        yield from to_object_rows(NATIVE_OBJECTS.name, objects, self._object_count)
        self._object_count += len(objects)
        yield Rows(NATIVE_STACKS.name, frames, len(frames[0]) // 8)
        count = len(samples[0]) // 8
        yield Rows(NATIVE_SAMPLES.name, samples, count, dropped_count, SAMPLE_KINDS)
        self._python_ns += time.thread_time_ns() - begin_ns


def to_remarks(status: dict[str, int], step_words: str) -> Iterator[str]:
    """What kept the sampler from seeing all, if anything did."""
    sample_count = max(status["sample_count"], 1)
    if step_words:
        yield step_words
    if status["unseen_thread_count"]:
        yield f"{status['unseen_thread_count']} threads were too many to be sampled"
    if status["is_stepped_down"]:
        yield "switches were no longer recorded: there were more than 10,000 a second"
    if status["refused_count"]:
        count = status["refused_count"]
        yield f"{count} mappings or files could not be read (another user's need CAP_SYS_PTRACE)"
    if status["unmapped_count"] > REMARK_RATIO * sample_count:
        yield f"{status['unmapped_count']} samples of {sample_count} have no stack"
    lost_count = status["truncated_count"] + status["stray_count"] + status["deep_count"]
    stack_count = status["root_count"] + lost_count
    if lost_count > REMARK_RATIO * max(stack_count, 1):
        yield f"{lost_count} stacks of {stack_count} do not reach the thread's root"
    if status["full_count"]:
        yield f"{status['full_count']} stacks found no room"
    if status["lost_count"] or status["damaged_count"]:
        yield f"{status['lost_count'] + status['damaged_count']} records of the kernel were lost"
    if status["dropped_mapping_count"]:
        yield f"{status['dropped_mapping_count']} mappings found no room"
    if status["is_abandoned"]:
        yield "the sampler did not end in time and was left behind"


def open_session(host: Host, target: Target) -> Session:
    """Begins to sample, with as much as the kernel grants.

    Raises: `Unavailable` where nobody is wanted, or nothing is granted.
    """
    if not target.processes and not host.stacks.is_host_wide:
        raise Unavailable("no service was chosen, so there are no stacks to sample")
    return _Session(host, target)


COLLECTOR = Collector(
    "native_stacks",
    metrics=(),
    tables=(NATIVE_OBJECTS, NATIVE_STACKS, NATIVE_SAMPLES),
    scope="host",  # of all processes, where they are asked for
    interval_s=1.0,
    timeout_s=0.3,
    open=open_session,
)
