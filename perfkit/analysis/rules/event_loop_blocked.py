"""A coroutine runs synchronously on its event loop's thread, so that every other one waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from perfkit.analysis._loops import Loop, find_loops, name_call, name_function
from perfkit.analysis.blame import name_thread
from perfkit.analysis.case import Case
from perfkit.analysis.collecting import reject_for_collecting
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

STALL_COUNT_MIN = 2
SOURCE = "/proc/PID/task/TID/syscall and schedstat of the loop's thread"


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: requests in flight while the loop stood still. Mechanism: one call, unmoved."""
    loops = find_loops(case)
    if not loops:
        yield Rejection(
            RULE.id, "event loops", 0, 1, "", SOURCE, "no thread waits in epoll as a loop does"
        )
        return
    loop = loops[0]
    share = share_of_blocks(loop.held_up_ns, case.counted_blocks)
    if not passes_gate(share) or len(loop.stalls) < STALL_COUNT_MIN:
        yield _reject(case, loop, share)
        return
    finding = _finding(case, loop, share)
    yield reject_for_collecting(case, finding) or finding


def _reject(case: Case, loop: Loop, share: Share) -> Rejection:
    ratio = loop.stalled_ns / case.window_ns
    return Rejection(
        RULE.id,
        "share of time in which the event loop stood still",
        share.value,
        SHARE_GATE,
        "ratio",
        SOURCE,
        f"it stood still {len(loop.stalls)} times, {to_percent(ratio)} of the window",
    )


def _finding(case: Case, loop: Loop, share: Share) -> Finding:
    thread = name_thread((loop.pid, loop.tid), case.thread_names)
    lasted = sorted(stall.end_ns - stall.begin_ns for stall in loop.stalls)
    calls: Counter[str] = Counter()
    for stall in loop.stalls:
        calls[name_call(stall.label)] += stall.end_ns - stall.begin_ns
    call = calls.most_common(1)[0][0]
    function = name_function(case, loop)
    computing = sum(
        stall.end_ns - stall.begin_ns for stall in loop.stalls if stall.label.state is State.ON_CPU
    )
    is_call = computing < loop.stalled_ns / 2
    evidence = (
        Evidence("times that the event loop stood still", len(lasted), 0.0, "", SOURCE),
        Evidence(
            "median time of it, as far as seen", lasted[len(lasted) // 2] / 1e6, None, "ms", SOURCE
        ),
        Evidence(
            f"share of the window, most of it {call}",
            loop.stalled_ns / case.window_ns,
            0.0,
            "ratio",
            SOURCE,
        ),
    )
    who = function.words if function is not None else thread
    return make_finding(
        case,
        RULE,
        title=f"{who} blocks the event loop, {call}",
        share=share,
        confidence=(0.9 if is_call else 0.7) - (0.0 if function is not None else 0.1),
        culprit=(
            Culprit("function", function.words)
            if function is not None
            else Culprit("thread", f"{thread}: {call}")
        ),
        evidence=evidence,
    )


RULE = Rule(
    id="event_loop_blocked",
    family="python",
    parent="",
    cell=("interpreter", "saturation"),
    state=State.BLOCKED,
    needs=("thread_runs.syscall",),
    sources=("threads",),
    absent="threads in the service",
    excludes=("thread_pool_exhausted", "load_saturation"),
    summary="A coroutine or handler runs synchronously on the event loop's thread.",
    meaning=(
        "One thread runs all requests of an event loop, in turns. A handler that makes a call\n"
        "that blocks (sleep, a file, a client that is not asynchronous), or that computes for\n"
        "long, keeps all others from going on, although nothing is wrong with them."
    ),
    detection=(
        "Time: requests in flight while the loop's thread stood still.\n"
        "Mechanism: the thread, which waits for work in epoll, was seen unmoved for 50 ms or\n"
        "more in one other system call; or it computed for 100 ms and five times as long as a\n"
        "request usually takes, while two or more requests waited and no answer left.\n"
        "Not this: a loop that is merely busy answers one request after the other, which is\n"
        "load_saturation. Of a loop in another language than Python only calls\n"
        "are told; what it computes for long is hot_function, of its thread."
    ),
    fix=(
        "call an asynchronous client instead, or hand the call to a thread\n"
        "(Python: asyncio.to_thread, loop.run_in_executor)"
    ),
    verify="the event loop no longer stands still",
    find=find,
)
