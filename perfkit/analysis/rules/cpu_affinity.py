"""It is bound to fewer CPUs than it needs while others idle."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="cpu_affinity",
    family="cpu",
    parent="",
    cell=("cpu", "saturation"),
    state=State.RUNNABLE,
    needs=("thread_runs.wait_ns", "owners.run_ns"),
    sources=("threads", "owners"),
    absent="threads that could be sampled",
    excludes=(
        "host_cpu_saturated",
        "cpu_contention_neighbour",
    ),
    summary="It is bound to fewer CPUs than it needs while others idle.",
    meaning=(
        "The service may use only some CPUs (sched_setaffinity, cpuset). It waits for those\n"
        "while the others have nothing to do."
    ),
    detection=(
        "Time: waits for a CPU outside throttled spans.\n"
        "Mechanism: a mask smaller than the online CPUs, and the CPUs outside it idle 30 % or\n"
        "more."
    ),
    fix=(
        "widen the mask (taskset -pc, systemd: CPUAffinity=, Kubernetes: the static CPU\n"
        "manager's request, cgroup v2: cpuset.cpus), or move what shares these CPUs"
    ),
    verify="the mask holds all CPUs that it needs, and the cause is gone from the report",
    find=find_claim("cpu_affinity"),
)
