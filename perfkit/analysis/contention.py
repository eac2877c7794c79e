"""Who ran while the service's threads waited for a CPU: one computation for every cause of it.

Each wait is shared among all that ran in its slot, by their CPU time: the service's other serving
threads, its background threads, and everybody else on the host (`owners`), on the CPUs that the
service may use. The causes differ in who that is, see rules/_cpu.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perfkit.analysis.align import Aligned
from perfkit.analysis.blame import cpu_seconds, name_thread
from perfkit.analysis.columns import Frame, Integers, Masks, Reals, sum_by
from perfkit.analysis.states import Label, Labels, State
from perfkit.analysis.timeline import Timeline

# A background thread below this much of a core holds up nobody.
BACKGROUND_CPU_MIN = 0.1
HOLDER_LIMIT = 8
BACKGROUND_LIMIT = 4
CPU_LIMIT = 8192
OWN_THREADS = "its own serving threads"
REST = "(others)"

Relation = Literal["own", "background", "sibling", "foreign", "partner", "self", "rest"]


@dataclass(frozen=True)
class CpuHolder:
    """Somebody who ran: a thread of the service, a process with its like, or a whole cgroup.

    `name` is the culprit of the waits that are charged to it. `weight` and `target_weight` are
    those of the cgroups where its own and the service's meet, -1 where they are in the same one.
    """

    name: str
    relation: Relation
    kind: Literal["process", "cgroup", "thread"]
    seconds: float
    cgroup: str = ""
    nice: int = 0
    policy: int = 0
    weight: int = -1
    target_weight: int = -1


@dataclass(frozen=True)
class _Foreign:
    """One group of other processes, and its CPU time per slot."""

    holder: CpuHolder
    slot_ns: Reals


def charge_cpu(
    timeline: Timeline, aligned: Aligned, serving: Masks, names: dict[tuple[int, int], str]
) -> tuple[Timeline, tuple[CpuHolder, ...]]:
    """Charges every wait for a CPU to those who ran meanwhile; gives them too, largest first."""
    cpus = allowed_cpus(aligned)
    background = _background(timeline, serving, names)
    foreign = _foreign(aligned, cpus)
    waits = np.flatnonzero(timeline.states() == State.RUNNABLE)
    own_seconds = float(cpu_seconds(timeline)[serving].sum()) if len(serving) else 0.0
    own = CpuHolder(OWN_THREADS, "own", "thread", own_seconds)
    columns = [_serving_ns(timeline, serving, waits)]
    holders = [own]
    for thread, holder in background:
        run = _run_by_slot(timeline, timeline.thread == thread)[timeline.slot[waits]]
        columns.append(np.where(timeline.thread[waits] == thread, 0.0, run))
        holders.append(holder)
    for one in foreign:
        columns.append(one.slot_ns[timeline.slot[waits]])
        holders.append(one.holder)
    return _charged(timeline, waits, columns, holders), tuple(
        sorted(holders, key=lambda one: (-one.seconds, one.name))
    )


def allowed_cpus(aligned: Aligned) -> frozenset[int]:
    """The CPUs that any thread of the service may use; empty where it was not read."""
    texts = set(aligned.table("threads").text("cpus_allowed"))
    return frozenset[int]().union(*(parse_cpus(text) for text in texts))


def parse_cpus(text: str) -> frozenset[int]:
    """Reads a list of CPUs such as "0-3,8"; parts that are no numbers are left out."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal() and len(first) < 6 > len(last):
            found.update(range(int(first), min(int(last or first), CPU_LIMIT) + 1))
    return frozenset(found)


def _charged(
    timeline: Timeline, waits: Integers, columns: list[Reals], holders: list[CpuHolder]
) -> Timeline:
    """Replaces the waits by their parts, one label for each holder."""
    ran: NDArray[np.float64] = np.array(columns)
    total = ran.sum(axis=0)
    known = total >= 1.0
    kept = np.ones(len(timeline.ns), dtype=bool)
    kept[waits[known]] = False
    threads, slots = [timeline.thread[kept]], [timeline.slot[kept]]
    labels, parts = [timeline.label[kept]], [timeline.ns[kept]]
    numbered = Labels(timeline.labels)
    for holder, run in zip(holders, ran, strict=True):
        number = numbered.index(Label(State.RUNNABLE, holder.name))
        ns = timeline.ns[waits] * run / np.maximum(total, 1.0)
        some = known & (ns > 0)
        threads.append(timeline.thread[waits][some])
        slots.append(timeline.slot[waits][some])
        labels.append(np.full(int(some.sum()), number, dtype=np.int64))
        parts.append(ns[some])
    return replace(
        timeline,
        labels=numbered.all(),
        thread=np.concatenate(threads),
        slot=np.concatenate(slots),
        label=np.concatenate(labels),
        ns=np.concatenate(parts),
    )


def _run_by_slot(timeline: Timeline, mask: Masks) -> Reals:
    running = mask & (timeline.states() == State.ON_CPU)
    return sum_by(timeline.slot[running], timeline.ns[running], timeline.axis.slot_count)


def _serving_ns(timeline: Timeline, serving: Masks, waits: Integers) -> Reals:
    """For each wait: what the serving threads ran in its slot, less what the waiter itself did."""
    whole = _run_by_slot(timeline, serving[timeline.thread])[timeline.slot[waits]]
    key = timeline.thread * timeline.axis.slot_count + timeline.slot
    running = np.flatnonzero(timeline.states() == State.ON_CPU)
    keys, place = np.unique(key[running], return_inverse=True)
    sums = sum_by(place, timeline.ns[running], len(keys))
    if not len(keys):
        return whole
    found = np.minimum(np.searchsorted(keys, key[waits]), len(keys) - 1)
    mine = np.where(keys[found] == key[waits], sums[found], 0.0)
    mine = np.where(serving[timeline.thread[waits]], mine, 0.0)
    return np.maximum(whole - mine, 0.0)


