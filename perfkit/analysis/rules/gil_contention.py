"""Another Python thread holds the interpreter lock while requests wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perfkit.analysis._grown import find_proven
from perfkit.analysis._hot import spend
from perfkit.analysis.blame import name_thread
from perfkit.analysis.case import Case
from perfkit.analysis.collecting import reject_for_collecting
from perfkit.analysis.compare import SHARE_GATE, passes_gate
from perfkit.analysis.intervals import Share
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# An interpreter whose threads together run less than this much of a core is not short of its lock.
INTERPRETER_BUSY_MIN = 0.5
# A function is named instead of serving threads where it has so much of their CPU time in itself.
FUNCTION_RATIO_MIN = 0.5
# A holder is named when this much of the waiting is charged to it.
HOLDER_SHARE_MIN = 0.5


@dataclass(frozen=True)
class _Holder:
    name: str
    share: float
    cpu: float
    serves: bool


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: timed futex waits on the GIL's words. Mechanism: who ran meanwhile (schedstat)."""
    share = _share(case)
    busy = _interpreter_cpu(case)
    if not passes_gate(share) or busy < INTERPRETER_BUSY_MIN:
        yield _reject(case, busy)
        return
    finding = _finding(case, busy)
    yield reject_for_collecting(case, finding) or _reject_for_function(case) or finding
    runnable = case.share(State.RUNNABLE)
    if not passes_gate(runnable):
        yield Rejection(
            "host_cpu_saturated",
            "share of time waiting for a CPU",
            runnable.value,
            SHARE_GATE,
            "ratio",
            "schedstat run_delay",
            "its threads wait for the interpreter lock, not for a CPU",
        )
    lock = case.share(State.LOCK_WAIT)
    if not passes_gate(lock):
        yield Rejection(
            "lock_contention",
            "share of time waiting for other locks",
            lock.value,
            SHARE_GATE,
            "ratio",
            "futex addresses outside _PyRuntime",
            "the futex words waited on are the interpreter's own",
        )


def _reject_for_function(case: Case) -> Rejection | None:
    """Where the requests' own function keeps the lock, their waits for it are only its echo."""
    holder = _holder(case)
    if not holder.serves and holder.share >= HOLDER_SHARE_MIN:
        return None
    hot = find_proven(case)
    if hot is None:
        return None
    return Rejection(
        RULE.id,
        "share of the waiting that is charged to threads that serve nobody",
        0.0 if holder.serves else holder.share,
        HOLDER_SHARE_MIN,
        "ratio",
        "schedstat, who ran meanwhile",
        f"{hot.candidate.name} keeps the lock in slow requests: hot_function comes first",
    )


def _share(case: Case) -> Share:
    """GIL waits, and the waits for a CPU that the GIL's main holder ran on meanwhile.

    A thread that is handed the GIL must also get a CPU: that the holder is on it is the same blame.
    """
    rows = case.ledger.rows_where(State.GIL_WAIT)
    charged = case.ledger.by_culprit(State.GIL_WAIT)
    holder = next(iter(charged), "")
    if holder:
        rows |= case.ledger.rows_where(State.RUNNABLE, holder)
    return case.share_of(rows)


def _interpreter_cpu(case: Case) -> float:
    """CPUs used by the threads of the process with the most GIL waiting."""
    waits = case.timeline.states() == State.GIL_WAIT
    if not waits.any():
        return 0.0
    pids: dict[int, float] = {}
    for thread, ns in zip(
        case.timeline.thread[waits].tolist(), case.timeline.ns[waits].tolist(), strict=True
    ):
        pid = case.timeline.threads[thread][0]
        pids[pid] = pids.get(pid, 0.0) + ns
    worst = max(sorted(pids), key=lambda pid: pids[pid])
    seconds = sum(
        float(seconds)
        for (pid, _), seconds in zip(case.timeline.threads, case.thread_cpu_seconds, strict=True)
        if pid == worst
    )
    return seconds / (case.window_ns / 1e9)


def _holder(case: Case) -> _Holder:
    charged = case.ledger.by_culprit(State.GIL_WAIT)
    name, waited_ns = next(iter(charged.items()))
    for thread, seconds in zip(case.timeline.threads, case.thread_cpu_seconds, strict=True):
        if name_thread(thread, case.thread_names) == name:
            cpu = float(seconds) / (case.window_ns / 1e9)
            return _Holder(name, waited_ns / sum(charged.values()), cpu, thread in case.serving)
    return _Holder("", 0.0, 0.0, True)


def _reject(case: Case, busy: float) -> Rejection:
    share = case.share(State.GIL_WAIT)
    return Rejection(
        RULE.id,
        "share of time waiting for the GIL",
        share.value,
        SHARE_GATE,
        "ratio",
        "timed futex waits inside _PyRuntime",
        f"requests wait {to_percent(share.value)} of their time for it, "
        f"the interpreter runs {to_percent(busy)} of a core",
    )


