"""The loop: one schedule, and no collector can spoil the window for the others."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from capture_values import to_rows

from perfkit import codec
from perfkit.agent import loop
from perfkit.agent.loop import Progress, Recording
from perfkit.agent.sink import SERIES
from perfkit.collectors import cpu, pressure
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import (
    Capture,
    Collector,
    Column,
    ColumnType,
    Item,
    Kind,
    Metric,
    Rate,
    Reading,
    Row,
    Rows,
    Session,
    Status,
    TableSchema,
    Target,
    polled,
)

HOST_TARGET = Target("host", 0, "", "test")
BEATS = Metric("beats_total", Kind.COUNTER, "", source="test", help="Polls so far.")
THINGS = TableSchema("things", (Column("t_ns", "ns"), Column("size")), source="test", help="Two.")
Open = Callable[[Host, Target], Session]


def make_collector(open_session: Open, interval_s: float = 0.1, name: str = "test") -> Collector:
    """A collector of beats and things around a session."""
    return Collector(name, (BEATS,), (THINGS,), "host", interval_s, 0.05, open_session)


def reader(read: Callable[[], Iterable[Item]]) -> Open:
    """An `open` around a read without arguments."""
    return polled(lambda host, target: read())


def run(
    collectors: Iterable[Collector],
    seconds: float = 0.5,
    host: Host | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Recording:
    """One window over the host."""
    return loop.run(
        host or Host(),
        HOST_TARGET,
        collectors,
        seconds,
        stop=stop or threading.Event(),
        progress=progress,
    )


def to_capture_rows(recording: Recording, name: str) -> list[dict[str, int | float | str]]:
    """The rows of one table of a recording."""
    from capture_values import make_header

    return to_rows(Capture(make_header(), recording.tables, recording.strings), name)


def beat() -> Iterator[Item]:
    """One reading."""
    yield Reading(BEATS.name, (), 1.0)


def test_loop_keeps_its_cadence() -> None:
    """Polls come at their interval with jitter, at the start and at the end of the window."""
    recording = run([make_collector(reader(beat))], seconds=1.0)

    times = [row["t_ns"] - recording.clock.start_ns for row in to_capture_rows(recording, "series")]
    planned = list(enumerate(times))[1:-1]
    assert 9 <= recording.statuses[0].poll_count <= 12
    assert times[0] < 20e6
    assert times[-1] >= 0.9e9
    assert max(abs(time_ns - place * 1e8) for place, time_ns in planned) < 50e6
    assert len({round(time_ns % 1e8 / 1e6) for _, time_ns in planned}) > 3


@pytest.mark.parametrize(
    ("problem", "state", "reason", "grant"),
    [
        (Unavailable("no such file", grant="root"), "unavailable", "no such file", "root"),
        (ValueError("bad\nnumber"), "failed", "ValueError: bad\nnumber", ""),
        (RuntimeError("x" * 9000), "failed", "RuntimeError: " + "x" * 486, ""),
    ],
)
@pytest.mark.parametrize("place", ["open", "poll", "close"])
def test_loop_turns_problems_into_statuses(
    place: str, problem: Exception, state: str, reason: str, grant: str
) -> None:
    """Whatever a collector raises, wherever it does, is its status; the others go on."""
    broken = make_collector(make_breaking(place, problem))
    sound = Collector("sound", (BEATS,), (), "host", 0.1, 0.05, reader(beat))

    recording = run([broken, sound], seconds=0.2)

    by_name = {status.collector: status for status in recording.statuses}
    found = by_name["test"]
    assert (found.state, found.reason, found.grant) == (state, reason, grant)
    assert by_name["sound"].state == "ok"
    assert by_name["sound"].poll_count >= 2


def make_breaking(place: str, problem: Exception) -> Open:
    """An `open` whose session raises at one place."""

    def check(here: str) -> tuple[()]:
        if here == place:
            raise problem
        return ()

    class Breaking:
        def __init__(self, host: Host, target: Target) -> None:
            check("open")

        def poll(self) -> Iterable[Item]:
            return check("poll")

        def close(self) -> Iterable[Item]:
            return check("close")

    return Breaking


def test_loop_keeps_what_came_before_a_problem() -> None:
    """Readings of good polls stay when later ones fail, and the misses are counted."""
    turns = iter(range(1000))

    def read() -> Iterator[Item]:
        yield from beat()
        if next(turns) >= 2:
            raise OSError("gone")

    recording = run([make_collector(reader(read))])

    status = recording.statuses[0]
    assert (status.state, status.reason, status.poll_count) == ("failed", "OSError: gone", 2)
    assert status.missed_count >= 2
    assert recording.tables["series"].row_count >= 4


def test_source_that_answers_at_times_is_not_missing() -> None:
    """A source that was refused now and then is ok, with the reason and the polls it missed."""
    turns = iter(range(1000))

    def read() -> Iterator[Item]:
        if next(turns) % 2:
            raise Unavailable("gone for a moment")
        yield from beat()

    status = run([make_collector(reader(read))]).statuses[0]

    assert (status.state, status.reason) == ("ok", "gone for a moment")
    assert status.missed_count >= 2


@pytest.mark.parametrize("named", ["loadavg", "stat"])
def test_read_that_blocks_costs_its_own_collector_only(tmp_path: Path, named: str) -> None:
    """A file of /proc that never answers fails one collector and delays the end by no second."""
    (tmp_path / "pressure").mkdir()
    for name in ("cpu", "memory", "io"):
        (tmp_path / f"pressure/{name}").write_text("some avg10=0 total=1\n")
    (tmp_path / "stat").write_text("ctxt 5\n")
    (tmp_path / named).unlink(missing_ok=True)
    os.mkfifo(tmp_path / named)
    told: list[Progress] = []

    begin = time.monotonic()
    collectors = [cpu.COLLECTOR, pressure.COLLECTOR]
    recording = run(collectors, 1.5, Host(tmp_path, tmp_path), progress=told.append)
    elapsed_s = time.monotonic() - begin
    os.close(os.open(tmp_path / named, os.O_WRONLY | os.O_NONBLOCK))

    blocked, sound = recording.statuses
    assert elapsed_s < 2.5
    assert (blocked.collector, blocked.state) == ("cpu", "failed")
    assert blocked.reason.startswith("did not answer within ")
    assert (sound.collector, sound.state) == ("pressure", "ok")
    assert sound.poll_count >= 2
    assert told[-1].note == "no answer from cpu"


def test_collector_that_hangs_in_open_does_not_delay_the_start() -> None:
    """The window begins without a collector that does not open."""
    release = threading.Event()

    def open_session(host: Host, target: Target) -> Session:
        release.wait()
        raise Unavailable("too late")

    begin = time.monotonic()
    recording = run([make_collector(open_session)], seconds=0.1)
    elapsed_s = time.monotonic() - begin
    release.set()

    assert elapsed_s < loop.OPEN_LIMIT_S + loop.CLOSE_LIMIT_S + 0.3
    assert recording.statuses[0].state == "failed"


def test_rows_after_the_end_are_ignored() -> None:
    """What a late collector tells after the window was packed changes nothing."""
    release = threading.Event()

    def read() -> Iterator[Item]:
        yield from beat()
        release.wait()
        yield from beat()

    recording = run([make_collector(reader(read))], seconds=0.2)
    before = recording.tables["series"].row_count
    release.set()
    time.sleep(0.05)

    assert before == recording.tables["series"].row_count == 1


def test_slow_polls_are_counted_as_missed() -> None:
    """Polls over the time limit, and those that it leaves no time for, are missed ones."""

    def read() -> Iterator[Item]:
        time.sleep(0.25)
        yield from beat()

    status = run([make_collector(reader(read))], seconds=1.0).statuses[0]

    assert 3 <= status.poll_count <= 5
    assert 8 <= status.missed_count <= 14
    assert status.wall_ns > 0.7e9 > status.cpu_ns


def test_stop_ends_the_window_early() -> None:
    """Ctrl-C gives a partial recording that says how long it was."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()

    recording = run([make_collector(reader(beat))], seconds=10.0, stop=stop)

    assert recording.interrupted == "stopped after 0.3 of 10 s"
    assert recording.statuses[0].state == "ok"
    assert 0.25e9 < recording.clock.end_ns - recording.clock.start_ns < 1e9


