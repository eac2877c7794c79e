"""All CPUs are busy, with nobody in particular."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="host_cpu_saturated",
    family="cpu",
    parent="",
    cell=("cpu", "saturation"),
    state=State.RUNNABLE,
    needs=("thread_runs.wait_ns", "owners.run_ns"),
    sources=("threads", "owners"),
    absent="threads that could be sampled",
    excludes=(
        "cpu_contention_neighbour",
        "load_saturation",
    ),
    summary="All CPUs are busy, with nobody in particular.",
    meaning=(
        "Three or more others that are no part of the service use the CPUs, none of them most\n"
        "of it."
    ),
    detection=(
        "Time: waits for a CPU outside throttled spans, charged to others.\n"
        "Mechanism: at least three owners of foreign CPU time, none above half of it, and CPUs\n"
        "that idle for less than a quarter of the window."
    ),
    fix=("move work off this host, or give the service CPUs of its own (cpuset, CPUAffinity=)"),
    verify="/proc/pressure/cpu falls, and the cause is gone from the report",
    find=find_claim("host_cpu_saturated"),
)
