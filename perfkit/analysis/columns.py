"""Tables of a capture as numpy columns: the only place where analysis meets packed bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfkit.model import Capture, ColumnType

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]
Masks = NDArray[np.bool_]
# Values beyond this are nonsense; sums and differences of two within it still fit 64 bits.
VALUE_LIMIT = 1 << 61
_DTYPES = {ColumnType.INTEGER: "<i8", ColumnType.REAL: "<f8", ColumnType.TEXT: "<u4"}


def sum_by(index: Integers, values: Reals, count: int) -> Reals:
    """Sums `values` by index; `count` sums, indexes 0..count-1."""
    return np.asarray(np.bincount(index, weights=values, minlength=count), dtype=np.float64)


class Frame:
    """Equally long columns by name; text columns stay indexes until `text` is asked for.

    A column that an older capture lacks reads as -1 everywhere ("not read"), so that a rule that
    needs it must check with `has`.
    """

    def __init__(self, columns: dict[str, Any], strings: Sequence[str], row_count: int) -> None:
        self._columns = columns
        self._strings = strings
        self.row_count = row_count

    def __len__(self) -> int:
        return self.row_count

    def has(self, name: str) -> bool:
        """Tells whether the capture holds this column at all."""
        return name in self._columns

    def integers(self, name: str) -> Integers:
        """An integer column; -1 everywhere when it was not recorded (as such)."""
        column = self._columns.get(name)
        if column is None or column.dtype != np.int64:
            return np.full(self.row_count, -1, dtype=np.int64)
        clipped: Integers = np.clip(column, -VALUE_LIMIT, VALUE_LIMIT)
        return clipped

    def reals(self, name: str) -> Reals:
        """A real column; NaN everywhere when it was not recorded (as such)."""
        column = self._columns.get(name)
        if column is None or column.dtype != np.float64:
            return np.full(self.row_count, np.nan)
        return np.asarray(column, dtype=np.float64)

    def text(self, name: str) -> list[str]:
        """A text column as strings; empty strings when it was not recorded (as such)."""
        column = self._columns.get(name)
        if column is None or column.dtype != np.uint32:
            return [""] * self.row_count
        return [str(self._strings[index]) for index in column]

    def where(self, mask: Masks) -> Frame:
        """The rows for which `mask` holds, in their order."""
        chosen = {name: column[mask] for name, column in self._columns.items()}
        return Frame(chosen, self._strings, int(mask.sum()))

    def take(self, order: Integers) -> Frame:
        """The rows at the given places, in that order."""
        chosen = {name: column[order] for name, column in self._columns.items()}
        return Frame(chosen, self._strings, len(order))

    def sorted_by(self, *names: str) -> Frame:
        """The rows in ascending order of the named columns, the first one slowest; stable."""
        return self.take(np.lexsort([self.integers(name) for name in reversed(names)]))


def read_frame(capture: Capture, table_name: str) -> Frame:
    """A table as a frame; an absent table is a frame without rows."""
    table = capture.tables.get(table_name)
    if table is None:
        return Frame({}, capture.strings, 0)
    columns = {
        column.name: np.frombuffer(packed, dtype=_DTYPES[column.type])
        for column, packed in zip(table.columns, table.packed, strict=True)
    }
    return Frame(columns, capture.strings, table.row_count)
