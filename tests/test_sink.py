"""What a collector yields is packed within limits, and every loss is counted."""

from __future__ import annotations

from array import array

import pytest
from capture_values import make_header, to_rows

from perfkit import codec
from perfkit.agent import sink
from perfkit.agent.sink import Sink, merge
from perfkit.model import (
    Capture,
    Collector,
    Column,
    ColumnType,
    Item,
    Kind,
    Metric,
    Reading,
    Row,
    Rows,
    TableSchema,
    polled,
)

METRIC = Metric("load_ratio", Kind.GAUGE, "ratio", "test", "Test.", labels=("cpu", "mode"))
NAMES = TableSchema("names", (Column("pid"), Column("name", "", ColumnType.TEXT)), "test", "Test.")
PAIRS = TableSchema("pairs", (Column("a"), Column("b", "", ColumnType.REAL)), "test", "Test.")


def make_sink(seconds: float = 10.0) -> Sink:
    """A sink for the metric and tables above."""
    collector = Collector(
        "test", (METRIC,), (NAMES, PAIRS), "host", 1.0, 0.1, polled(lambda host, target: ())
    )
    return Sink(collector, seconds)


def to_capture(*sinks: Sink) -> Capture:
    """The capture that these sinks make, by way of its bytes."""
    tables, strings = merge(sinks)
    return codec.decode(codec.encode(Capture(make_header(), tables, strings)))


def test_items_become_rows_of_their_tables() -> None:
    """Readings go to the series, rows and packed rows to their tables, text into one table."""
    one, other = make_sink(), make_sink()
    one.take([Reading("load_ratio", ("0", "a,b"), 0.5), Row("names", (7, "x"))], t_ns=3)
    other.take([Row("names", (8, "y")), Row("names", (9, "x")), Row("pairs", (1, 2.5))], t_ns=4)

    capture = to_capture(one, other)

    assert to_rows(capture, "series") == [
        {"metric": "load_ratio", "labels": "0,a\\,b", "t_ns": 3, "value": 0.5}
    ]
    assert to_rows(capture, "names") == [
        {"pid": 7, "name": "x"},
        {"pid": 8, "name": "y"},
        {"pid": 9, "name": "x"},
    ]
    assert to_rows(capture, "pairs") == [{"a": 1, "b": 2.5}]
    assert len(capture.strings) == len(set(capture.strings))


def test_declared_tables_are_there_without_rows() -> None:
    """A table that was read and held nothing differs from one that was not read at all."""
    capture = to_capture(make_sink())

    assert {name: table.row_count for name, table in capture.tables.items()} == {
        "names": 0,
        "pairs": 0,
        "series": 0,
    }


@pytest.mark.parametrize(
    "item",
    [
        Reading("unknown", (), 1.0),
        Reading("load_ratio", ("0",), 1.0),
        Row("unknown", (1,)),
        Row("names", (1,)),
        Rows("unknown", (), 0),
        Rows("pairs", (bytes(8),), 1),
        Rows("pairs", (bytes(8), bytes(7)), 1),
        Rows("pairs", (bytes(16), bytes(16)), 1),
        Rows("names", (bytes(8), bytes(8)), 1),
        Rows("names", (bytes(8), array("q", [1]).tobytes()), 1, texts=("a",)),
        Rows("names", (bytes(8), array("q", [-1]).tobytes()), 1, texts=("a",)),
    ],
)
def test_items_that_were_not_declared_are_refused(item: Item) -> None:
    """A collector that breaks its own declaration is a failure of that collector."""
    with pytest.raises(ValueError, match=r"declared|do not fit"):
        make_sink().take([item], t_ns=1)


@pytest.mark.parametrize("values", [(2**63, "x"), (1.5, "x"), ("1", "x")])
def test_values_that_do_not_fit_leave_no_half_row(values: tuple[int, str]) -> None:
    """A value that its column cannot hold leaves all columns equally long."""
    one = make_sink()

    with pytest.raises((OverflowError, TypeError)):
        one.take([Row("names", (1, "a")), Row("names", values)], t_ns=1)

    assert to_rows(to_capture(one), "names") == [{"pid": 1, "name": "a"}]