def test_progress_is_told_from_the_start() -> None:
    """The first word comes as the window opens, then twice a second, the last at its end."""
    told: list[Progress] = []

    run([make_collector(reader(beat))], seconds=1.3, progress=told.append)

    assert [round(one.elapsed_s * 2) / 2 for one in told] == [0.0, 0.5, 1.0, 1.5]
    assert told[-1].ok_count == told[-1].source_count == 1
    assert told[-1].cost_percent < 50


class Rated:
    """A session that knows its rate and has rows left at the end."""

    def __init__(self, host: Host, target: Target) -> None:
        self._closed = False

    def poll(self) -> Iterable[Item]:
        return (Rows("things", (array("q", [1, 2]).tobytes(), array("q", [3, 4]).tobytes()), 2),)

    def close(self) -> Iterable[Item]:
        self._closed = True
        return (Row("things", (9, 9)),)

    def rate(self) -> Rate:
        return Rate("test", 100.0, 50.0, 5, 5, f"closed: {self._closed}")


def test_sessions_give_packed_rows_last_rows_and_a_rate() -> None:
    """Packed rows are appended in order, rows of close come last, the rate is asked for after."""
    recording = run([make_collector(Rated, interval_s=10.0)], seconds=0.1)

    assert to_capture_rows(recording, "things") == [
        {"t_ns": 1, "size": 3},
        {"t_ns": 2, "size": 4},
        {"t_ns": 9, "size": 9},
    ]
    assert recording.rates == (Rate("test", 100.0, 50.0, 5, 5, "closed: True"),)


