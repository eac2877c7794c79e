"""A process has no descriptors left: it cannot accept, connect or open."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis.case import Case
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.descriptors import EXHAUSTED_RATIO, Use, pauses, read_uses, share_without
from perfkit.analysis.intervals import Share
from perfkit.analysis.rules._names import name_process
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection

SOURCE = "/proc/PID/fd, /proc/PID/limits"


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: connections not accepted, and pauses before trying again. Mechanism: open count."""
    uses = read_uses(case)
    full = [use for use in uses if use.is_exhausted]
    share = share_without(case, frozenset(use.pid for use in full))
    if full and passes_gate(share):
        yield _finding(case, full[0], share)
    elif full:
        yield Rejection(
            RULE.id,
            "share of time waiting to try again, or to be accepted",
            share.value,
            SHARE_GATE,
            "ratio",
            "timed waits, accept queue",
            f"{full[0].open_count} of {full[0].limit} descriptors were open, but nobody waits",
        )
    else:
        yield _reject(uses)


def _reject(uses: list[Use]) -> Rejection:
    use = next(iter(uses), None)
    words = "no process has a limit of open descriptors"
    if use is not None:
        words = f"process {use.pid} has {use.open_count} of {use.limit} descriptors open"
    return Rejection(
        RULE.id,
        "descriptors open, of those allowed",
        use.ratio if use is not None else 0.0,
        EXHAUSTED_RATIO,
        "ratio",
        SOURCE,
        words,
    )


def _finding(case: Case, use: Use, share: Share) -> Finding:
    queue = float(case.requests.accept_queue.mean())
    paused = case.share_of(pauses(case, frozenset([use.pid])))
    evidence = [
        Evidence("descriptors open", use.open_count, None, "", f"{SOURCE}, limit {use.limit}"),
        Evidence("share of time in timed waits", paused.value, 0.0, "ratio", "thread_runs"),
    ]
    if queue > 0:
        evidence.append(
            Evidence("connections not accepted", queue, 0.0, "", "accept queue of its listeners")
        )
    name = name_process(case, use.pid)
    return make_finding(
        case,
        RULE,
        title=f"{name} has no descriptors left, {use.open_count} of {use.limit} are open",
        share=share,
        confidence=0.85,
        culprit=Culprit("process", name),
        evidence=tuple(evidence),
        fix=(
            f"find what leaks them (ls -l /proc/{use.pid}/fd), and raise the limit (ulimit -n;\n"
            f"systemd: LimitNOFILE=; now: prlimit --pid {use.pid} --nofile={2 * use.limit})"
        ),
    )


RULE = Rule(
    id="fd_exhausted",
    family="network",
    parent="",
    cell=("descriptors", "saturation"),
    state=State.TIMER_WAIT,
    needs=("descriptors.open_count", "thread_runs.syscall"),
    sources=("descriptors", "threads"),
    absent="processes whose descriptors are counted",
    excludes=("accept_queue_overflow",),
    summary="A process has no descriptors left.",
    meaning=(
        "Every file and connection takes a descriptor, and a process may have only so many\n"
        "(RLIMIT_NOFILE). At the limit accept, connect and open fail at once with EMFILE; servers\n"
        "pause and try again, while connections wait to be accepted."
    ),
    detection=(
        "Time: connections in the accept queue, and timed waits of the process's threads.\n"
        "Mechanism: at least 98 % of the descriptors that the process may have are open.\n"
        "Not seen: a request that fails at once because nothing can be opened takes no time."
    ),
    fix="find what leaks descriptors (ls -l /proc/PID/fd), and raise the limit (ulimit -n)",
    verify="the open count falls well below the limit",
    find=find,
)
