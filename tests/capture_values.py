"""Builds and reads captures in tests."""

from __future__ import annotations

from array import array

from perfkit.model import (
    Capture,
    Clock,
    Column,
    ColumnType,
    Cost,
    Header,
    Machine,
    Table,
    Target,
)

CODES = {ColumnType.INTEGER: "q", ColumnType.REAL: "d", ColumnType.TEXT: "I"}


def make_header() -> Header:
    """The header of a ten-second window on an example host."""
    return Header(
        schema_version=1,
        perfkit_version="0.0.0",
        host="host-1",
        machine=Machine("Example CPU", 2, "6.1.0", 8 << 30),
        clock=Clock(10, 20, 1_700_000_000_000_000_010, 1_700_000_000_000_000_020),
        target=Target("host", 0, "", "test"),
        requested_s=10.0,
        cost=Cost(1, 2, 3, 4),
    )


def make_capture() -> Capture:
    """A small capture with one table of each type of column."""
    columns = (
        Column("t_ns", "ns"),
        Column("value", "", ColumnType.REAL),
        Column("name", "", ColumnType.TEXT),
    )
    packed = (
        array("q", [1, -2, 3]).tobytes(),
        array("d", [0.5, 1.5, -1.0]).tobytes(),
        array("I", [0, 1, 0]).tobytes(),
    )
    return Capture(make_header(), {"things": Table("things", columns, packed, 3)}, ("a", "b"))


def to_rows(capture: Capture, name: str) -> list[dict[str, int | float | str]]:
    """The rows of one table, by column name."""
    table = capture.tables[name]
    columns = []
    for column, packed in zip(table.columns, table.packed, strict=True):
        values = array(CODES[column.type], packed).tolist()
        is_text = column.type is ColumnType.TEXT
        columns.append([capture.strings[value] for value in values] if is_text else values)
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
