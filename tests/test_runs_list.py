"""The list of saved runs: what each was, and what its report said, without an analysis."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from capture_values import make_capture
from msgspec.structs import replace
from reports import HEALTHY, TIE

from perfkit.cli.main import main
from perfkit.codec import encode
from perfkit.findings import Report
from perfkit.model import Capture, Clock, Target
from perfkit.store import runs
from perfkit.store.verdicts import VERDICT_LIMIT_BYTES, keep_verdict, read_verdict

START_UTC_NS = 1_795_403_560_000_000_000
SECOND_NS = 1_000_000_000
CAPTURES = Path(__file__).parent / "captures"

List = Callable[..., list[str]]


def capture(name: str = "perfkit.demo", host: str = "host-1", pid: int = 4821) -> Capture:
    """A capture of ten seconds of a service."""
    small = make_capture()
    clock = Clock(0, 10 * SECOND_NS, START_UTC_NS, START_UTC_NS + 10 * SECOND_NS)
    target = Target("service", pid, name, "named")
    return replace(small, header=replace(small.header, host=host, clock=clock, target=target))


def save(folder: Path, report: Report | None = None, **names: Any) -> str:
    """Saves a run as `diagnose` does, with its verdict where there is a report."""
    kept = capture(**names)
    raw = encode(kept)
    run = runs.save_run(raw, kept.header, folder)
    if report is not None:
        keep_verdict(replace(report, run=run), folder, len(raw))
    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs lie, empty at first; local time is two hours ahead of UTC."""
    monkeypatch.setenv("PERFKIT_RUNS_FOLDER", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    yield tmp_path
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def listing(capsys: pytest.CaptureFixture[str]) -> List:
    """The lines of `perfkit runs`."""

    def read(*arguments: str) -> list[str]:
        assert main(["runs", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return read


def test_run_is_listed_with_what_an_engineer_looks_for(folder: Path, listing: List) -> None:
    """When in local time, host, length, size, service, and the first cause with its culprit."""
    run = save(folder, TIE)

    assert [" ".join(line.split()) for line in listing()] == [
        f"{run} 2026-11-23 05:12 host-1 10.0 s {(folder / f'{run}.capture').stat().st_size} B",
        "perfkit.demo (4821) CRIT downstream_slow: 127.0.0.1:40123",
    ]


def test_verdict_without_a_cause_is_listed(folder: Path, listing: List) -> None:
    """A run in which nothing was found says so."""
    save(folder, HEALTHY)

    assert listing()[1].endswith(f"healthy: {HEALTHY.verdict.text}")


def test_run_that_was_never_judged_says_so(folder: Path, listing: List) -> None:
    """A run of `record` is listed, without a verdict that nobody gave."""
    save(folder)

    assert listing()[1] == "  perfkit.demo (4821)  not judged yet (perfkit report)"


def test_report_of_a_run_is_its_verdict_from_then_on(folder: Path, listing: List) -> None:
    """Whoever reads a run again has it judged in the list, too."""
    shutil.copy(CAPTURES / "cpu_throttled.fires.threads.perfkit", folder / "a.capture")

    before = listing()[1]
    main(["report", "a"])

    assert before.endswith("not judged yet (perfkit report)")
    assert " cpu_throttled: /" in listing()[-1]


def test_what_only_one_reader_asked_is_not_kept(folder: Path, listing: List) -> None:
    """A report with --slow says what its reader claims, and not what the run came to."""
    shutil.copy(CAPTURES / "cpu_throttled.fires.threads.perfkit", folder / "a.capture")

    main(["report", "a", "--slow"])

    assert listing()[-1].endswith("not judged yet (perfkit report)")


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"state":"cause"}', b"[" * VERDICT_LIMIT_BYTES, b"\xff"]
)
def test_damaged_verdict_counts_as_none(folder: Path, listing: List, content: bytes) -> None:
    """Whatever lies in a verdict's place, the run is listed."""
    run = save(folder)
    (folder / f"{run}.verdict").write_bytes(content)

    assert listing()[1].endswith("not judged yet (perfkit report)")


def test_verdict_of_another_capture_counts_as_none(folder: Path) -> None:
    """What an older perfkit left behind of a deleted run is not said of its successor."""
    run = save(folder, HEALTHY)
    with (folder / f"{run}.capture").open("ab") as file:
        file.write(b"x")

    assert read_verdict(runs.find_run(run, folder)) is None


def test_verdict_that_is_a_pipe_is_not_waited_for(folder: Path, listing: List) -> None:
    """A FIFO in a verdict's place does not hang the list."""
    run = save(folder)
    os.mkfifo(folder / f"{run}.verdict")

    assert len(listing()) == 2


def test_verdict_is_private_and_goes_with_its_run(folder: Path) -> None:
    """Only the owner reads what was said of a run, and deleting leaves nothing of it."""
    run = save(folder, HEALTHY)
    mode = (folder / f"{run}.verdict").stat().st_mode & 0o777

    runs.delete_run(runs.find_run(run, folder))

    assert mode == 0o600
    assert list(folder.iterdir()) == []


def test_verdict_that_cannot_be_kept_costs_nothing(tmp_path: Path) -> None:
    """Without room beside the run, the report comes all the same."""
    run = save(tmp_path)
    (tmp_path / f"{run}.verdict").mkdir()

    keep_verdict(replace(HEALTHY, run=run), tmp_path, 1)

    assert read_verdict(runs.find_run(run, tmp_path)) is None


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not a perfkit capture"),
        (b"PERFKIT\n", "not a perfkit capture"),
        (b"rubbish" * 99, "not a perfkit capture"),
        (encode(make_capture())[:-1], "damaged or truncated capture: "),
        (encode(make_capture())[:100], "damaged or truncated capture: "),
        (encode(make_capture()) + b"x", "damaged or truncated capture: "),
    ],
)
def test_run_that_cannot_be_read_is_listed_as_such(
    folder: Path, listing: List, raw: bytes, told: str
) -> None:
    """A damaged run is named with what is wrong, and the others are listed as ever."""
    fine = save(folder)
    (folder / "broken.capture").write_bytes(raw)

    lines = listing()

    where = next(place for place, line in enumerate(lines) if line.startswith("broken"))
    assert lines[where + 1].startswith(f"  cannot be read: {told}")
    assert any(line.startswith(fine) for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_list_is_never_wider_than_the_terminal(
    folder: Path, listing: List, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Long names are cut; only an id, which is pasted, is never broken."""
    monkeypatch.setenv("COLUMNS", str(width))
    save(folder, TIE, name="n" * 200, host="h" * 200)

    lines = [line for line in listing() if " " in line]

    assert [line for line in lines if len(line) > width] == []


def test_least_needed_gives_way_first(
    folder: Path, listing: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a narrow screen host and size go, and when it was stays."""
    monkeypatch.setenv("COLUMNS", "50")
    run = save(folder, host="shard-17")

    assert listing()[0] == f"{run}  2026-11-23 05:12"


def test_name_of_a_service_cannot_steer_the_terminal(folder: Path, listing: List) -> None:
    """Text from the host is escaped in the list."""
    save(folder, name="\x1b[31m\n\u202e", host="\x1b]0;x")

    assert "\x1b" not in "".join(listing())
    assert len(listing()) == 2


def test_list_as_json_is_for_programs(folder: Path, listing: List) -> None:
    """All that the list says, and whole ids and times, in one document."""
    run = save(folder, TIE)
    (folder / "broken.capture").write_bytes(b"")

    document = json.loads("".join(listing("--json")))

    kept = {one["id"]: one for one in document["runs"]}
    assert document["schema"] == "perfkit.runs/1"
    assert kept[run]["start"] == "2026-11-23T03:12:40Z"
    assert kept[run]["target"] == {"kind": "service", "name": "perfkit.demo", "pid": 4821}
    assert kept[run]["verdict"]["culprit"] == "127.0.0.1:40123"
    assert kept["broken"]["problem"].startswith("not a perfkit capture")
    assert kept["broken"]["verdict"] is None


def test_long_list_is_cut_and_counted(folder: Path, listing: List) -> None:
    """The newest are listed, the others are counted, and --all lists them too."""
    raw = encode(capture())
    for number in range(53):
        (folder / f"run-{number:02}.capture").write_bytes(raw)

    assert listing()[-1] == "and 3 older (perfkit runs --all)"
    assert len(listing("--all")) == 2 * 53


def test_show_tells_the_verdict(folder: Path, listing: List) -> None:
    """One run is shown with what was said of it."""
    run = save(folder, HEALTHY)

    assert f"verdict         healthy: {HEALTHY.verdict.text}" in listing("show", run)
