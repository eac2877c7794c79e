"""A capture on one time axis: the window cut into slots and blocks, tables opened once.

A slot (50 ms) is the pace at which sockets are read and the grain at which threads and requests
are held against one another; a block (250 ms) is the grain of the ledger and of the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perfkit.analysis.columns import Frame, Integers, Reals, read_frame, sum_by
from perfkit.model import Capture, Header

SLOT_NS = 50_000_000
SLOTS_PER_BLOCK = 5
BLOCK_NS = SLOT_NS * SLOTS_PER_BLOCK
SLOT_COUNT_LIMIT = 72_000


@dataclass(frozen=True)
class Axis:
    """The window as `slot_count` slots of SLOT_NS; the last one may be cut short."""

    start_ns: int
    end_ns: int

    @cached_property
    def slot_count(self) -> int:
        """How many slots the window has, the last, partial one included."""
        return max(1, -(-(self.end_ns - self.start_ns) // SLOT_NS))

    @cached_property
    def block_count(self) -> int:
        """How many blocks the window has, the last, partial one included."""
        return -(-self.slot_count // SLOTS_PER_BLOCK)

    @cached_property
    def slot_ns(self) -> Reals:
        """The length of each slot, in ns."""
        edges = self.start_ns + SLOT_NS * np.arange(self.slot_count + 1, dtype=np.int64)
        edges[-1] = self.end_ns
        return np.diff(edges).astype(np.float64)

    def spread(self, begin_ns: Integers, end_ns: Integers) -> tuple[Integers, Integers, Reals]:
        """Cuts half-open intervals at the slots' edges.

        Shape: three arrays of pieces: the interval's index, its slot, the overlap in ns. Parts
        outside the window are dropped.
        """
        begin = np.clip(begin_ns, self.start_ns, self.end_ns)
        end = np.clip(end_ns, self.start_ns, self.end_ns)
        kept = np.flatnonzero(end > begin)
        first = (begin[kept] - self.start_ns) // SLOT_NS
        last = (end[kept] - self.start_ns - 1) // SLOT_NS
        counts = last - first + 1
        index = np.repeat(kept, counts)
        offsets = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
        slot = np.repeat(first, counts) + offsets
        slot_begin = self.start_ns + slot * SLOT_NS
        overlap = np.minimum(end[index], slot_begin + SLOT_NS) - np.maximum(
            begin[index], slot_begin
        )
        return index, slot, overlap.astype(np.float64)

    def sum_slots(self, begin_ns: Integers, end_ns: Integers) -> Reals:
        """The total overlap of the intervals with each slot, in ns."""
        _, slot, overlap = self.spread(begin_ns, end_ns)
        return sum_by(slot, overlap, self.slot_count)

    def sum_blocks(self, per_slot: Reals) -> Reals:
        """The sums per block of what is told per slot."""
        block = np.arange(self.slot_count) // SLOTS_PER_BLOCK
        return sum_by(block, per_slot, self.block_count)

    def spread_counts(self, begin_ns: Integers, end_ns: Integers, count: Reals) -> Reals:
        """Counts per slot, each spread evenly over its interval (at least 1 ns long)."""
        end_ns = np.maximum(end_ns, begin_ns + 1)
        index, slot, overlap = self.spread(begin_ns, end_ns)
        share = overlap / (end_ns - begin_ns)[index]
        return sum_by(slot, share * count[index], self.slot_count)


@dataclass(frozen=True)
class Aligned:
    """A capture with its axis, and its tables by name."""

    capture: Capture
    axis: Axis

    @property
    def header(self) -> Header:
        """The capture's header."""
        return self.capture.header

    @property
    def service_pids(self) -> frozenset[int]:
        """The processes of the service as they were when the window began."""
        return frozenset(process.pid for process in self.header.target.processes)

    def table(self, name: str) -> Frame:
        """A table of the capture; absent tables have no rows."""
        return read_frame(self.capture, name)

    def has(self, need: str) -> bool:
        """Tells whether a metric, a table or a `table.column` was recorded, with rows."""
        table, _, column = need.partition(".")
        recorded = self.capture.tables.get(table)
        if recorded is not None:
            names = {column.name for column in recorded.columns}
            return recorded.row_count > 0 and (not column or column in names)
        return need in self._metrics

    @cached_property
    def _metrics(self) -> frozenset[str]:
        return frozenset(self.table("series").text("metric"))

    def counter_delta(self, metric: str, labels: str | None = None) -> float | None:
        """How much a counter grew in the window, summed over its label sets; None if not read."""
        series = self.table("series")
        chosen = [
            (label, time, value)
            for name, label, time, value in zip(
                series.text("metric"),
                series.text("labels"),
                series.integers("t_ns"),
                series.reals("value"),
                strict=True,
            )
            if name == metric and (labels is None or label == labels)
        ]
        if not chosen:
            return None
        ends: dict[str, tuple[float, float]] = {}
        for label, _, value in sorted(chosen, key=lambda row: row[1]):
            first = ends.get(label, (float(value), 0.0))[0]
            ends[label] = (first, float(value))
        return sum(max(0.0, last - first) for first, last in ends.values())


def align(capture: Capture) -> Aligned:
    """Lays a capture on its axis; a window of absurd length is cut to the slot limit."""
    clock = capture.header.clock
    end_ns = min(max(clock.end_ns, clock.start_ns + 1), clock.start_ns + SLOT_COUNT_LIMIT * SLOT_NS)
    return Aligned(capture, Axis(clock.start_ns, end_ns))
