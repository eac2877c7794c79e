"""Processes of another cgroup hold the CPUs."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="cpu_contention_neighbour",
    family="cpu",
    parent="host_cpu_saturated",
    cell=("cpu", "saturation"),
    state=State.RUNNABLE,
    needs=("thread_runs.wait_ns", "owners.run_ns"),
    sources=("threads", "owners"),
    absent="threads that could be sampled",
    excludes=(
        "cpu_throttled",
        "sibling_cpu",
        "cpu_weight_low",
    ),
    summary="Processes of another cgroup hold the CPUs.",
    meaning=(
        "The service's threads are ready to run, and somebody who is no part of the service\n"
        "runs instead. Its clients and the peers it asks, where they live on the same host,\n"
        "do not count: what they burn comes with the service's own load."
    ),
    detection=(
        "Time: waits for a CPU (schedstat) outside throttled spans, shared among all that ran\n"
        "meanwhile.\n"
        "Mechanism: CPU seconds of one other process or cgroup, not connected with the\n"
        "service.\n"
        "Not this: throttled spans are a quota's, waits behind own threads are the service's."
    ),
    fix=(
        "move the other work away, or limit it (Kubernetes: requests and limits; systemd:\n"
        "CPUQuota= or CPUWeight=; Slurm: --exclusive), or give the service CPUs of its own\n"
        "(cpuset, CPUAffinity=)"
    ),
    verify="the other's CPU use falls, and the cause is gone from the report",
    find=find_claim("cpu_contention_neighbour"),
)
