"""Every worker is busy or blocked, and requests wait for one; the CPUs are not the limit."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis.case import Case
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.correlate import is_slight
from perfkit.analysis.descriptors import read_uses
from perfkit.analysis.rules._cpu import claims
from perfkit.analysis.rules._doing import name_doing
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.rules.process_restarted import find as find_restarts
from perfkit.analysis.saturation import (
    BLOCK_RATIO_MIN,
    Pool,
    Queue,
    find_pool,
    find_stages,
    read_queue,
)
from perfkit.analysis.states import STATE_WORDS, State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# Workers that compute, or want to, for more of their time are short of CPUs, not of workers.
COMPUTING_MAX = 0.5
# What workers do for more of their time than this, and what has a cause of its own, comes first.
DEEPER_MAX = 0.25
DOING_MIN = 0.15
DOING_COUNT = 3
QUEUE_SOURCE = "TCP_INFO ages of accepted sockets, states of the threads"
SOURCE = "states of the threads"
_DEEPER = (State.STOPPED, State.THROTTLED, State.LOCK_WAIT)


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: requests that wait for a worker. Mechanism: no worker ever idles, and most wait."""
    queue = read_queue(case)
    if queue is None:
        yield Rejection(
            RULE.id, "requests in flight", 0.0, 1.0, "", QUEUE_SOURCE, "they cannot be counted"
        )
        return
    if not queue.is_steady or not passes_gate(queue.share) or is_slight(case, queue.share):
        yield Rejection(
            RULE.id,
            "part of the window in which requests wait for each other",
            queue.block_ratio,
            BLOCK_RATIO_MIN,
            "ratio",
            QUEUE_SOURCE,
            f"{queue.waiting_mean:.2g} of {float(case.requests.in_flight.mean()):.2g} in flight "
            "wait",
        )
        return
    pool = find_pool(case)
    if pool is None:
        why = "requests wait, but each thread that serves them has time left"
        yield Rejection(RULE.id, "workers that never idle", 0, 1, "", SOURCE, why)
        return
    rejection = (
        _reject_computing(case, pool) or _reject_deeper(case, pool) or _reject_restarts(case)
    )
    yield rejection if rejection is not None else _finding(case, queue, pool)


def _reject_computing(case: Case, pool: Pool) -> Rejection | None:
    computing = pool.share(State.ON_CPU, State.RUNNABLE, State.GIL_WAIT)
    stage = find_stages(case)[0]
    if computing <= COMPUTING_MAX and not stage.is_full:
        return None
    is_pool = computing > COMPUTING_MAX
    return Rejection(
        RULE.id,
        "part of the workers' time on a CPU or waiting for one"
        if is_pool
        else f"part of the window in which {stage.words} works without a pause",
        computing if is_pool else stage.full_ratio,
        COMPUTING_MAX if is_pool else BLOCK_RATIO_MIN,
        "ratio",
        "schedstat",
        "more workers would not help: the CPU is what they need",
    )


def _reject_restarts(case: Case) -> Rejection | None:
    """Workers that are kept while another process starts over wait for that one."""
    restarts = next((one for one in find_restarts(case) if isinstance(one, Finding)), None)
    if restarts is None:
        return None
    return Rejection(
        RULE.id,
        f"share of time beyond the usual while {restarts.culprit.name} starts over",
        restarts.share,
        SHARE_GATE,
        "ratio",
        "start times of threads; /proc/PID",
        "while nothing starts over the workers have time left",
    )


