"""What to compare with: like peers of the same moment; and the gate that keeps silence.

Without any reference only states that are never useful work count (waste); a useful but large
state is composition, not a fault, unless one of several alike stands out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import Axis
from perfkit.analysis.intervals import Share
from perfkit.analysis.requests import Peer

SHARE_GATE = 0.15
SHARE_LOW_GATE = 0.08
LIKE_CALLS_RATIO = 4.0
STANDS_OUT_RATIO = 2.0
WAIT_FLOOR_NS = 500_000.0


@dataclass(frozen=True)
class PeerComparison:
    """One peer held against its like: mean wait per answer, and what the others' median is."""

    peer: Peer
    wait_ns: float
    reference_ns: float
    like_count: int

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
        """Whether it is slow by a factor that noise among like peers does not reach."""
        return self.like_count > 0 and self.ratio >= STANDS_OUT_RATIO


def passes_gate(share: Share) -> bool:
    """A cause needs a share above 15 % whose lower bound is above 8 %."""
    return share.value > SHARE_GATE and share.low > SHARE_LOW_GATE


def compare_peers(peers: tuple[Peer, ...], axis: Axis) -> tuple[PeerComparison, ...]:
    """Compares every peer with those that are asked about as often, slowest first."""
    compared = []
    for peer in peers:
        waits = [
            other.wait_per_answer_ns(axis)
            for other in peers
            if other is not peer and _alike(peer, other)
        ]
        reference = float(np.median(waits)) if waits else 0.0
        wait = peer.wait_per_answer_ns(axis)
        compared.append(PeerComparison(peer, wait, reference, len(waits)))
    return tuple(sorted(compared, key=lambda one: (-one.ratio, one.peer.name)))


def _alike(peer: Peer, other: Peer) -> bool:
    if other.answer_count < 1:
        return False
    if peer.answer_count < 1:
        return float(peer.pending.sum()) > 0
    ratio = peer.answer_count / other.answer_count
    return 1 / LIKE_CALLS_RATIO <= ratio <= LIKE_CALLS_RATIO
