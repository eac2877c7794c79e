"""Connections that carried one question: told by the kernel's notice of their end.

They live too briefly for polls. The notice (SKNLGRP_INET_TCP_DESTROY) holds the ages of the last
data each way, which are the question's and the answer's instants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perfkit.analysis.align import Aligned, Axis
from perfkit.analysis.columns import Frame, Integers, Masks, Reals

MILLISECOND_NS = 1_000_000
# A question of one connection comes in at most so many segments (a head, and a body).
QUESTION_SEGMENTS_MAX = 2


@dataclass(frozen=True)
class ShortConnections:
    """One question each, when it was asked and answered; `closed` are the rows of their ends."""

    asked_ns: Integers
    answered_ns: Integers
    closed: Frame

    @property
    def sockets(self) -> Integers:
        """The sockets of those that were polled all the same; -1 of the others."""
        return self.closed.integers("socket_index")

    @property
    def count(self) -> int:
        """How many were answered."""
        return int((self.answered_ns > self.asked_ns).sum())

    def where(self, mask: Masks) -> ShortConnections:
        """Some of them."""
        return ShortConnections(
            self.asked_ns[mask], self.answered_ns[mask], self.closed.where(mask)
        )

    def in_flight(self, axis: Axis) -> Reals:
        """How many held their question, on average in each slot."""
        return axis.sum_slots(self.asked_ns, self.answered_ns) / axis.slot_ns

    def arrivals(self, axis: Axis) -> Reals:
        """Questions per slot."""
        return axis.spread_counts(self.asked_ns, self.asked_ns + 1, np.ones(len(self.asked_ns)))


def read_short_connections(
    aligned: Aligned, role: Literal["accepted", "outgoing"]
) -> ShortConnections:
    """Reads them from `socket_closed`: the peer asks on accepted ones, the service on outgoing."""
    table = aligned.table("socket_closed")
    asks, answers = ("in", "received"), ("out", "sent")
    if role == "outgoing":
        asks, answers = answers, asks
    mine = np.array([one == role for one in table.text("role")], dtype=bool)
    segments = table.integers(f"data_segments_{asks[0]}")
    table = table.where(mine & (segments > 0) & (segments <= QUESTION_SEGMENTS_MAX))
    end = table.integers("t_ns")
    asked = end - np.maximum(table.integers(f"last_{asks[1]}_ms"), 0) * MILLISECOND_NS
    answered = end - np.maximum(table.integers(f"last_{answers[1]}_ms"), 0) * MILLISECOND_NS
    # No answer was ever sent: the question was held until the end.
    answered = np.where(table.integers(f"data_segments_{answers[0]}") > 0, answered, end)
    return ShortConnections(asked, np.maximum(answered, asked), table)
