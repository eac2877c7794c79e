"""More of its own threads want to run than it has CPUs."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="thread_oversubscription",
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
    summary="More of its own threads want to run than it has CPUs.",
    meaning=(
        "One request keeps many threads busy at once (OpenMP, BLAS, torch), more than there\n"
        "are CPUs, so that they wait for one another."
    ),
    detection=(
        "Time: waits for a CPU charged to the service's own threads.\n"
        "Mechanism: runnable threads above twice the allowed CPUs and above the requests\n"
        "in flight."
    ),
    fix=(
        "set the number of threads to the CPUs allowed (OMP_NUM_THREADS, MKL_NUM_THREADS,\n"
        "torch.set_num_threads), the processes of the service counted in"
    ),
    verify="runnable threads fall to the number of CPUs, and the cause is gone from the report",
    find=find_claim("thread_oversubscription"),
)
