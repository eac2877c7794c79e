"""Python's garbage collector takes the time of requests."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.analysis.case import Case
from perfkit.analysis.collecting import FLAG_SOURCE, Collecting, find_collecting
from perfkit.analysis.compare import SHARE_GATE, SHARE_LOW_GATE, passes_gate
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection

# One function begins it, where so much of it lies below that one; else anything that allocates.
CALLER_RATIO_MIN = 0.5
SOURCE = FLAG_SOURCE
SOURCE_NATIVE = "native stacks"
SOURCE_COUNT = "the interpreter's own counts"


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: CPU of serving threads that collect, and what waits behind. Mechanism: the flag."""
    found = find_collecting(case)
    if found is None or not passes_gate(found.share):
        yield _reject(found)
        return
    yield _finding(case, found)


def _reject(found: Collecting | None) -> Rejection:
    metric = "share of time in garbage collection, or behind it"
    if found is None:
        why = "no look met an interpreter that collects"
        return Rejection(RULE.id, metric, 0.0, SHARE_GATE, "ratio", SOURCE, why)
    is_small = found.share.value <= SHARE_GATE
    return Rejection(
        RULE.id,
        metric if is_small else f"{metric}, at the least",
        found.share.value if is_small else found.share.low,
        SHARE_GATE if is_small else SHARE_LOW_GATE,
        "ratio",
        SOURCE,
        f"the collector used {found.cpu_ns / 1e9:.2f} s of CPU",
    )


def _finding(case: Case, found: Collecting) -> Finding:
    caller = found.caller if found.caller_ratio >= CALLER_RATIO_MIN else None
    evidence = [
        Evidence(
            "part of the service's CPU time that collects", found.cpu_ratio, 0, "ratio", SOURCE
        ),
        Evidence("CPU time of it in the window", found.cpu_ns / 1e9, None, "s", SOURCE),
    ]
    if found.count:
        evidence.append(Evidence("collections", found.count, None, "", SOURCE_COUNT))
        metric = f"CPU time of one on average, {found.full_count} of them full ones"
        length_ms = found.cpu_ns / found.count / 1e6
        evidence.append(Evidence(metric, length_ms, None, "ms", SOURCE_COUNT))
    if found.native_ratio > 0:
        evidence.append(
            Evidence("samples in the collector", found.native_ratio, 0, "ratio", SOURCE_NATIVE)
        )
    if found.caller is not None:
        metric = f"part of it that begins in {found.caller.words}"
        evidence.append(Evidence(metric, found.caller_ratio, None, "ratio", "Python stacks"))
    who = f", most of it from {caller.words}" if caller is not None else ""
    return make_finding(
        case,
        RULE,
        title=f"Garbage collection stops the requests{who}",
        share=found.share,
        confidence=0.9 if found.native_ratio > 0 else 0.8,
        culprit=Culprit("function", caller.words) if caller is not None else Culprit("none"),
        evidence=tuple(evidence),
    )


RULE = Rule(
    id="gc_pause",
    family="python",
    parent="",
    cell=("cpu", "utilisation"),
    state=State.ON_CPU,
    needs=("collections.full_count",),
    sources=("python_stacks",),
    absent="Python interpreters whose collector can be read",
    excludes=("hot_function",),
    summary="Python's garbage collector takes the time of requests.",
    meaning=(
        "CPython frees most objects at once, and now and then looks through all others for cycles\n"
        "that nobody can reach. While it looks, no thread runs Python code. With millions of\n"
        "objects alive one such pass takes a second, and it comes by itself when enough objects\n"
        "were made, or each time that something calls gc.collect()."
    ),
    detection=(
        "Time: CPU of the serving threads while their interpreter says that it collects, and the\n"
        "waits for the interpreter or a CPU that stand behind it.\n"
        "Mechanism: the interpreter's own flag, with the thread that has its lock; where it has\n"
        "symbols, native stacks in the collector's functions say the same.\n"
        "Not this: a function that takes its time itself is hot_function. Who calls or allocates\n"
        "while the collector runs is named as the one in which it begins."
    ),
    fix=(
        "do not call gc.collect() in the path of requests; move what lives for ever out of its\n"
        "way with gc.freeze() once started, and let it come less often (gc.set_threshold)"
    ),
    verify="no more than a few per cent of the CPU time is garbage collection",
    find=find,
)