def test_rows_over_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full table takes what there is room for and counts the rest, row by row or packed."""
    monkeypatch.setattr(sink, "TABLE_LIMIT_BYTES_PER_WINDOW", 16 * 3)
    one = make_sink()
    one.take([Row("pairs", (1, 1.0))], t_ns=1)
    columns = array("q", range(5)).tobytes(), array("d", range(5)).tobytes()

    one.take([Rows("pairs", columns, 5, dropped_count=7), Row("pairs", (2, 2.0))], t_ns=1)

    table = to_capture(one).tables["pairs"]
    assert (table.row_count, table.dropped_count) == (3, 7 + 3 + 1)
    assert one.dropped_count == 11


def test_packed_rows_may_hold_text() -> None:
    """A packed text column holds places among the texts that come with it."""
    one = make_sink()
    one.take([Row("names", (1, "b"))], t_ns=1)
    columns = array("q", [2, 3, 4]).tobytes(), array("q", [1, 0, 1]).tobytes()

    one.take([Rows("names", columns, 3, texts=("a", "b"))], t_ns=1)

    rows = to_rows(to_capture(one), "names")
    assert [row["name"] for row in rows] == ["b", "b", "a", "b"]


def test_drops_can_be_told_without_rows() -> None:
    """A source that lost rows says so with a batch that holds none."""
    one = make_sink()

    one.take([Rows("names", (), 0, dropped_count=5)], t_ns=1)

    assert to_capture(one).tables["names"].dropped_count == 5


def test_label_sets_and_readings_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its label sets, or its readings in a poll, a collector loses readings, counted."""
    monkeypatch.setattr(sink, "LABEL_SET_LIMIT", 2)
    monkeypatch.setattr(sink, "READINGS_PER_POLL_LIMIT", 4)
    one = make_sink()

    one.take([Reading("load_ratio", (cpu, "x"), 1.0) for cpu in "0120120"], t_ns=1)

    table = to_capture(one).tables["series"]
    assert (table.row_count, table.dropped_count) == (3, 4)


def test_strings_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the table of strings is full, rows with new text are lost and counted."""
    monkeypatch.setattr(sink, "STRING_LIMIT", 2)
    one = make_sink()

    one.take([Row("names", (1, name)) for name in "abcab"], t_ns=1)

    table = to_capture(one).tables["names"]
    assert (table.row_count, table.dropped_count) == (4, 1)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\x1b[31m\n\0", "a\x1b[31m\n\0"),
        ("\udcff", "\\udcff"),
        ("x" * 5000, "x" * 4096),
        ("é" * 3000, "é" * 2048),
        ("a" + "é" * 3000, "a" + "é" * 2047),
    ],
)
def test_text_is_kept_as_it_is_but_cut(text: str, kept: str) -> None:
    """Control characters are facts; what UTF-8 cannot hold is escaped; 4 KB is the limit."""
    one = make_sink()

    one.take([Row("names", (1, text))], t_ns=1)

    assert to_rows(to_capture(one), "names")[0]["name"] == kept


def test_sealed_sink_takes_nothing() -> None:
    """What comes after the seal changes nothing, so packing needs no further lock."""
    one = make_sink()
    one.take([Row("names", (1, "a"))], t_ns=1)
    one.seal()

    one.take([Row("names", (2, "b"))], t_ns=2)

    assert to_capture(one).tables["names"].row_count == 1


def test_longer_windows_may_hold_more() -> None:
    """The size of a table grows with the window up to a fixed end."""
    sizes = [sink.to_limit_bytes(seconds) >> 20 for seconds in (1.0, 10.0, 60.0, 3600.0)]

    assert sizes == [16, 16, 96, 128]
