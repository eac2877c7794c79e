"""Another process of the same cgroup takes the CPU or the quota."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="sibling_cpu",
    family="cpu",
    parent="cpu_contention_neighbour",
    cell=("cpu", "saturation"),
    state=State.RUNNABLE,
    needs=("thread_runs.wait_ns", "owners.run_ns"),
    sources=("threads", "owners"),
    absent="threads that could be sampled",
    excludes=(
        "cpu_throttled",
        "cpu_contention_neighbour",
    ),
    summary="Another process of the same cgroup takes the CPU or the quota.",
    meaning=(
        "A process that shares the service's cgroup or container, a sidecar or a batch job,\n"
        "runs while the service waits, or uses up the quota that both share."
    ),
    detection=(
        "Time: waits for a CPU charged to it, or throttled spans of a quota of which it used\n"
        "most.\n"
        "Mechanism: its CPU seconds."
    ),
    fix=("give the other process a cgroup of its own with its own limit, or stop it"),
    verify="its CPU use falls, and the cause is gone from the report",
    find=find_claim("sibling_cpu"),
)