def _background(
    timeline: Timeline, serving: Masks, names: dict[tuple[int, int], str]
) -> list[tuple[int, CpuHolder]]:
    """The service's busiest threads that serve nobody."""
    seconds = np.where(serving, 0.0, cpu_seconds(timeline))
    least_s = BACKGROUND_CPU_MIN * float(timeline.axis.slot_ns.sum()) / 1e9
    chosen = [index for index in np.argsort(-seconds, kind="stable") if seconds[index] >= least_s]
    return [
        (
            int(index),
            CpuHolder(
                name_thread(timeline.threads[index], names),
                "background",
                "thread",
                float(seconds[index]),
            ),
        )
        for index in chosen[:BACKGROUND_LIMIT]
    ]


def _foreign(aligned: Aligned, cpus: frozenset[int]) -> list[_Foreign]:
    """Everybody but the service: the largest groups on its own, the rest together."""
    table = aligned.table("owners").sorted_by("t_ns", "pid", "run_ns")
    roles = table.text("role")
    table = table.where(np.array([role != "service" for role in roles], dtype=bool))
    keys = [_group_key(row) for row in _identities(table, aligned)]
    order = sorted(set(keys))
    number = {key: index for index, key in enumerate(order)}
    group = np.array([number[key] for key in keys], dtype=np.int64)
    overlap = np.array([_overlap(text, cpus) for text in table.text("cpus_allowed")])
    run_ns = np.maximum(table.integers("run_ns"), 0) * overlap
    end = table.integers("t_ns")
    begin = end - np.maximum(table.integers("interval_ns"), 1)
    totals = sum_by(group, run_ns, len(order)) if order else np.zeros(0)
    largest = [int(one) for one in np.argsort(-totals, kind="stable")[:HOLDER_LIMIT]]
    found = []
    for index in largest:
        rows = np.flatnonzero(group == index)
        slot_ns = aligned.axis.spread_counts(begin[rows], end[rows], run_ns[rows])
        found.append(
            _Foreign(_describe(table, rows, order[index], float(totals[index]) / 1e9), slot_ns)
        )
    others = np.flatnonzero(~np.isin(group, largest)) if len(group) else np.zeros(0, dtype=np.int64)
    if len(others):
        slot_ns = aligned.axis.spread_counts(begin[others], end[others], run_ns[others])
        rest = CpuHolder(REST, "rest", "process", float(run_ns[others].sum()) / 1e9)
        found.append(_Foreign(rest, slot_ns))
    return found


@dataclass(frozen=True)
class _Identity:
    """What one row of `owners` is to the service."""

    pid: int
    name: str
    cgroup: str
    parent_pid: int
    relation: Relation


def _identities(table: Frame, aligned: Aligned) -> list[_Identity]:
    own = {process.cgroup for process in aligned.header.target.processes}
    rows = zip(
        table.integers("pid").tolist(),
        table.text("name"),
        table.text("cgroup"),
        table.integers("parent_pid").tolist(),
        table.text("role"),
        table.text("relation"),
        strict=True,
    )
    return [
        _Identity(pid, name, cgroup, parent, _relation(pid, cgroup in own, cgroup, role, linked))
        for pid, name, cgroup, parent, role, linked in rows
    ]


def _relation(pid: int, is_own: bool, cgroup: str, role: str, linked: str) -> Relation:
    if pid == 0:
        return "rest"
    if role == "self":
        return "self"
    if linked in ("client", "peer"):
        return "partner"
    if role == "sibling" and is_own and not cgroup.endswith(".scope"):
        return "sibling"
    return "foreign"


def _group_key(one: _Identity) -> tuple[Relation, str, str, int]:
    """What makes processes one holder: the cgroup where it is no root, else name and parent."""
    if one.relation in ("rest", "self"):
        return one.relation, "", "", 0
    if one.relation == "foreign" and one.cgroup not in ("", "/") and not _is_shared(one.cgroup):
        return one.relation, one.cgroup, "", 0
    return one.relation, one.cgroup, one.name, one.parent_pid


def _is_shared(cgroup: str) -> bool:
    """A login session holds whatever somebody started there."""
    return cgroup.endswith(".scope") and "/session-" in cgroup


def _describe(
    table: Frame, rows: Integers, key: tuple[Relation, str, str, int], seconds: float
) -> CpuHolder:
    frame = table.take(rows)
    relation, cgroup, name, _ = key
    if relation in ("rest", "self"):
        return CpuHolder(
            REST if relation == "rest" else "perfkit itself", relation, "process", seconds
        )
    pids = sorted(set(frame.integers("pid").tolist()))
    names = sorted(set(frame.text("name")))
    words = f"{name or ', '.join(names[:3])} ({', '.join(map(str, pids[:4]))}"
    words += f" and {len(pids) - 4} more)" if len(pids) > 4 else ")"
    of_cgroup = relation == "foreign" and not name
    return CpuHolder(
        name=f"{cgroup}: {words}" if of_cgroup else words,
        relation=relation,
        kind="cgroup" if of_cgroup else "process",
        seconds=seconds,
        cgroup=cgroup,
        nice=int(np.median(frame.integers("nice"))),
        policy=int(np.median(frame.integers("policy"))),
        weight=int(frame.integers("weight")[-1]),
        target_weight=int(frame.integers("target_weight")[-1]),
    )


def _overlap(text: str, cpus: frozenset[int]) -> float:
    """The part of a process's time that falls on the service's CPUs, if it uses all of its own."""
    theirs = parse_cpus(text)
    return len(theirs & cpus) / len(theirs) if theirs and cpus else 1.0