def _finding(case: Case, busy: float) -> Finding:
    holder = _holder(case)
    named = holder.share >= HOLDER_SHARE_MIN and holder.name != ""
    evidence = [
        Evidence(
            "share of time waiting for the GIL",
            case.share(State.GIL_WAIT).value,
            0.0,
            "ratio",
            "timed futex waits on the GIL's two words in _PyRuntime",
        ),
        Evidence("CPUs the interpreter runs on", busy, None, "CPUs", "schedstat, all its threads"),
    ]
    waited = case.share(State.RUNNABLE, holder.name)
    if named and waited.value > 0:
        evidence.append(
            Evidence(
                "share of time waiting for a CPU that it ran on",
                waited.value,
                0.0,
                "ratio",
                "schedstat run_delay, who ran meanwhile",
            )
        )
    if named:
        evidence.append(
            Evidence(
                f"CPU of {holder.name}, which ran during {to_percent(holder.share)} of the waiting",
                holder.cpu,
                None,
                "CPUs",
                "schedstat",
            )
        )
    title = "Requests wait for the Python interpreter lock (GIL)"
    function, ratio = "", 0.0
    if not named or holder.serves:
        function, ratio = _main_function(case)
    if function:
        metric = f"part of the serving threads' CPU time in {function}"
        evidence.append(Evidence(metric, ratio, None, "ratio", "Python stacks, schedstat"))
        title = f"{title}, which {function} keeps"
    elif named:
        kind = "a serving thread" if holder.serves else "a background thread"
        title = f"{holder.name}, {kind}, holds the GIL while requests wait"
    strength = 0.9 if named and not holder.serves else 0.7
    return make_finding(
        case,
        RULE,
        title=title[:1].upper() + title[1:],
        share=_share(case),
        confidence=strength * min(1.0, 0.5 + busy / 2),
        culprit=_culprit(function, holder.name if named else ""),
        evidence=tuple(evidence),
        fix=_fix(function, is_named=named),
    )


def _main_function(case: Case) -> tuple[str, float]:
    """What the serving threads compute, where most of it is one function; its part, 0..1."""
    spent = spend(case)
    whole_ns = float(spent.attributed_ns.sum())
    best = max(spent.named, key=lambda one: (one.own_ns, one.depth, one.name), default=None)
    if best is None or best.kind != "function" or best.own_ns < FUNCTION_RATIO_MIN * whole_ns:
        return "", 0.0
    return best.name, best.own_ns / whole_ns


def _culprit(function: str, thread: str) -> Culprit:
    if function:
        return Culprit("function", function)
    return Culprit("thread", thread) if thread else Culprit("none")


def _fix(function: str, *, is_named: bool) -> str:
    """The rule's own words, where there is a thread that they speak of."""
    if is_named and not function:
        return ""
    what = f"make {function} do less" if function else "see what computes (perfkit flame)"
    return (
        f"{what}, or move it out of this process (multiprocessing, a job queue), or into code "
        "that releases the GIL"
    )


RULE = Rule(
    id="gil_contention",
    family="python",
    parent="",
    cell=("interpreter", "saturation"),
    state=State.GIL_WAIT,
    needs=("thread_runs.arg0", "thread_runs.run_ns", "python_runtimes.start_address"),
    sources=("threads", "python_runtime"),
    absent="Python interpreters in the service",
    excludes=("host_cpu_saturated", "hot_function", "lock_contention"),
    summary="Another Python thread holds the interpreter lock.",
    meaning=(
        "CPython runs one thread at a time: the one that holds the global interpreter lock (GIL).\n"
        "A thread that computes in Python keeps it for 5 ms at a time, so every request that\n"
        "needs the interpreter waits for it, although CPUs are idle."
    ),
    detection=(
        "Time: serving threads in timed futex waits on the two adjacent words of the GIL's\n"
        "condition inside _PyRuntime, read from outside without stopping anyone.\n"
        "Mechanism: a thread of the same process that ran meanwhile (schedstat), by name; the\n"
        "interpreter as a whole used at least half a core.\n"
        "Where the serving threads keep it themselves, the function that they mostly compute is\n"
        "the culprit.\n"
        "Not this: a GIL wait while its holder is throttled is charged to the throttling. Behind\n"
        "a function that grew in slow requests it is hot_function, behind the collector gc_pause."
    ),
    fix=(
        "move the named thread's work out of this process (multiprocessing, a job queue), or into\n"
        "code that releases the GIL; a larger sys.setswitchinterval makes it worse for requests"
    ),
    verify="the share of time waiting for the GIL falls under 8 %",
    find=find,
)
