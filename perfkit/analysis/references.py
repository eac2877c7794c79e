"""What this window is held against: its own fast part, and saved runs that the user names.

Each reference says what can be compared, and what requests take longer for than they did there.
"""

from __future__ import annotations

from typing import NamedTuple

from perfkit.analysis.case import Case
from perfkit.analysis.growth import (
    LOAD_RATIO,
    Grown,
    Spans,
    asked_more,
    find_growth,
    merge_strangers,
    read_spans,
    split_fast,
)
from perfkit.analysis.states import STATE_WORDS
from perfkit.findings import Growth, Reference
from perfkit.model import Header

# A sampler this much slower than the other sees other things.
RATE_RATIO = 2.0
REFERENCE_LIMIT = 8


class Past(NamedTuple):
    """A saved run, accounted for; `cause` is what was wrong with it then, "" for nothing."""

    name: str
    case: Case
    cause: str


def compare_parts(case: Case) -> Reference | None:
    """The slow part of the window against its fast part; None where there are no two parts."""
    spans = read_spans(case)
    parts = None if spans is None else split_fast(spans)
    if spans is None or parts is None:
        return None
    fast, slow = parts
    found = find_growth(slow, fast)
    if not found:
        return None
    return Reference(
        kind="window",
        name="",
        is_usable=True,
        notes=(),
        slow_share=len(slow.answers) / len(spans.answers),
        latency_ms=slow.latency_ns / 1e6,
        reference_latency_ms=fast.latency_ns / 1e6,
        answers_per_second=slow.rate,
        reference_answers_per_second=fast.rate,
        is_load=asked_more(slow, fast),
        grown=tuple(_word(one) for one in found),
    )


def compare_run(case: Case, past: Past) -> Reference:
    """The whole window against a saved run, or why they cannot be compared."""
    now, then = read_spans(case), read_spans(past.case)
    refused = _refuse(case, past)
    if refused or now is None or then is None:
        why = refused or "requests were not counted in both"
        return Reference(kind="run", name=past.name, is_usable=False, notes=(why,))
    now, then = merge_strangers(now, then)
    is_load = asked_more(now, then)
    notes = _warn(case.aligned.header, past)
    if not _is_like_load(now, then):
        rates = f"{now.rate:.3g} requests/s here, {then.rate:.3g} there"
        notes = (*notes, f"the load is not comparable ({rates})")
    return Reference(
        kind="run",
        name=past.name,
        is_usable=_is_like_load(now, then),
        notes=notes,
        slow_share=1.0,
        latency_ms=now.latency_ns / 1e6,
        reference_latency_ms=then.latency_ns / 1e6,
        answers_per_second=now.rate,
        reference_answers_per_second=then.rate,
        is_load=is_load,
        grown=tuple(_word(one) for one in find_growth(now, then)),
    )


def usual_waits(past: Past) -> dict[str, float]:
    """The mean wait for an answer of each peer in a saved run, in ns."""
    axis = past.case.aligned.axis
    peers = past.case.requests.peers
    return {peer.name: peer.wait_per_answer_ns(axis) for peer in peers if peer.answer_count >= 1}


def _word(one: Grown) -> Growth:
    state, culprit = one.key
    return Growth(
        state=STATE_WORDS.get(state, state.name.lower()),
        culprit=culprit,
        reference_ms=one.reference_ns / 1e6,
        observed_ms=one.observed_ns / 1e6,
        low_ms=one.low_ns / 1e6,
        high_ms=one.high_ns / 1e6,
    )


def _is_like_load(now: Spans, then: Spans) -> bool:
    return 1 / LOAD_RATIO < now.rate / max(then.rate, 1e-9) < LOAD_RATIO


def _refuse(case: Case, past: Past) -> str:
    """Why a run says nothing of this service; "" where it does."""
    here, there = case.aligned.header, past.case.aligned.header
    if here.target.name != there.target.name or here.target.kind != there.target.kind:
        return f"it is of another service ({there.target.name}, not {here.target.name})"
    if not case.counts_requests or not past.case.counts_requests:
        return "requests were not counted in both"
    if past.case.requests.answer_count < 1:
        return "no request was answered in it"
    return ""


def _warn(here: Header, past: Past) -> tuple[str, ...]:
    """What makes a run a poorer reference."""
    there = past.case.aligned.header
    notes = []
    if here.host != there.host:
        notes.append(f"it is of another host ({there.host})")
    elif (here.machine.cpu_model, here.machine.cpu_count) != (
        there.machine.cpu_model,
        there.machine.cpu_count,
    ):
        notes.append("the host had other CPUs then")
    rates = {rate.sampler: rate.achieved_hertz for rate in there.rates}
    for rate in here.rates:
        other = rates.get(rate.sampler, 0.0)
        is_like = other <= RATE_RATIO * rate.achieved_hertz <= RATE_RATIO**2 * other
        if rate.sampler in rates and not is_like:
            notes.append(f"{rate.sampler} sampled at {other:.0f} Hz, not {rate.achieved_hertz:.0f}")
    if past.cause:
        notes.append(f"it was not healthy itself ({past.cause})")
    return tuple(notes)
