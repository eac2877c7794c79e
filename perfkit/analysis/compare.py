"""What to compare with: like peers of the same moment, or a peer's own fast seconds of the same
window; and the gate that keeps silence.

Without any reference only states that are never useful work count (waste); a useful but large
state is composition, not a fault, unless one of several alike stands out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal, NamedTuple

import numpy as np

from perfkit.analysis.align import Axis
from perfkit.analysis.columns import Reals
from perfkit.analysis.intervals import Share
from perfkit.analysis.requests import Peer

SHARE_GATE = 0.15
SHARE_LOW_GATE = 0.08
LIKE_CALLS_RATIO = 4.0
STANDS_OUT_RATIO = 2.0
WAIT_FLOOR_NS = 500_000.0
# So many standard errors two waits must lie apart: a wait is known from the polls that met it, and
# among a few peers and ways to cut the window one or two errors are always met by chance.
APART_ERRORS_MIN = 4.0
# Own past: spans of a second, so many of them at least, and how many must be fast, and be slow.
SPAN_SLOTS = 20
SPANS_MIN = 5
SPANS_EACH_MIN = 2
ANSWERS_PER_SPAN_MIN = 5.0


@dataclass(frozen=True)
class PeerComparison:
    """One peer held against its like, or itself: mean wait per answer, and what is usual.

    `reference_ns` is the median of the others (`like`), its own wait in the fast seconds of the
    window (`past`) or in a saved run (`run`), or nothing (`none`). `errors_apart` is by how many
    standard errors the two differ.
    """

    peer: Peer
    wait_ns: float
    reference_ns: float
    like_count: int
    errors_apart: float
    against: Literal["like", "past", "run", "none"] = "like"

    @property
    def has_like(self) -> bool:
        """Whether it was held against others, or another run."""
        return self.against in ("like", "run")

    @property
    def is_apart(self) -> bool:
        """Whether the two differ by more than chance."""
        return self.errors_apart >= APART_ERRORS_MIN

    @property
    def ratio(self) -> float:
        """How many times the reference this peer takes."""
        return self.wait_ns / max(self.reference_ns, WAIT_FLOOR_NS)

    @property
    def excess_ratio(self) -> float:
        """The share of its wait that exceeds the reference, 0..1."""
        return max(0.0, 1.0 - self.reference_ns / self.wait_ns) if self.wait_ns > 0 else 0.0

    @property
    def stands_out(self) -> bool:
        """Whether it is slow by a factor that noise does not reach; `past` has seen to that."""
        if self.against == "past":
            return True
        return self.is_apart and self.against != "none" and self.ratio >= STANDS_OUT_RATIO


def passes_gate(share: Share) -> bool:
    """A cause needs a share above 15 % whose lower bound is above 8 %."""
    return share.value > SHARE_GATE and share.low > SHARE_LOW_GATE


def compare_peers(peers: tuple[Peer, ...], axis: Axis) -> tuple[PeerComparison, ...]:
    """Compares every peer with those that are asked about as often, slowest first.

    One that does not stand out among these, or has none like it, is held against its own past.
    """
    compared = [_compare(peer, peers, axis) for peer in peers]
    return tuple(sorted(compared, key=lambda one: (-one.ratio, one.peer.name)))


def hold_against(
    compared: tuple[PeerComparison, ...], usual_ns: dict[str, float]
) -> tuple[PeerComparison, ...]:
    """Holds the peers that do not stand out against what they took in a saved run."""
    held = []
    for one in compared:
        known = usual_ns.get(one.peer.name)
        if known is not None and not one.stands_out:
            since = PeerComparison(one.peer, one.wait_ns, known, one.like_count, inf, "run")
            held.append(since if since.stands_out else one)
        else:
            held.append(one)
    return tuple(sorted(held, key=lambda one: (-one.ratio, one.peer.name)))


def _compare(peer: Peer, peers: tuple[Peer, ...], axis: Axis) -> PeerComparison:
    like = [other for other in peers if other is not peer and _alike(peer, other)]
    waits = [other.wait_per_answer_ns(axis) for other in like]
    wait = peer.wait_per_answer_ns(axis)
    reference = float(np.median(waits)) if waits else 0.0
    others = _Seen(
        sum(other.poll_count for other in like), sum(other.answer_count for other in like)
    )
    errors = _errors_apart(_seen(peer), others)
    alike = PeerComparison(peer, wait, reference, len(waits), errors, "like" if waits else "none")
    past_ns = fast_wait_ns(peer, axis)
    if alike.stands_out or past_ns is None:
        return alike
    return PeerComparison(peer, wait, past_ns, len(waits), inf, "past")


def fast_wait_ns(peer: Peer, axis: Axis) -> float | None:
    """A peer's wait per answer in the fast part of the window; None where there are no two parts.

    The window is cut where the seconds before and after differ most; each part has two seconds or
    more, and the slowest second of the fast part is quicker than the quickest of the slow part.
    """
    waited = _by_span(peer.pending * axis.slot_ns)
    answered = _by_span(peer.answers)
    known = answered >= ANSWERS_PER_SPAN_MIN
    if known.sum() < SPANS_MIN:
        return None
    waits = waited[known] / answered[known]
    polls = peer.poll_count * waited[known] / max(float(waited.sum()), 1.0)
    cuts = range(SPANS_EACH_MIN, len(waits) - SPANS_EACH_MIN + 1)
    best = max(cuts, key=lambda cut: abs(waits[:cut].mean() - waits[cut:].mean()))
    fast, slow = sorted((waits[:best], waits[best:]), key=lambda part: float(part.mean()))
    is_apart = float(fast.max()) < float(slow.min())
    is_slower = float(slow.mean()) >= STANDS_OUT_RATIO * max(float(fast.mean()), WAIT_FLOOR_NS)
    parts = [
        _Seen(float(polls[part].sum()), float(answered[known][part].sum()))
        for part in (slice(best), slice(best, None))
    ]
    is_sure = abs(_errors_apart(*parts)) >= APART_ERRORS_MIN
    return float(fast.mean()) if is_apart and is_slower and is_sure else None


class _Seen(NamedTuple):
    """In how many polls an answer was waited for, and how many answers came."""

    polls: float
    answers: float


def _seen(peer: Peer) -> _Seen:
    return _Seen(float(peer.poll_count), peer.answer_count)


def _errors_apart(one: _Seen, other: _Seen) -> float:
    """By how many standard errors one waits longer per answer than another.

    Polls that meet a wait are counts: the square root of one and 3/8 has an error of a half,
    whatever its size (Anscombe 1948); without the 3/8 a few that met none would look exact.
    """
    counts = (max(one.answers, 1.0), max(other.answers, 1.0))
    polls = (one.polls + 3 / 8, other.polls + 3 / 8)
    roots = (sqrt(polls[0] / counts[0]), sqrt(polls[1] / counts[1]))
    return 2 * (roots[0] - roots[1]) / sqrt(1 / counts[0] + 1 / counts[1])


def _by_span(values: Reals) -> Reals:
    """Sums of whole seconds; a part at the end is left out."""
    count = len(values) // SPAN_SLOTS
    return np.asarray(values[: count * SPAN_SLOTS].reshape(count, SPAN_SLOTS).sum(axis=1))


def _alike(peer: Peer, other: Peer) -> bool:
    if other.answer_count < 1:
        return False
    if peer.answer_count < 1:
        return float(peer.pending.sum()) > 0
    ratio = peer.answer_count / other.answer_count
    return 1 / LIKE_CALLS_RATIO <= ratio <= LIKE_CALLS_RATIO
