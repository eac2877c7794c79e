"""The cgroup's CPU quota stops the service."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis.case import Case
from perfkit.analysis.compare import passes_gate
from perfkit.analysis.rules._cpu import OWN_USE_RATIO_MIN, taker_of_quota
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.analysis.throttling import Quota
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

THROTTLED_PERIODS_RATIO_MIN = 0.05


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: waits that overlap throttled spans. Mechanism: nr_throttled, ancestors included."""
    share = case.share(State.THROTTLED)
    quota = _most_throttled(case)
    stopped = quota is not None and quota.throttled_ratio >= THROTTLED_PERIODS_RATIO_MIN
    if quota is None or not stopped or not passes_gate(share):
        yield _reject(case, quota)
        return
    taker = taker_of_quota(case, quota)
    if taker is None:
        yield _finding(case, quota)
        return
    own_s = float(case.thread_cpu_seconds.sum())
    yield Rejection(
        RULE.id,
        "the service's part of the CPU time in its quota",
        own_s / max(own_s + taker.seconds, 1e-9),
        OWN_USE_RATIO_MIN,
        "ratio",
        f"CPU clocks, {quota.path}",
        f"{taker.name} uses up the quota",
    )


def _most_throttled(case: Case) -> Quota | None:
    charged = case.ledger.by_culprit(State.THROTTLED)
    quotas = case.throttling.quotas
    by_time = [quota for path in charged for quota in quotas if quota.path == path]
    limited = [quota for quota in quotas if quota.quota_us > 0]
    return next(iter(by_time or sorted(limited, key=lambda one: -one.throttled_ratio)), None)


def _reject(case: Case, quota: Quota | None) -> Rejection:
    if quota is None:
        return Rejection(
            RULE.id,
            "cgroups with a CPU quota, ancestors included",
            0,
            1,
            "",
            "cpu.max, cpu.cfs_quota_us",
            "no quota is set on the service's cgroup or above it",
        )
    return Rejection(
        RULE.id,
        "periods throttled",
        quota.throttled_ratio,
        THROTTLED_PERIODS_RATIO_MIN,
        "ratio",
        "cpu.stat nr_throttled / nr_periods",
        f"throttled {quota.throttled_count} of {quota.period_count} periods, "
        f"{to_percent(case.share(State.THROTTLED).value)} of the busy time",
    )


def _finding(case: Case, quota: Quota) -> Finding:
    share = case.share(State.THROTTLED)
    window_s = case.window_ns / 1e9
    own_s = float(case.thread_cpu_seconds.sum())
    evidence = (
        Evidence(
            "periods throttled",
            quota.throttled_ratio,
            0.0,
            "ratio",
            f"cpu.stat {quota.path}: +{quota.throttled_count}/{quota.period_count} periods",
        ),
        Evidence(
            "time throttled, summed over CPUs",
            quota.throttled_ns / 1e9 / window_s,
            0.0,
            "s/s",
            f"cpu.stat {quota.path}",
        ),
        Evidence("CPUs allowed", quota.cpu_limit, None, "CPUs", "cpu quota / period"),
        Evidence("CPUs used by the service", own_s / window_s, None, "CPUs", "schedstat"),
    )
    strength = 0.75 + 0.2 * min(1.0, quota.throttled_ratio / 0.3)
    return make_finding(
        case,
        RULE,
        title=f"The CPU quota of {quota.path} stops the service",
        share=share,
        confidence=strength,
        culprit=Culprit("cgroup", quota.path),
        evidence=evidence,
    )


RULE = Rule(
    id="cpu_throttled",
    family="cpu",
    parent="",
    cell=("cpu", "saturation"),
    state=State.THROTTLED,
    needs=("thread_runs.wait_ns", "cgroup_ticks.throttled_ns"),
    sources=("threads", "cgroup"),
    absent="cgroups with a cpu.stat",
    excludes=("cpu_contention_neighbour", "thread_oversubscription"),
    summary="The cgroup's CPU quota stops the service.",
    meaning=(
        "The kernel lets the cgroup use a fixed amount of CPU time in each period (cpu.max, or\n"
        "cpu.cfs_quota_us). Once it is used up, every thread in the cgroup stands still until the\n"
        "next period begins, requests in hand or not. The quota may be set on the service's own\n"
        "cgroup or on any ancestor."
    ),
    detection=(
        "Time: the waits for a CPU of the serving threads (schedstat) that overlap the spans in\n"
        "which cpu.stat says the cgroup, or an ancestor, was throttled.\n"
        "Mechanism: nr_throttled grew in at least 5 % of the periods of that same cgroup.\n"
        "Not this: waits outside the throttled spans belong to whoever held the CPU."
    ),
    fix=(
        "raise the CPU limit of the cgroup (Kubernetes: resources.limits.cpu; systemd: CPUQuota=;\n"
        "cgroup v2: cpu.max), or use fewer threads than CPUs allowed"
    ),
    verify="nr_throttled in cpu.stat stops growing, and the cause is gone from the report",
    find=find,
)
