"""Accepted connections that carried one question: told by the kernel's notice of their end.

They live too briefly for polls. The notice (SKNLGRP_INET_TCP_DESTROY) holds the ages of the last
data each way, which are the question's and the answer's instants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfkit.analysis.align import Aligned, Axis
from perfkit.analysis.columns import Integers, Reals

MILLISECOND_NS = 1_000_000
# A question of one connection comes in at most so many segments (a head, and a body).
QUESTION_SEGMENTS_MAX = 2


@dataclass(frozen=True)
class ShortConnections:
    """One question each; `sockets` are those of them that were polled all the same."""

    sockets: Integers
    asked_ns: Integers
    answered_ns: Integers

    @property
    def count(self) -> int:
        """How many were answered."""
        return int((self.answered_ns > self.asked_ns).sum())

    def in_flight(self, axis: Axis) -> Reals:
        """How many held their question, on average in each slot."""
        return axis.sum_slots(self.asked_ns, self.answered_ns) / axis.slot_ns

    def arrivals(self, axis: Axis) -> Reals:
        """Questions per slot."""
        return axis.spread_counts(self.asked_ns, self.asked_ns + 1, np.ones(len(self.asked_ns)))


def read_short_connections(aligned: Aligned) -> ShortConnections:
    """Reads them from `socket_closed`."""
    table = aligned.table("socket_closed")
    accepted = np.array([role == "accepted" for role in table.text("role")], dtype=bool)
    segments = table.integers("data_segments_in")
    table = table.where(accepted & (segments > 0) & (segments <= QUESTION_SEGMENTS_MAX))
    end = table.integers("t_ns")
    asked = end - np.maximum(table.integers("last_received_ms"), 0) * MILLISECOND_NS
    answered = end - np.maximum(table.integers("last_sent_ms"), 0) * MILLISECOND_NS
    # Nothing was ever sent: the question was held until the end.
    answered = np.where(table.integers("data_segments_out") > 0, answered, end)
    return ShortConnections(table.integers("socket_index"), asked, np.maximum(answered, asked))
