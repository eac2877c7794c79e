"""What the causes of waiting for a CPU share: the waits, who held the CPUs, and which cause it is.

They differ in their culprit only. `claims` decides once which of them stands, from the deepest
circumstance up: a mask that leaves CPUs idle, then who ran: somebody outside (by weight, priority,
or just there), another process of the same cgroup, a thread that serves nobody, or too many own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.columns import sum_by
from perfkit.analysis.compare import passes_gate
from perfkit.analysis.contention import CpuHolder, Relation, allowed_cpus
from perfkit.analysis.correlate import is_slight
from perfkit.analysis.intervals import Share
from perfkit.analysis.long_waits import long_wait_ns, long_wait_ratio
from perfkit.analysis.states import State
from perfkit.analysis.throttling import Quota
from perfkit.findings import Culprit, Evidence

OWNERS_MIN = 3
WEIGHT_RATIO_MIN = 4.0
NICE_STEPS_MIN = 3
REAL_TIME = frozenset({1, 2, 6})
BACKGROUND_POLICIES = frozenset({3, 5})
IDLE_ELSEWHERE_MIN = 0.3
SPINNING_MIN = 0.9
OWN_THREADS_RATIO = 2.0
# Fewer threads than requests are a queue of requests, not parallel work for each.
IN_FLIGHT_RATIO = 1.25
# Where the service itself used less than this of what its cgroup used, somebody else did.
OWN_USE_RATIO_MIN = 0.5
QUOTA_RATIO_MIN = 0.05
# Where strangers make so many requests wait long, p99 is theirs, though the mean hardly moves
# (decision 87).
LONG_WAITS_MIN = 0.01
TAIL_SHARE_LOW = 0.05
# A host whose CPUs idle for more than this is not saturated by many small users.
SATURATED_IDLE_MAX = 0.25
LEADER_RATIO = 0.5
SOURCE = "schedstat run_delay; CPU clocks of all processes"
_SPINNING = [int(state) for state in (State.ON_CPU, State.RUNNABLE, State.THROTTLED)]


@dataclass(frozen=True)
class Claim:
    """One cause that accounts for waits, with whom it charges and the numbers that prove it."""

    cause: str
    share: Share
    title: str
    culprit: Culprit
    evidence: tuple[Evidence, ...]


def claims(case: Case) -> tuple[Claim, ...]:
    """All causes that the waits for a CPU prove, at most one of each group of holders."""
    whole = share_held(case, tuple(case.holders))
    pinned = _affinity(case, whole)
    if pinned is not None:
        return (pinned,)
    spinning = _background(case)
    # Threads that spin make too many of them by themselves: that is one cause, not two.
    own = None if spinning is not None else _own(case)
    found = (_foreign(case), _sibling(case), spinning, own)
    return tuple(claim for claim in found if claim is not None)


def taker_of_quota(case: Case, quota: Quota) -> CpuHolder | None:
    """The other process that uses up a quota of the service; None where the service does."""
    below = quota.path.rstrip("/") + "/"
    takers = [
        holder
        for holder in case.holders
        if holder.relation in ("sibling", "foreign", "partner")
        and (holder.cgroup == quota.path or holder.cgroup.startswith(below))
    ]
    own_s = float(case.thread_cpu_seconds.sum())
    used_s = own_s + sum(holder.seconds for holder in takers)
    return takers[0] if takers and own_s < OWN_USE_RATIO_MIN * used_s else None


def holders_of(case: Case, *relations: Relation) -> tuple[CpuHolder, ...]:
    """Those who ran and are this to the service, largest first."""
    return tuple(holder for holder in case.holders if holder.relation in relations)


def share_held(case: Case, holders: tuple[CpuHolder, ...], *more: str) -> Share:
    """The waits for a CPU charged to these, and what was throttled in the cgroups `more`."""
    rows = np.zeros(len(case.ledger.ns), dtype=bool)
    for holder in holders:
        rows |= case.ledger.rows_where(State.RUNNABLE, holder.name)
    for path in more:
        rows |= case.ledger.rows_where(State.THROTTLED, path)
    return case.share_of(rows)


def _stands(case: Case, share: Share) -> bool:
    return passes_gate(share) and not is_slight(case, share)


def _lengthens_tail(case: Case, share: Share, holders: tuple[CpuHolder, ...]) -> bool:
    """Whether strangers hold up few requests, but those for long."""
    return share.low > TAIL_SHARE_LOW and long_wait_ratio(case, holders)[1] >= LONG_WAITS_MIN


def _affinity(case: Case, share: Share) -> Claim | None:
    allowed = allowed_cpus(case.aligned)
    idle = {cpu: idle_ratio(case, cpu) for cpu in online_cpus(case)}
    outside = [ratio for cpu, ratio in idle.items() if cpu not in allowed]
    if not allowed or not outside or not _stands(case, share):
        return None
    elsewhere = sum(outside) / len(outside)
    if elsewhere < IDLE_ELSEWHERE_MIN:
        return None
    mask = _words(sorted(allowed))
    evidence = (
        _waiting(share),
        Evidence("CPUs it may use", len(allowed), len(idle), "CPUs", "sched_getaffinity, cpuset"),
        Evidence("idle time of the other CPUs", elsewhere, 0.0, "ratio", "/proc/stat"),
    )
    title = f"The service is bound to CPU {mask} while others idle"
    return Claim("cpu_affinity", share, title, Culprit("none", f"CPU {mask}"), evidence)


def _foreign(case: Case) -> Claim | None:
    holders = holders_of(case, "foreign")
    share = share_held(case, holders)
    if not holders or not (_stands(case, share) or _lengthens_tail(case, share, holders)):
        return None
    first, total_s = holders[0], sum(holder.seconds for holder in holders)
    is_led = len(holders) < OWNERS_MIN or first.seconds >= LEADER_RATIO * total_s
    if not is_led and idle_mean(case) > SATURATED_IDLE_MAX:
        return None
    evidence = (_waiting(share), _used(case, first), _long_waits(case, holders))
    culprit = Culprit("cgroup" if first.kind == "cgroup" else "process", first.name)
    if not is_led:
        several = Evidence(
            "CPUs used by others", total_s / _window_s(case), None, "CPUs", f"{len(holders)} owners"
        )
        title = f"{len(holders)} others keep the CPUs busy, none of them most"
        idle = Evidence(
            "idle time of the CPUs that it may use", idle_mean(case), None, "ratio", "/proc/stat"
        )
        found = (_waiting(share), several, idle, _long_waits(case, holders))
        return Claim("host_cpu_saturated", share, title, Culprit("none"), found)
    nice, policy = own_priority(case)
    is_above = first.policy in REAL_TIME and policy not in REAL_TIME
    is_below = policy in BACKGROUND_POLICIES and first.policy not in BACKGROUND_POLICIES
    if nice - first.nice >= NICE_STEPS_MIN or is_above or is_below:
        step = Evidence("nice of the service", nice, first.nice, "", "/proc/PID/stat, threads")
        title = f"{first.name} goes before the service: nice {first.nice} against {nice}"
        return Claim("cpu_priority_low", share, title, culprit, (*evidence, step))
    ratio = first.weight / first.target_weight if first.target_weight > 0 < first.weight else 1.0
    if ratio >= WEIGHT_RATIO_MIN:
        weight = Evidence(
            "CPU weight of its cgroup",
            first.target_weight,
            first.weight,
            "",
            "cpu.weight, cpu.shares where both cgroups meet",
        )
        title = f"The cgroup's CPU weight is a {ratio:.0f}th of that of {first.name}"
        return Claim("cpu_weight_low", share, title, culprit, (*evidence, weight))
    title = f"{first.name} holds the CPUs"
    return Claim("cpu_contention_neighbour", share, title, culprit, evidence)


def _sibling(case: Case) -> Claim | None:
    quota = _stopping_quota(case)
    taker = taker_of_quota(case, quota) if quota is not None else None
    siblings = holders_of(case, "sibling")
    is_new = taker is not None and taker not in siblings
    holders = (*siblings, taker) if taker is not None and is_new else siblings
    share = share_held(case, holders, *([quota.path] if quota and taker else []))
    if not holders or not _stands(case, share):
        return None
    first = taker or holders[0]
    evidence: tuple[Evidence, ...] = (_waiting(share), _used(case, first))
    if quota is not None and taker is not None:
        evidence = (
            Evidence(
                "periods throttled",
                quota.throttled_ratio,
                0.0,
                "ratio",
                f"cpu.stat {quota.path}",
            ),
            _used(case, first),
        )
    title = f"{first.name}, of the same cgroup, takes the CPU"
    return Claim("sibling_cpu", share, title, Culprit("process", first.name), evidence)


def _background(case: Case) -> Claim | None:
    spinning = tuple(one for one in holders_of(case, "background") if spins(case, one))
    share = share_held(case, spinning)
    gil = case.share(State.GIL_WAIT)
    if not spinning or not _stands(case, share) or passes_gate(gil):
        return None
    name = ", ".join(holder.name for holder in spinning)
    evidence = (_waiting(share), *(_used(case, holder) for holder in spinning))
    title = f"{name} of the service itself runs without a pause"
    return Claim("busy_poll_thread", share, title, Culprit("thread", name), evidence)


def _own(case: Case) -> Claim | None:
    share = share_held(case, holders_of(case, "own", "background"))
    cpus = max(len(allowed_cpus(case.aligned)) or len(online_cpus(case)), 1)
    count, in_flight = count_wanting(case, cpus), in_flight_while_waiting(case)
    is_parallel = not case.requests.counted or count > IN_FLIGHT_RATIO * in_flight
    if count < OWN_THREADS_RATIO * cpus or not is_parallel or not _stands(case, share):
        return None
    evidence = (
        _waiting(share),
        Evidence("runnable threads of the service", count, cpus, "threads", "schedstat"),
        Evidence("requests in flight meanwhile", in_flight, None, "", "TCP_INFO ages"),
    )
    title = f"{count:.1f} threads of the service want {cpus} CPUs at a time"
    return Claim("thread_oversubscription", share, title, Culprit("none"), evidence)


def count_wanting(case: Case, cpus: int) -> float:
    """How many of its threads the service has runnable at a time, at the least.

    While n of its threads share c CPUs, they wait (n - c) / c of the time that they run.
    """
    timeline = case.timeline
    own = [holder.name for holder in holders_of(case, "own", "background")]
    is_wait = [one.state is State.RUNNABLE and one.culprit in own for one in timeline.labels]
    waited = float(timeline.ns[np.array(is_wait, dtype=bool)[timeline.label]].sum())
    ran = float(timeline.ns[timeline.states() == State.ON_CPU].sum())
    return cpus * (1.0 + waited / max(ran, 1.0))


def in_flight_while_waiting(case: Case) -> float:
    """The requests in flight, on average over the time that its threads wait for a CPU."""
    timeline = case.timeline
    waits = timeline.states() == State.RUNNABLE
    slots = sum_by(timeline.slot[waits], timeline.ns[waits], timeline.axis.slot_count)
    return float((case.requests.in_flight * slots).sum()) / max(float(slots.sum()), 1.0)


def spins(case: Case, holder: CpuHolder) -> bool:
    """Whether a thread hardly ever sleeps: nearly all of its time it ran, or wanted to run."""
    threads = [
        index
        for index, (_, tid) in enumerate(case.timeline.threads)
        if holder.name.startswith(f"thread {tid} ")
    ]
    mine = np.isin(case.timeline.thread, threads)
    wants = mine & np.isin(case.timeline.states(), _SPINNING)
    alive = float(case.timeline.ns[mine].sum())
    return float(case.timeline.ns[wants].sum()) >= SPINNING_MIN * max(alive, 1.0)


def _stopping_quota(case: Case) -> Quota | None:
    stopped = [one for one in case.throttling.quotas if one.throttled_ratio >= QUOTA_RATIO_MIN]
    return max(stopped, key=lambda one: one.throttled_ratio, default=None)


def own_priority(case: Case) -> tuple[int, int]:
    """The usual nice value and policy of the serving threads."""
    table = case.aligned.table("threads")
    rows = zip(
        table.integers("pid").tolist(),
        table.integers("tid").tolist(),
        table.integers("nice").tolist(),
        table.integers("policy").tolist(),
        strict=True,
    )
    mine = [(nice, policy) for pid, tid, nice, policy in rows if (pid, tid) in case.serving]
    if not mine:
        return 0, 0
    nices, policies = zip(*mine, strict=True)
    return int(np.median(nices)), int(np.median(policies))


def online_cpus(case: Case) -> list[int]:
    """The CPUs of the host."""
    table = case.aligned.table("series")
    pairs = zip(table.text("metric"), table.text("labels"), strict=True)
    cpus = {
        labels.partition(",")[0]
        for metric, labels in pairs
        if metric == "cpu_seconds_total" and labels.endswith(",idle")
    }
    return sorted(int(cpu) for cpu in cpus if cpu.isdecimal())


def idle_ratio(case: Case, cpu: int) -> float:
    """How idle one CPU is, 0..1."""
    idle_s = case.aligned.counter_delta("cpu_seconds_total", f"{cpu},idle") or 0.0
    return min(1.0, idle_s / _window_s(case))


def idle_mean(case: Case) -> float:
    """How idle the CPUs are that the service may use, 0..1; 0 where it was not read."""
    allowed = allowed_cpus(case.aligned)
    ratios = [idle_ratio(case, cpu) for cpu in online_cpus(case) if not allowed or cpu in allowed]
    return sum(ratios) / len(ratios) if ratios else 0.0


def _window_s(case: Case) -> float:
    return case.window_ns / 1e9


def _words(cpus: list[int]) -> str:
    shown = ",".join(map(str, cpus[:8]))
    return shown + (",..." if len(cpus) > 8 else "")


def _waiting(share: Share) -> Evidence:
    return Evidence("share of time waiting for a CPU", share.value, 0.0, "ratio", SOURCE)


def _long_waits(case: Case, holders: tuple[CpuHolder, ...]) -> Evidence:
    name = f"waits for a CPU of {long_wait_ns(case) / 1e6:.0f} ms and more, of the answers"
    return Evidence(name, long_wait_ratio(case, holders)[0], 0.0, "ratio", SOURCE)


def _used(case: Case, holder: CpuHolder) -> Evidence:
    cpus = holder.seconds / _window_s(case)
    return Evidence(f"CPUs used by {holder.name}", cpus, None, "CPUs", "its CPU clock")
