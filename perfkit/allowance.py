"""What all of perfkit may spend of a core while it records, shared out among its samplers.

What has no rate of its own (the other collectors, the loop, programs that run for us) is watched,
and taken from what the samplers get; a sampler asks anew each second, so that what was spent too
much, by whomever, is saved in the seconds after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from msgspec import Struct

# The limit is 3 %; what comes up in the last second of a window cannot be saved any more.
WHOLE_RATIO = 0.0275
# What the rest takes until it has been watched, and how many seconds of watching that counts for.
REST_RATIO = 0.013
PRIOR_NS = 2_000_000_000
# In the first second all is read for the first time, so nothing is learnt from it.
SETTLE_NS = 800_000_000
# Within so much time, less near the end of the window, the mean comes back to the whole.
HORIZON_NS_MAX = 6_000_000_000
HORIZON_NS_MIN = 1_500_000_000
# A sampler that has not asked for so long is stuck, or has ended.
STALE_NS = 5_000_000_000
# A sampler that has reached its full rate is left this much of what it used.
FULL_MARGIN = 1.25


class Want(Struct, frozen=True):
    """What a sampler gets of a core: to begin with, at least, at most; in between by weight."""

    start_ratio: float
    ratio_min: float
    ratio_max: float
    weight: float


class Claim(Struct, frozen=True):
    """What a sampler said when it asked: when, what it had spent by then, and its want."""

    t_ns: int
    spent_ns: int
    used_ratio: float
    want: Want


class Allowance:
    """Shares one core's small part out among samplers, over one window.

    Each sampler asks from a thread of its own. There is no lock: a claim is replaced whole.
    """

    def __init__(
        self, read_spent_ns: Callable[[], int], now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._read_spent_ns, self._now_ns = read_spent_ns, now_ns
        self._claims: dict[str, Claim] = {}
        self._first: dict[str, int] = {}
        self._start_ns = self._end_ns = self._start_spent_ns = 0
        self._settled: tuple[int, int] | None = None

    def begin(self, start_ns: int, seconds: float) -> None:
        """Begins the window: what was spent before is not counted."""
        self._start_ns, self._end_ns = start_ns, start_ns + int(1e9 * seconds)
        self._start_spent_ns = self._read_spent_ns()

    def share(self, name: str, want: Want, spent_ns: int, *, is_full: bool) -> float:
        """The part of a core that a sampler may take until it asks again.

        `spent_ns` is what it has spent so far, `is_full` whether it runs at its full rate.
        """
        now_ns = self._now_ns()
        self._claim(name, now_ns, want, spent_ns, is_full=is_full)
        elapsed_ns = now_ns - self._start_ns
        if elapsed_ns < SETTLE_NS:
            return want.start_ratio
        whole_ns = self._read_spent_ns() - self._start_spent_ns
        rest_ns = whole_ns - self._read_samplers_ns(now_ns)
        settled_ns, settled_rest_ns = self._settled = self._settled or (now_ns, rest_ns)
        rest_ratio = to_rest_ratio(rest_ns - settled_rest_ns, now_ns - settled_ns)
        left_ratio = to_whole_ratio(whole_ns, elapsed_ns, self._end_ns - now_ns) - rest_ratio
        wants = {
            key: claim.want
            for key, claim in self._claims.copy().items()
            if now_ns - claim.t_ns < STALE_NS
        }
        return share_out(left_ratio, wants)[name]

    def _claim(self, name: str, now_ns: int, want: Want, spent_ns: int, *, is_full: bool) -> None:
        before = self._claims.get(name)
        self._first.setdefault(name, spent_ns)
        used_ratio = want.start_ratio
        if before is not None and now_ns > before.t_ns:
            used_ratio = (spent_ns - before.spent_ns) / (now_ns - before.t_ns)
            if is_full:
                enough_ratio = max(FULL_MARGIN * used_ratio, want.ratio_min)
                want = Want(
                    want.start_ratio,
                    want.ratio_min,
                    min(enough_ratio, want.ratio_max),
                    want.weight,
                )
        self._claims[name] = Claim(now_ns, spent_ns, used_ratio, want)

    def _read_samplers_ns(self, now_ns: int) -> int:
        """What all samplers have spent in the window, those that asked a while ago as it seems."""
        return sum(
            claim.spent_ns
            - self._first[name]
            + int(claim.used_ratio * min(max(0, now_ns - claim.t_ns), STALE_NS))
            for name, claim in self._claims.copy().items()
        )


def to_rest_ratio(rest_ns: int, span_ns: int) -> float:
    """What all that has no rate of its own takes of a core, by what it took in `span_ns`."""
    return (max(0, rest_ns) + REST_RATIO * PRIOR_NS) / (max(0, span_ns) + PRIOR_NS)


def to_whole_ratio(spent_ns: int, elapsed_ns: int, left_ns: int) -> float:
    """What all of perfkit may take from now on, so that its mean comes back to the whole."""
    horizon_ns = min(max(left_ns, HORIZON_NS_MIN), HORIZON_NS_MAX)
    return (WHOLE_RATIO * (elapsed_ns + horizon_ns) - spent_ns) / horizon_ns


def share_out(left_ratio: float, wants: Mapping[str, Want]) -> dict[str, float]:
    """Gives each its least, and of what is left to each by weight; no one more than its most."""
    shares = {name: want.ratio_min for name, want in wants.items()}
    open_names = set(wants)
    while open_names:
        left = left_ratio - sum(shares.values())
        weight = sum(wants[name].weight for name in open_names)
        if left <= 0 or weight <= 0:
            break
        filled = {
            name
            for name in open_names
            if shares[name] + left * wants[name].weight / weight >= wants[name].ratio_max
        }
        for name in filled or open_names:
            raised = shares[name] + left * wants[name].weight / weight
            shares[name] = min(raised, wants[name].ratio_max)
        open_names -= filled or open_names
    return shares
