"""What must not change a diagnosis: when and where it was recorded, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import json, structs
from test_rules import CAPTURES, diagnose, read

from perfkit import codec
from perfkit.analysis import analyse
from perfkit.findings import Report
from perfkit.model import Capture, Table

SHIFT_NS = 987_654_321_000


def _findings(report: Report) -> bytes:
    """The part of a report that comes from the evidence."""
    return json.encode(
        [report.verdict, report.causes, report.ruled_out, report.not_checked, report.budget]
    )


def _map_tables(capture: Capture, change: object) -> Capture:
    assert callable(change)
    tables = {name: change(table) for name, table in capture.tables.items()}
    return structs.replace(capture, tables=tables)


def _shift(table: Table) -> Table:
    """Adds a constant to every instant of a table."""
    packed = tuple(
        (np.frombuffer(raw, "<i8") + SHIFT_NS).astype("<i8").tobytes()
        if column.name in ("t_ns", "start_ns", "begin_ns", "end_ns", "moved_ns", "first_seen_ns")
        else raw
        for column, raw in zip(table.columns, table.packed, strict=True)
    )
    return structs.replace(table, packed=packed)


def _reverse(table: Table) -> Table:
    """Puts the rows of a table in the opposite order."""
    packed = tuple(
        np.frombuffer(raw, f"V{len(raw) // max(table.row_count, 1)}")[::-1].tobytes()
        if table.row_count
        else raw
        for raw in table.packed
    )
    return structs.replace(table, packed=packed)


@pytest.mark.parametrize("name", CAPTURES)
def test_the_same_bytes_give_the_same_report(name: str) -> None:
    """Re-reading a saved capture gives the findings of the live run, byte for byte."""
    capture = read(name)

    again = codec.decode(codec.encode(capture))

    assert json.encode(analyse(again)) == json.encode(diagnose(name))


@pytest.mark.parametrize("name", CAPTURES)
def test_a_shift_of_all_times_changes_no_finding(name: str) -> None:
    """Monotonic clocks start anywhere: only differences count."""
    capture = read(name)
    clock = capture.header.clock
    moved = structs.replace(
        clock, start_ns=clock.start_ns + SHIFT_NS, end_ns=clock.end_ns + SHIFT_NS
    )
    shifted = structs.replace(
        _map_tables(capture, _shift), header=structs.replace(capture.header, clock=moved)
    )

    assert _findings(analyse(shifted)) == _findings(diagnose(name))


@pytest.mark.parametrize("name", CAPTURES)
def test_another_host_name_changes_no_finding(name: str) -> None:
    """The name of a host is no evidence."""
    capture = read(name)
    renamed = structs.replace(capture, header=structs.replace(capture.header, host="other"))

    assert _findings(analyse(renamed)) == _findings(diagnose(name))


@pytest.mark.parametrize("name", CAPTURES)
def test_the_order_of_rows_changes_no_finding(name: str) -> None:
    """Tables are sets of rows; their own times order them."""
    capture = read(name)

    assert _findings(analyse(_map_tables(capture, _reverse))) == _findings(diagnose(name))
