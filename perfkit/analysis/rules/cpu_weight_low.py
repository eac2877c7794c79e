"""Its cgroup's CPU weight is far below its competitor's."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="cpu_weight_low",
    family="cpu",
    parent="cpu_contention_neighbour",
    cell=("cpu", "saturation"),
    state=State.RUNNABLE,
    needs=("thread_runs.wait_ns", "owners.run_ns"),
    sources=("threads", "owners"),
    absent="threads that could be sampled",
    excludes=(
        "cpu_contention_neighbour",
        "cpu_throttled",
    ),
    summary="Its cgroup's CPU weight is far below its competitor's.",
    meaning=(
        "When cgroups compete, the kernel shares the CPUs by their weights (cpu.weight,\n"
        "cpu.shares). The service's weight is a quarter of its competitor's or less."
    ),
    detection=(
        "Time: waits for a CPU outside throttled spans, charged to one other.\n"
        "Mechanism: the weights of both cgroups where they meet in the tree, 1 to 4 or worse."
    ),
    fix=(
        "raise the weight (Kubernetes: resources.requests.cpu; systemd: CPUWeight=; cgroup\n"
        "v2: cpu.weight)"
    ),
    verify="the weights are alike, and the cause is gone from the report",
    find=find_claim("cpu_weight_low"),
)