def test_own_cost_is_measured_between_the_ends() -> None:
    """CPU burnt in polls is in the cost; what was burnt before is start-up."""

    def read() -> Iterator[Item]:
        end_ns = time.thread_time_ns() + 100_000_000
        while time.thread_time_ns() < end_ns:
            pass
        return iter(())

    recording = run([make_collector(reader(read), interval_s=10.0)], seconds=0.5)

    assert 0.09e9 < recording.cost.cpu_ns < 0.4e9
    assert recording.cost.startup_cpu_ns > 0.05e9
    assert recording.cost.memory_peak_bytes > 10 << 20


def test_clock_is_anchored_at_both_ends() -> None:
    """Both ends of the window have their time in UTC, the same distance apart."""
    clock = run([], seconds=0.2).clock

    drift_ns = (clock.end_utc_ns - clock.start_utc_ns) - (clock.end_ns - clock.start_ns)
    assert abs(drift_ns) < 5_000_000
    assert abs(clock.end_utc_ns - time.time_ns()) < 5e9


def test_fifty_busy_sources_still_end_in_time() -> None:
    """With far more to do than a core can carry the window still ends, and misses are counted."""

    def read() -> Iterator[Item]:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        return iter(())

    collectors = [make_collector(reader(read), 0.02, f"busy{place}") for place in range(50)]
    begin = time.monotonic()
    recording = run(collectors, seconds=1.0)

    assert time.monotonic() - begin < 5.0
    assert sum(status.missed_count for status in recording.statuses) > 100


def test_recording_of_nothing_can_be_packed() -> None:
    """A window without any source is a valid capture without tables."""
    from capture_values import make_header

    recording = run([], seconds=0.05)

    capture = Capture(make_header(), recording.tables, recording.strings)
    assert codec.decode(codec.encode(capture)) == capture


def test_series_hold_time_metric_labels_and_value() -> None:
    """The series table has the columns that analysis reads."""
    names = [(column.name, column.type) for column in SERIES.columns]

    assert names == [
        ("metric", ColumnType.TEXT),
        ("labels", ColumnType.TEXT),
        ("t_ns", ColumnType.INTEGER),
        ("value", ColumnType.REAL),
    ]


def test_status_of_a_sound_source_is_plain() -> None:
    """A source that answered every poll is ok, without a reason."""
    status = run([make_collector(reader(beat))], seconds=0.2).statuses[0]

    assert (status.state, status.reason, status.missed_count) == ("ok", "", 0)
    assert isinstance(status, Status)