def _reject_deeper(case: Case, pool: Pool) -> Rejection | None:
    """Workers that wait for what is slow by itself: that is the cause, this its consequence."""
    standing = {one.peer.name for one in case.peers if one.stands_out}
    peers: dict[str, float] = {}
    for state, culprit, ratio in pool.doing:
        if state is State.PEER_WAIT and culprit in standing:
            peers[culprit] = peers.get(culprit, 0.0) + ratio
    parts = {f"waiting for {name}, which is slow": ratio for name, ratio in peers.items()}
    parts["waiting for flushes"] = pool.flushing
    parts |= {STATE_WORDS[state]: pool.share(state) for state in _DEEPER}
    if any(use.is_exhausted for use in read_uses(case)):
        parts["in a timed wait, with no descriptor left"] = pool.share(State.TIMER_WAIT)
    words = max(parts, key=lambda one: parts[one])
    if parts[words] > DEEPER_MAX:
        return Rejection(
            RULE.id,
            f"part of the workers' time {words}",
            parts[words],
            DEEPER_MAX,
            "ratio",
            SOURCE,
            "what keeps the workers is the cause; that all are kept is what follows",
        )
    claim = next(iter(claims(case)), None)
    if claim is None:
        return None
    return Rejection(
        RULE.id,
        "share of time waiting for a CPU",
        claim.share.value,
        SHARE_GATE,
        "ratio",
        "schedstat run_delay",
        f"this time is {claim.cause}'s",
    )


def _finding(case: Case, queue: Queue, pool: Pool) -> Finding:
    told = [one for one in pool.doing if one[2] >= DOING_MIN][:DOING_COUNT] or [pool.doing[0]]
    cpus = float(case.thread_cpu_seconds.sum()) / (case.window_ns / 1e9)
    evidence = [
        Evidence("requests that wait for a worker", queue.waiting_mean, 0.0, "", QUEUE_SOURCE),
        Evidence(
            "part of the window in which they do", queue.block_ratio, 0.0, "ratio", QUEUE_SOURCE
        ),
        Evidence("workers, none of which idles", pool.count, None, "threads", SOURCE),
        *(
            Evidence(f"part of their time: {name_doing(*one[:2])}", one[2], None, "ratio", SOURCE)
            for one in told
        ),
        Evidence("CPUs used by the service", cpus, None, "CPUs", "schedstat"),
    ]
    if queue.accept_queue_mean > 0:
        evidence.append(
            Evidence("connections not accepted", queue.accept_queue_mean, 0.0, "", "sock_diag")
        )
    doing = name_doing(*told[0][:2])
    workers = f"All {pool.count} workers are" if pool.count > 1 else "The one worker is"
    return make_finding(
        case,
        RULE,
        title=f"{workers} busy, {doing} for {to_percent(told[0][2])} of the time",
        share=queue.share,
        confidence=0.85,
        culprit=Culprit("none"),
        evidence=tuple(evidence),
    )


RULE = Rule(
    id="thread_pool_exhausted",
    family="python",
    parent="",
    cell=("interpreter", "saturation"),
    state=State.QUEUE_WAIT,
    needs=("thread_runs.syscall", "socket_runs.last_received_ms", "sockets.peer"),
    sources=("threads", "sockets"),
    absent="TCP connections of the service",
    excludes=("downstream_slow", "load_saturation", "lock_contention"),
    summary="Every worker is busy or blocked, and requests wait for one.",
    meaning=(
        "A pool of threads or processes does the work, and there are too few of them for how\n"
        "long each request keeps one: while they wait for something else, such as a timer, a\n"
        "peer or the disk, new requests stand in line although CPUs are idle."
    ),
    detection=(
        "Time: requests in flight that no thread carries, and those not yet accepted, in 60 % of\n"
        "the window.\n"
        "Mechanism: serving threads that idle for less than a tenth of their time and spend less\n"
        "than half of it on a CPU or waiting for one; what they do is told.\n"
        "Not this: workers kept by one slow peer (downstream_slow), by a lock, by flushes, by\n"
        "throttling or for want of descriptors, which come first; workers that compute are\n"
        "load_saturation."
    ),
    fix=(
        "find what keeps the workers (the evidence says in which state) and make it shorter or\n"
        "give it a pool of its own; more workers help while the CPUs are idle"
    ),
    verify="requests no longer wait for a worker",
    find=find,
)
