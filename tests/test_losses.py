"""What samplers could not see is in the report: what, why, and the grant that would show it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from simulate import MS, RUNNING, Step, make_capture, make_table, simulate_rows

from perfkit.analysis import analyse
from perfkit.collectors import _pyframes, _socket_text, sockets, threads
from perfkit.findings import Skip
from perfkit.losses import LOSS_LIMIT, list_losses, to_skip
from perfkit.model import Rate

START_NS = 1_000_000_000
SOCKETS = {
    "closed_error": 1,
    "unowned_count": 0,
    "interval_ns": 1,
    "last_poll_ns": 0,
    "start_ns": 0,
    "full_dump_count": 0,
    "lost_count": 0,
    "refused_count": 0,
    "inode_dropped_count": 0,
    "dump_error_count": 0,
}
FRAMES = dict.fromkeys(
    ("tick_count", "missed_count", "torn_count", "full_count", "over_limit_count", "is_abandoned"),
    0,
)
THREADS = dict.fromkeys(
    ("tick_count", "missed_count", "over_limit_count", "put_off_count", "is_abandoned"), 0
)


def told_by_samplers() -> list[tuple[str, Skip]]:
    """Each loss that a sampler of ours can tell of, with what the report says of it."""
    frames = {**FRAMES, "walk_count": 1, "refused_count": 1}
    calls = {**THREADS, "refused_count": 1}
    return [
        (
            "; ".join(sockets._remarks(SOCKETS, stuck=False)),
            Skip(
                "requests on short connections",
                "not counted: operation not permitted",
                "CAP_NET_ADMIN",
            ),
        ),
        (
            _socket_text.LOST,
            Skip(
                "requests in flight and waits for peers",
                "unknown: from text: no ages and counters",
            ),
        ),
        (
            "; ".join(threads.to_remarks(calls, 0, 0)),
            Skip("system calls of some threads", "refused", "root or CAP_SYS_PTRACE"),
        ),
        (
            "; ".join(threads.to_remarks({**calls, "refused_count": 0}, 0, 3)),
            Skip("descriptors of 3 processes", "refused", "root or CAP_SYS_PTRACE"),
        ),
        (
            "; ".join(_pyframes.to_remarks(frames)),
            Skip("some Python stacks", "refused", _pyframes._GRANT),
        ),
    ]


@pytest.mark.parametrize(("note", "skip"), told_by_samplers())
def test_loss_of_a_sampler_names_what_why_and_grant(note: str, skip: Skip) -> None:
    """Whatever a sampler of ours was refused is worded as the report words it."""
    (remark,) = list_losses(note)

    assert to_skip("it", remark) == skip


@pytest.mark.parametrize(
    "note", ["", "slowed to 65 Hz by a busy host", "the kernel dropped messages 3 times"]
)
def test_slower_is_not_lost(note: str) -> None:
    """What is only seen less often is seen all the same, and stands in the notes."""
    assert list_losses(note) == []


@given(st.text(max_size=300))
def test_any_note_becomes_few_skips(note: str) -> None:
    """A note comes from another host: whatever it holds, it is taken as it is."""
    skips = [to_skip("it", one) for one in list_losses(note + "; x refused (a; b" * 20)]

    assert 0 < len(skips) <= LOSS_LIMIT


def test_lost_right_stands_under_not_checked() -> None:
    """What the missing right hides is in the report, and not only in doctor's."""
    rows = simulate_rows([Step(RUNNING, 2 * MS)] * 2000, tid=1, start_ns=START_NS)
    tables = {"thread_runs": make_table("thread_runs", rows, [])}
    capture = make_capture(tables, start_ns=START_NS, seconds=4.0)
    note, skip = told_by_samplers()[0]
    rates = (Rate("sockets", 20.0, 20.0, 80, 0, note=f"slowed to 9 Hz; {note}"),)

    report = analyse(replace(capture, header=replace(capture.header, rates=rates)))

    assert skip in report.not_checked
