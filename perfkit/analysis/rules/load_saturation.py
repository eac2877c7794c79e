"""More requests come than the service can serve, and nothing is broken."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis._hot import find_largest
from perfkit.analysis.case import Case
from perfkit.analysis.collecting import FLAG_SOURCE, find_collecting
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.correlate import is_slight
from perfkit.analysis.rules._cpu import claims
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.saturation import (
    BLOCK_RATIO_MIN,
    WASTE_MAX,
    Queue,
    Stage,
    cost_ratio,
    cpu_per_request_ns,
    find_stages,
    read_queue,
    waste_besides,
)
from perfkit.analysis.spinning import SOURCE as SPIN_SOURCE
from perfkit.analysis.spinning import find_spinning
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# Requests that cost so much more in the slow half of the window are another kind of requests.
COST_RATIO_MAX = 1.5
QUEUE_SOURCE = "TCP_INFO ages of accepted sockets, states of the threads"
STAGE_SOURCE = "schedstat, states of the threads"


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: requests that wait behind others. Mechanism: a part that works without a pause."""
    queue = read_queue(case)
    if queue is None:
        yield Rejection(
            RULE.id, "requests in flight", 0.0, 1.0, "", QUEUE_SOURCE, "they cannot be counted"
        )
        return
    stage = find_stages(case)[0]
    rejection = _reject_queue(case, queue, stage) or _reject_waste(case)
    yield rejection if rejection is not None else _finding(case, queue, stage)


def _reject_queue(case: Case, queue: Queue, stage: Stage) -> Rejection | None:
    if not queue.is_steady or not passes_gate(queue.share) or is_slight(case, queue.share):
        return Rejection(
            RULE.id,
            "part of the window in which requests wait for each other",
            queue.block_ratio,
            BLOCK_RATIO_MIN,
            "ratio",
            QUEUE_SOURCE,
            f"{queue.waiting_mean:.2g} of {float(case.requests.in_flight.mean()):.2g} in flight "
            f"wait; the busiest part, {stage.words}, works {to_percent(stage.work_ratio)} of "
            "the time",
        )
    if not stage.is_full:
        return Rejection(
            RULE.id,
            f"part of the window in which {stage.words} works without a pause",
            stage.full_ratio,
            BLOCK_RATIO_MIN,
            "ratio",
            STAGE_SOURCE,
            "requests wait, but nothing of the service is at its limit",
        )
    return None


def _reject_waste(case: Case) -> Rejection | None:
    words, share = waste_besides(case)
    if share > WASTE_MAX:
        why = "what the requests themselves do not cause comes first"
        return Rejection(
            RULE.id, f"share of time {words}", share, WASTE_MAX, "ratio", STAGE_SOURCE, why
        )
    yielding = _reject_for_own_waste(case)
    if yielding is not None:
        return yielding
    claim = next(iter(claims(case)), None)
    if claim is not None:
        return Rejection(
            RULE.id,
            "share of time waiting for a CPU",
            claim.share.value,
            SHARE_GATE,
            "ratio",
            STAGE_SOURCE,
            f"this time is {claim.cause}'s",
        )
    grown = cost_ratio(case)
    if grown > COST_RATIO_MAX:
        return Rejection(
            RULE.id,
            "CPU per request, the slow half of the window against the quick one",
            grown,
            COST_RATIO_MAX,
            "x",
            STAGE_SOURCE,
            "requests cost more, there are not only more of them",
        )
    return None


def _reject_for_own_waste(case: Case) -> Rejection | None:
    """Where the service's CPU time goes to what serves nobody: without it it could serve more."""
    collecting, spinning = find_collecting(case), find_spinning(case)
    wastes = (
        (
            collecting,
            "of its CPU time that is garbage collection",
            FLAG_SOURCE,
            "gc_pause",
        ),
        (
            spinning,
            "of its CPU time spent spinning on a lock",
            SPIN_SOURCE,
            "spin_lock_contention",
        ),
    )
    for found, what, source, cause in wastes:
        if found is not None and passes_gate(found.share):
            why = f"without it the service could serve more: {cause} comes first"
            return Rejection(
                RULE.id, f"part {what}", found.cpu_ratio, WASTE_MAX, "ratio", source, why
            )
    return None


def _finding(case: Case, queue: Queue, stage: Stage) -> Finding:
    rate = case.requests.answer_count / (case.window_ns / 1e9)
    evidence = [
        Evidence("requests that wait for others", queue.waiting_mean, 0.0, "", QUEUE_SOURCE),
        Evidence(
            "part of the window in which they do", queue.block_ratio, 0.0, "ratio", QUEUE_SOURCE
        ),
        Evidence(f"work of {stage.words}", stage.work_ratio, None, "ratio", STAGE_SOURCE),
        Evidence("requests answered", rate, None, "per_second", "TCP_INFO segments"),
        Evidence(
            "CPU per request", cpu_per_request_ns(case) / 1e6, None, "ms", "schedstat, TCP_INFO"
        ),
    ]
    if queue.accept_queue_mean > 0:
        evidence.append(
            Evidence("connections not accepted", queue.accept_queue_mean, 0.0, "", "sock_diag")
        )
    return make_finding(
        case,
        RULE,
        title=f"More requests come than it can serve: {stage.words} never pauses",
        share=queue.share,
        confidence=0.5 if _is_one_function(case) else 0.9,
        culprit=Culprit("none"),
        evidence=tuple(evidence),
    )


def _is_one_function(case: Case) -> bool:
    """With the user's word that it is slow, a function that takes the time says more."""
    largest = find_largest(case) if case.said_slow else None
    return largest is not None and passes_gate(largest.share)


RULE = Rule(
    id="load_saturation",
    family="load",
    parent="",
    cell=("cpu", "saturation"),
    state=State.QUEUE_WAIT,
    needs=("thread_runs.run_ns", "socket_runs.last_received_ms", "sockets.peer"),
    sources=("threads", "sockets"),
    absent="TCP connections of the service",
    excludes=("cpu_throttled", "thread_pool_exhausted", "host_cpu_saturated"),
    summary="More requests come than it can serve, and nothing is broken.",
    meaning=(
        "Requests arrive faster than some part of the service can work: its CPUs, the Python\n"
        "interpreter, an event loop, or one thread that every request needs. They wait for each\n"
        "other, and would be quick if there were fewer of them."
    ),
    detection=(
        "Time: requests in flight that no thread carries, those not yet accepted, and waits for\n"
        "a CPU or the interpreter that the service's own requests use; in 60 % of the window.\n"
        "Mechanism: a part of the service that works without a pause in 60 % of the window.\n"
        "Not this: any waste above 8 % that requests do not cause themselves (throttling, other\n"
        "processes, locks, a background thread), a pool whose workers wait rather than work,\n"
        "or requests that cost more than before."
    ),
    fix=(
        "add capacity (more processes, CPUs or hosts behind the same address), shed or smooth the\n"
        "load, or make each request cheaper: perfkit diagnose --slow names its largest part"
    ),
    verify="requests no longer wait for each other",
    find=find,
)
