"""A thread of the service itself spins."""

from __future__ import annotations

from perfkit.analysis.rules._cpu_rules import find_claim
from perfkit.analysis.rules._rule import Rule
from perfkit.analysis.states import State

RULE = Rule(
    id="busy_poll_thread",
    family="cpu",
    parent="",
    cell=("cpu", "saturation"),
    state=State.RUNNABLE,
    needs=("thread_runs.wait_ns", "owners.run_ns"),
    sources=("threads", "owners"),
    absent="threads that could be sampled",
    excludes=(
        "hot_function",
        "gil_contention",
    ),
    summary="A thread of the service itself spins.",
    meaning=(
        "A thread that serves no request runs without a pause and takes a CPU from those that\ndo."
    ),
    detection=(
        "Time: waits for a CPU charged to that thread.\n"
        "Mechanism: it ran or wanted to run in 90 % of its life, and it never waits for work.\n"
        "Not this: where requests wait for the interpreter lock, gil_contention is meant."
    ),
    fix=("let the thread sleep or block between its turns, or bind it to a CPU of its own"),
    verify="the thread's CPU use falls, and the cause is gone from the report",
    find=find_claim("busy_poll_thread"),
)
