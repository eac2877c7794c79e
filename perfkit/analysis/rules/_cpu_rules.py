"""The causes of waiting for a CPU as rules: the claim that stands, or the number against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perfkit import discover
from perfkit.analysis.case import Case
from perfkit.analysis.compare import SHARE_GATE, SHARE_LOW_GATE, passes_gate
from perfkit.analysis.contention import CpuHolder, Relation, allowed_cpus
from perfkit.analysis.correlate import LOST_MIN, is_slight
from perfkit.analysis.intervals import Share
from perfkit.analysis.rules._cpu import (
    IDLE_ELSEWHERE_MIN,
    IN_FLIGHT_RATIO,
    LEADER_RATIO,
    NICE_STEPS_MIN,
    OWN_THREADS_RATIO,
    SATURATED_IDLE_MAX,
    SOURCE,
    WEIGHT_RATIO_MIN,
    claims,
    count_wanting,
    holders_of,
    idle_mean,
    idle_ratio,
    in_flight_while_waiting,
    online_cpus,
    own_priority,
    share_held,
    spins,
)
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.findings import Finding, Rejection
from perfkit.units import to_percent

# What others account for leaves nothing to this cause.
NOTHING = Share(0.0, 0.0, 0.0)
_HELD_BY: dict[str, tuple[Relation, ...]] = {
    "cpu_contention_neighbour": ("foreign",),
    "host_cpu_saturated": ("foreign",),
    "cpu_weight_low": ("foreign",),
    "cpu_priority_low": ("foreign",),
    "sibling_cpu": ("sibling",),
    "busy_poll_thread": ("background",),
    "thread_oversubscription": ("own", "background"),
}


def find_claim(rule_id: str) -> Callable[[Case], Iterator[Finding | Rejection]]:
    """Makes the `find` of one of these causes: its claim as a finding, else the number against."""

    def find(case: Case) -> Iterator[Finding | Rejection]:
        claim = next((one for one in claims(case) if one.cause == rule_id), None)
        if claim is None:
            yield _reject(case, rule_id)
            return
        rule: Rule = discover.load("perfkit.analysis.rules", rule_id, "RULE")
        yield make_finding(
            case,
            rule,
            title=claim.title,
            share=claim.share,
            confidence=0.9,
            culprit=claim.culprit,
            evidence=claim.evidence,
        )

    return find


def _reject(case: Case, rule_id: str) -> Rejection:
    """The first number that rules the cause out: that its circumstance is not there, that others
    account for the time, or that too little of it is lost.
    """
    if rule_id == "cpu_affinity":
        return _no_mask(case)
    holders = holders_of(case, *_HELD_BY[rule_id])
    if rule_id == "busy_poll_thread":
        holders = tuple(one for one in holders if spins(case, one))
    share = share_held(case, holders)
    if not passes_gate(share):
        return _too_little(case, rule_id, share, holders)
    against = _circumstance(case, rule_id, holders)
    if against is not None:
        return against
    if is_slight(case, share):
        lost = share.value * case.ledger.total_ns() / case.window_ns
        metric = "requests, or threads, that wait for a CPU at any moment"
        return Rejection(rule_id, metric, lost, LOST_MIN, "", SOURCE, "that is next to nothing")
    claimed = next((one.cause for one in claims(case)), "")
    why = f"{claimed or 'another cause'} accounts for it"
    return _too_little(case, rule_id, NOTHING, holders, why)


def _too_little(
    case: Case, rule_id: str, share: Share, holders: tuple[CpuHolder, ...], why: str = ""
) -> Rejection:
    first = holders[0] if holders else None
    if not why:
        why = "nobody of that kind ran"
        if first is not None:
            used = to_percent(first.seconds / (case.window_ns / 1e9))
            why = f"{first.name} used {used} of a core"
    metric = "share of time waiting for a CPU that such others held"
    if share.value > SHARE_GATE:
        metric = f"{metric}, at the least"
        return Rejection(rule_id, metric, share.low, SHARE_LOW_GATE, "ratio", SOURCE, why)
    return Rejection(rule_id, metric, share.value, SHARE_GATE, "ratio", SOURCE, why)


def _no_mask(case: Case) -> Rejection:
    allowed = allowed_cpus(case.aligned)
    outside = [cpu for cpu in online_cpus(case) if cpu not in allowed] if allowed else []
    if not outside:
        why = "it may use all of them" if allowed else "its mask was not read"
        source = "sched_getaffinity, cpuset"
        return Rejection("cpu_affinity", "CPUs that it may not use", 0, 1, "CPUs", source, why)
    share = share_held(case, tuple(case.holders))
    idle = sum(idle_ratio(case, cpu) for cpu in outside) / len(outside)
    if passes_gate(share) and idle < IDLE_ELSEWHERE_MIN:
        metric, why = "idle time of the other CPUs", "they are busy too"
        limit = IDLE_ELSEWHERE_MIN
        return Rejection("cpu_affinity", metric, idle, limit, "ratio", "/proc/stat", why)
    if passes_gate(share):
        return _too_little(case, "cpu_affinity", NOTHING, (), "the time lost is next to nothing")
    return _too_little(case, "cpu_affinity", share, ())


def _circumstance(case: Case, rule_id: str, holders: tuple[CpuHolder, ...]) -> Rejection | None:
    """The number against what sets this cause apart from its like; None where it is there."""
    first, total_s = holders[0], sum(holder.seconds for holder in holders)
    leading = first.seconds / max(total_s, 1e-9)
    name = first.name
    if rule_id == "cpu_weight_low":
        ratio = first.weight / first.target_weight if first.target_weight > 0 < first.weight else 1
        metric = f"CPU weight of the cgroup of {name}, of the service's"
        source = "cpu.weight, cpu.shares where both cgroups meet"
        found = (metric, ratio, WEIGHT_RATIO_MIN, "x", source, "the weights are alike")
    elif rule_id == "cpu_priority_low":
        steps = own_priority(case)[0] - first.nice
        metric = f"steps by which the service is nicer than {name}"
        found = (metric, steps, NICE_STEPS_MIN, "", "/proc/PID/stat", "the priorities are alike")
    elif rule_id == "host_cpu_saturated" and idle_mean(case) > SATURATED_IDLE_MAX:
        busy = 1.0 - idle_mean(case)
        metric, why = "busy time of the CPUs that it may use", "the others idle"
        found = (metric, busy, 1.0 - SATURATED_IDLE_MAX, "ratio", "/proc/stat", why)
    elif rule_id == "host_cpu_saturated":
        metric = f"CPU time of others that is not {name}'s"
        found = (metric, 1.0 - leading, LEADER_RATIO, "ratio", "CPU clocks", "one of them leads")
    elif rule_id == "cpu_contention_neighbour":
        metric = f"CPU time of others that is {name}'s"
        found = (metric, leading, LEADER_RATIO, "ratio", "CPU clocks", "none of them leads")
    elif rule_id == "thread_oversubscription":
        cpus = max(len(allowed_cpus(case.aligned)) or len(online_cpus(case)), 1)
        count, in_flight = count_wanting(case, cpus), in_flight_while_waiting(case)
        metric, why = "runnable threads of the service, for each CPU", "there are few"
        found = (metric, count / cpus, OWN_THREADS_RATIO, "", "schedstat", why)
        if count >= OWN_THREADS_RATIO * cpus and in_flight > 0:
            metric, why = "runnable threads, for each request", "they are requests in a queue"
            found = (metric, count / in_flight, IN_FLIGHT_RATIO, "", "schedstat, TCP_INFO", why)
    else:
        return None
    return Rejection(rule_id, *found) if found[1] < found[2] else None
