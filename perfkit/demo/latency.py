"""What the load saw: latencies of a window, and whether they moved from one window to another."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from perfkit.demo.load import Asked

MOVED_P50_RATIO = 1.25
MOVED_P99_RATIO = 1.5
MOVED_COUNT_MIN = 20


class Latency(Struct, frozen=True):
    """The latencies of the requests that were planned in one window.

    Requests not yet answered count with their age so far: a service that answers nothing at all
    is slow, not unmeasured. `in_flight_mean` counts requests that were sent.
    """

    count: int
    failed_count: int
    unanswered_count: int
    p50_ms: float
    p99_ms: float
    answers_per_second: float
    in_flight_mean: float


def quantile(values: Iterable[float], ratio: float) -> float:
    """The value at a ratio of the sorted values, linear between neighbours; 0 for none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    place = ratio * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def measure(
    asked: Iterable[Asked], waiting_ns: Iterable[int], start_ns: int, end_ns: int
) -> Latency:
    """Measures the requests planned, answered and sent in `[start_ns, end_ns)`."""
    seen = list(asked)
    planned = [one for one in seen if start_ns <= one.planned_ns < end_ns]
    ages_ms = [(end_ns - planned_ns) / 1e6 for planned_ns in waiting_ns if planned_ns < end_ns]
    latencies_ms = [(one.done_ns - one.planned_ns) / 1e6 for one in planned] + ages_ms
    answered_count = sum(start_ns <= one.done_ns < end_ns for one in seen)
    flight_ns = sum(max(0, min(one.done_ns, end_ns) - max(one.sent_ns, start_ns)) for one in seen)
    return Latency(
        count=len(latencies_ms),
        failed_count=sum(not one.ok for one in planned),
        unanswered_count=len(ages_ms),
        p50_ms=quantile(latencies_ms, 0.5),
        p99_ms=quantile(latencies_ms, 0.99),
        answers_per_second=answered_count / ((end_ns - start_ns) / 1e9),
        in_flight_mean=flight_ns / (end_ns - start_ns),
    )


def has_moved(before: Latency, after: Latency) -> bool:
    """Says whether the later window is clearly slower, at its middle or at its tail."""
    if after.count < MOVED_COUNT_MIN:
        return False
    p50_ratio, p99_ratio = ratios(before, after)
    return p50_ratio >= MOVED_P50_RATIO or p99_ratio >= MOVED_P99_RATIO


def ratios(before: Latency, after: Latency) -> tuple[float, float]:
    """How many times p50 and p99 grew."""
    return (
        after.p50_ms / max(before.p50_ms, 1e-3),
        after.p99_ms / max(before.p99_ms, 1e-3),
    )


def describe(latency: Latency) -> str:
    """The figures in one line."""
    text = (
        f"p50 {latency.p50_ms:.1f} ms  p99 {latency.p99_ms:.1f} ms  "
        f"{latency.answers_per_second:.0f} answers/s"
    )
    return text + (f"  {latency.failed_count} failed" if latency.failed_count else "")
