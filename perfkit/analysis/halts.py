"""When each process of the service could not run at all: stopped, traced, frozen, dumping core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import Aligned, Axis
from perfkit.analysis.columns import Reals
from perfkit.analysis.states import State
from perfkit.analysis.timeline import Timeline

_STOPPED, _TRACED = ord("T"), ord("t")


@dataclass(frozen=True)
class Halt:
    """How long one process was halted, and by whom; `ratio` is per slot, 0..1.

    Missing: `tracer_pid` is 0 where nobody traces it, or where that was not read.
    """

    pid: int
    ratio: Reals
    is_frozen: bool = False
    is_dumping: bool = False
    tracer_pid: int = 0
    tracer_name: str = ""

    def window_ratio(self, axis: Axis) -> float:
        """The share of the window in which it was halted, 0..1."""
        return float((self.ratio * axis.slot_ns).sum() / axis.slot_ns.sum())


def read_halts(aligned: Aligned, timeline: Timeline) -> tuple[Halt, ...]:
    """Every process of the service that was halted at some time, the longest first.

    A signal stops all threads of a process, so one thread seen stopped tells of all.
    """
    ratios = _stopped_ratios(timeline)
    told = _told_halts(aligned)
    halts = []
    for pid in sorted(ratios.keys() | told.keys()):
        seen = ratios.get(pid, np.zeros(aligned.axis.slot_count))
        known = told.get(pid, Halt(pid, np.zeros(aligned.axis.slot_count)))
        ratio = np.clip(np.maximum(seen, known.ratio), 0.0, 1.0)
        flags = (known.is_frozen, known.is_dumping, known.tracer_pid, known.tracer_name)
        halts.append(Halt(pid, ratio, *flags))
    halted = [halt for halt in halts if halt.ratio.any()]
    return tuple(sorted(halted, key=lambda halt: (-float(halt.ratio.sum()), halt.pid)))


def _stopped_ratios(timeline: Timeline) -> dict[int, Reals]:
    """Per process and slot, the largest share that one of its threads was seen stopped."""
    stopped = timeline.states() == State.STOPPED
    found: dict[int, Reals] = {}
    slot_ns = timeline.axis.slot_ns
    entries = zip(
        timeline.thread[stopped].tolist(),
        timeline.slot[stopped].tolist(),
        timeline.ns[stopped].tolist(),
        strict=True,
    )
    for thread, slot, ns in entries:
        pid = timeline.threads[thread][0]
        ratio = found.setdefault(pid, np.zeros(timeline.axis.slot_count))
        ratio[slot] = max(ratio[slot], ns / slot_ns[slot])
    return found


def _told_halts(aligned: Aligned) -> dict[int, Halt]:
    """What the table `process_states` tells: each row holds until the next one of its process."""
    table = aligned.table("process_states").sorted_by("pid", "t_ns")
    names = ("t_ns", "pid", "state_letter", "tracer_pid", "is_frozen", "is_dumping")
    columns = [table.integers(name).tolist() for name in names]
    rows = list(zip(*columns, table.text("tracer_name"), strict=True))
    found: dict[int, Halt] = {}
    followers: list[tuple[object, ...] | None] = [*rows[1:], None][: len(rows)]
    for row, following in zip(rows, followers, strict=True):
        t_ns, pid, letter, tracer_pid, frozen, dumping, tracer_name = row
        is_last = following is None or following[1] != pid
        end_ns = aligned.axis.end_ns if is_last or following is None else following[0]
        old = found.get(pid, Halt(pid, np.zeros(aligned.axis.slot_count)))
        ratio = old.ratio
        if letter in (_STOPPED, _TRACED) or frozen == 1 or dumping == 1:
            span = np.array([[t_ns], [end_ns]], dtype=np.int64)
            ratio = ratio + aligned.axis.sum_slots(*span) / aligned.axis.slot_ns
        found[pid] = Halt(
            pid,
            ratio,
            old.is_frozen or frozen == 1,
            old.is_dumping or dumping == 1,
            tracer_pid if tracer_pid > 0 else old.tracer_pid,
            tracer_name or old.tracer_name,
        )
    return found
