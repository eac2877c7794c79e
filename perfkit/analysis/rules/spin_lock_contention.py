"""Threads spin on a lock that another of them keeps for long."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis.case import Case
from perfkit.analysis.compare import SHARE_GATE, SHARE_LOW_GATE, passes_gate
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.spinning import SOURCE, Spinning, find_spinning
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection

# One thread alone has nobody to spin for; and fewer samples are chance.
THREADS_MIN = 2
SAMPLES_MIN = 4
CALLER_RATIO_MIN = 0.5


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: CPU of serving threads that spin. Mechanism: the leaf of their native stacks."""
    found = find_spinning(case)
    if found is None:
        metric, why = "samples of threads that spin on a lock", "none was met"
        yield Rejection(RULE.id, metric, 0, SAMPLES_MIN - 1, "", SOURCE, why)
        return
    rejection = _reject(found)
    if rejection is not None:
        yield rejection
        return
    yield _finding(case, found)
    lock = case.share(State.LOCK_WAIT)
    if not passes_gate(lock):
        why = "its threads run while they wait for the lock"
        metric = "share of time asleep on a lock"
        yield Rejection(
            "lock_contention", metric, lock.value, SHARE_GATE, "ratio", "futex addresses", why
        )


def _reject(found: Spinning) -> Rejection | None:
    tests = (
        ("share of time spinning on a lock", found.share.value, SHARE_GATE, "ratio"),
        (
            "share of time spinning on a lock, at the least",
            found.share.low,
            SHARE_LOW_GATE,
            "ratio",
        ),
        ("samples of threads that spin on a lock", found.sample_count, SAMPLES_MIN - 1, ""),
        ("threads that spin", found.thread_count, THREADS_MIN - 1, ""),
    )
    for metric, observed, limit, unit in tests:
        if observed <= limit:
            why = f"{found.sample_count} samples of {found.thread_count} threads spin"
            return Rejection(RULE.id, metric, observed, limit, unit, SOURCE, why)
    return None


def _finding(case: Case, found: Spinning) -> Finding:
    is_one = found.caller is not None and found.caller_ratio >= CALLER_RATIO_MIN
    caller = found.caller if is_one else None
    who = f" that {caller.words} asks for" if caller is not None else ""
    return make_finding(
        case,
        RULE,
        title=f"{found.thread_count} threads spin on a lock{who}",
        share=found.share,
        confidence=0.85,
        culprit=Culprit("function", caller.words) if caller is not None else Culprit("none"),
        evidence=(
            Evidence(
                "part of the serving threads' CPU time spent spinning",
                found.cpu_ratio,
                0,
                "ratio",
                SOURCE,
            ),
            Evidence("threads met spinning", found.thread_count, None, "threads", SOURCE),
            Evidence("samples that met one", found.sample_count, None, "", SOURCE),
        ),
    )


RULE = Rule(
    id="spin_lock_contention",
    family="native",
    parent="",
    cell=("cpu", "saturation"),
    state=State.ON_CPU,
    needs=("native_samples.weight_ns",),
    sources=("native_stacks",),
    absent="native samples of the service",
    excludes=("hot_function", "lock_contention", "thread_oversubscription"),
    summary="Threads spin on a lock that another of them keeps for long.",
    meaning=(
        "A spin lock is for moments: whoever waits for it burns a CPU until it is free. Where it\n"
        "is kept for long, across a wait or while its holder has no CPU, all others burn theirs,\n"
        "and the one that could let go may be the one that gets none."
    ),
    detection=(
        "Time: CPU of the serving threads whose innermost native function waits for a spin lock\n"
        "(pthread_spin_lock and what is named so), and what waits for a CPU behind them.\n"
        "Mechanism: two threads or more were met there.\n"
        "Not this: threads that sleep for a lock are lock_contention. A loop without a function\n"
        "of its own, inlined where it is used, is hot_function."
    ),
    fix=(
        "use a mutex that sleeps where the lock may be kept longer than some microseconds, and\n"
        "never wait, allocate or call out while a spin lock is held"
    ),
    verify="no sample meets a thread that spins",
    find=find,
)
