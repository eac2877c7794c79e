"""Takes what one collector yields into packed columns, within limits, and counts what is dropped.

Each collector has a sink of its own, so that one which hangs can be sealed and left behind; `merge`
makes one set of tables and one table of strings of them.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable
from typing import Any

from perfkit.model import (
    Collector,
    Column,
    ColumnType,
    Item,
    Reading,
    Row,
    Rows,
    Table,
    TableSchema,
)

TEXT_LIMIT_BYTES = 4096
READINGS_PER_POLL_LIMIT = 4096
LABEL_SET_LIMIT = 4096
STRING_LIMIT = 200_000
TABLE_LIMIT_BYTES_PER_WINDOW = 16 << 20
TABLE_LIMIT_BYTES = 128 << 20
WINDOW_S = 10.0

SERIES = TableSchema(
    "series",
    (
        Column("metric", type=ColumnType.TEXT),
        Column("labels", type=ColumnType.TEXT, help="values in the metric's order, comma between"),
        Column("t_ns", "ns"),
        Column("value", type=ColumnType.REAL, help="in the metric's unit"),
    ),
    source="the readings of every collector",
    help="One row per reading of a metric.",
)

_CODES = {ColumnType.INTEGER: "q", ColumnType.REAL: "d", ColumnType.TEXT: "I"}


class _Columns:
    """The rows of one table while they are gathered."""

    def __init__(self, schema: TableSchema, limit_bytes: int) -> None:
        self.schema = schema
        self.arrays: list[array[Any]] = [array(_CODES[column.type]) for column in schema.columns]
        self.row_count = 0
        self.dropped_count = 0
        self.row_limit = limit_bytes // sum(a.itemsize for a in self.arrays)

    def admit(self, count: int) -> int:
        """How many of `count` further rows there is room for; the rest is counted as dropped."""
        room = max(0, min(count, self.row_limit - self.row_count))
        self.dropped_count += count - room
        return room

    def append(self, cells: Iterable[Any]) -> None:
        """Adds one row, wholly or, where a cell does not fit its column, not at all."""
        try:
            for column, cell in zip(self.arrays, cells, strict=True):
                column.append(cell)
        except (TypeError, OverflowError):
            for column in self.arrays:
                del column[self.row_count :]
            raise
        self.row_count += 1


class Sink:
    """Everything that one collector has told so far. Its methods may be called by two threads."""

    def __init__(self, collector: Collector, seconds: float) -> None:
        self._lock = threading.Lock()
        self._metrics = {metric.name: len(metric.labels) for metric in collector.metrics}
        limit_bytes = to_limit_bytes(seconds)
        schemas = (*collector.tables, SERIES) if collector.metrics else collector.tables
        self._tables = {schema.name: _Columns(schema, limit_bytes) for schema in schemas}
        self._strings: dict[str, int] = {}
        self._label_sets: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
        self._sealed = False

    def take(self, items: Iterable[Item], t_ns: int) -> None:
        """Adds what a poll yields; readings get the time `t_ns`.

        Raises: whatever the poll raises, and ValueError for items that were never declared.
        """
        reading_count = 0
        for item in items:
            with self._lock:
                if self._sealed:
                    return
                if isinstance(item, Reading):
                    reading_count += 1
                    self._add_reading(item, t_ns, reading_count)
                elif isinstance(item, Row):
                    self._add_row(item.table, item.values)
                else:
                    self._add_rows(item)

    def seal(self) -> None:
        """Ends the taking: whatever comes later is ignored."""
        with self._lock:
            self._sealed = True

    @property
    def dropped_count(self) -> int:
        """The rows and readings that were lost to a limit."""
        return sum(table.dropped_count for table in self._tables.values())

    @property
    def row_count(self) -> int:
        """The rows and readings that were kept."""
        return sum(table.row_count for table in self._tables.values())

    def to_tables(self, strings: dict[str, int]) -> list[Table]:
        """Packs the gathered rows; their text goes into `strings`, shared by all sinks.

        It empties the sink as it goes, so that the rows are never held twice.
        """
        order = array("I", (strings.setdefault(text, len(strings)) for text in self._strings))
        found = []
        for table in self._tables.values():
            packed = []
            for place, column in enumerate(table.schema.columns):
                values, table.arrays[place] = table.arrays[place], array("b")
                if column.type is ColumnType.TEXT:
                    values = array("I", (order[index] for index in values))
                packed.append(values.tobytes())
            name, columns = table.schema.name, table.schema.columns
            found.append(Table(name, columns, tuple(packed), table.row_count, table.dropped_count))
        return found

    def _add_reading(self, reading: Reading, t_ns: int, count: int) -> None:
        key = (reading.metric, reading.labels)
        place = self._label_sets.get(key) or self._admit_label_set(reading)
        series = self._tables[SERIES.name]
        if count > READINGS_PER_POLL_LIMIT or place is None:
            series.dropped_count += 1
        elif series.admit(1):
            series.append((*place, t_ns, float(reading.value)))

    def _admit_label_set(self, reading: Reading) -> tuple[int, int] | None:
        if self._metrics.get(reading.metric) != len(reading.labels):
            raise ValueError(f"metric {reading.metric!r} was not declared with these labels")
        if len(self._label_sets) >= LABEL_SET_LIMIT:
            return None
        labels = ",".join(label.replace(",", "\\,") for label in reading.labels)
        metric_index, labels_index = self._intern(reading.metric), self._intern(labels)
        if metric_index is None or labels_index is None:
            return None
        self._label_sets[reading.metric, reading.labels] = metric_index, labels_index
        return metric_index, labels_index

    def _add_row(self, name: str, values: tuple[int | float | str, ...]) -> None:
        table = self._tables.get(name)
        if table is None or len(values) != len(table.arrays):
            raise ValueError(f"a row of {len(values)} values for table {name!r} was not declared")
        cells = [
            self._intern(value) if column.typecode == "I" else value
            for column, value in zip(table.arrays, values, strict=True)
        ]
        if None in cells:
            table.dropped_count += 1
        elif table.admit(1):
            table.append(cells)

    def _add_rows(self, rows: Rows) -> None:
        table = self._tables.get(rows.table)
        if table is None:
            raise ValueError(f"table {rows.table!r} was not declared")
        table.dropped_count += rows.dropped_count
        if not rows.row_count:
            return
        sizes = {len(column) for column in rows.columns}
        if sizes != {8 * rows.row_count} or len(rows.columns) != len(table.arrays):
            raise ValueError(f"packed rows do not fit the columns of table {rows.table!r}")
        columns = [
            self._to_indexes(rows, column) if array_.typecode == "I" else column
            for array_, column in zip(table.arrays, rows.columns, strict=True)
        ]
        room = table.admit(rows.row_count)
        for array_, column in zip(table.arrays, columns, strict=True):
            array_.frombytes(memoryview(column)[: array_.itemsize * room])
        table.row_count += room

    def _to_indexes(self, rows: Rows, column: bytes) -> bytes:
        """A packed text column as indexes of our strings.

        Raises: ValueError for places that the rows have no text for, or where strings are full.
        """
        places = array("q", column)
        if places and not 0 <= min(places) <= max(places) < len(rows.texts):
            raise ValueError(f"packed rows do not fit the texts given for table {rows.table!r}")
        indexes = [self._intern(text) for text in rows.texts]
        if None in indexes:
            raise ValueError(f"no room for the texts of table {rows.table!r}")
        return array("I", (indexes[place] or 0 for place in places)).tobytes()

    def _intern(self, value: int | float | str) -> int | None:
        index = self._strings.get(value) if isinstance(value, str) else None
        if index is not None:
            return index
        text = cut_text(str(value))
        index = self._strings.get(text)
        if index is None and len(self._strings) < STRING_LIMIT:
            index = self._strings[text] = len(self._strings)
        return index


def cut_text(text: str) -> str:
    """Cuts a text at TEXT_LIMIT_BYTES; what no UTF-8 can hold is written as an escape."""
    raw = text.encode("utf-8", "backslashreplace")
    return raw[:TEXT_LIMIT_BYTES].decode("utf-8", "ignore")


def to_limit_bytes(seconds: float) -> int:
    """How large one table may grow in a window of this length."""
    share = max(1.0, seconds / WINDOW_S)
    return int(min(TABLE_LIMIT_BYTES, TABLE_LIMIT_BYTES_PER_WINDOW * share))


def merge(sinks: Iterable[Sink]) -> tuple[dict[str, Table], tuple[str, ...]]:
    """All tables by name, and the strings that their text columns index."""
    strings: dict[str, int] = {}
    tables: dict[str, Table] = {}
    for sink in sinks:
        for table in sink.to_tables(strings):
            tables[table.name] = _join(tables.get(table.name), table)
    return tables, tuple(strings)


def _join(first: Table | None, second: Table) -> Table:
    if first is None:
        return second
    if first.columns != second.columns:
        raise ValueError(f"two collectors declare table {first.name!r} differently")
    packed = tuple(a + b for a, b in zip(first.packed, second.packed, strict=True))
    rows = first.row_count + second.row_count
    dropped = first.dropped_count + second.dropped_count
    return Table(first.name, first.columns, packed, rows, dropped)
