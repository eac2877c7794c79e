"""Its nice value or scheduling class is below its competitor's."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="cpu_priority_low",
    family="cpu",
    parent="cpu_contention_neighbour",
    cell=("cpu", "saturation"),
    state=State.RUNNABLE,
    needs=("thread_runs.wait_ns", "owners.run_ns"),
    sources=("threads", "owners"),
    absent="threads that could be sampled",
    excludes=(
        "cpu_contention_neighbour",
        "sibling_cpu",
    ),
    summary="Its nice value or scheduling class is below its competitor's.",
    meaning=(
        "Within a cgroup the kernel shares the CPUs by nice values, 25 % for each step, and\n"
        "real-time classes go first. The service is nicer than the one who holds the CPUs."
    ),
    detection=(
        "Time: waits for a CPU outside throttled spans, charged to one other.\n"
        "Mechanism: nice three steps or more above the other's, or a lower scheduling class."
    ),
    fix=(
        "start the service with nice 0 (systemd: Nice=0, CPUSchedulingPolicy=other), or make\n"
        "the other nicer"
    ),
    verify="both have the same nice value, and the cause is gone from the report",
    find=find_claim("cpu_priority_low"),
)
