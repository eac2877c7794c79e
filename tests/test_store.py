"""Saved runs: whole or not at all, under a name of their own, up to a size."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from capture_values import make_header
from msgspec.structs import replace

from perfkit.codec import MAGIC
from perfkit.errors import RunError
from perfkit.model import Header
from perfkit.store import runs
from perfkit.store.files import DRAFT_PREFIX, read_file, write_file

RAW = MAGIC + b"x" * 1000


def header(host: str = "host-1", pid: int = 4821, utc_s: int = 1_795_403_560) -> Header:
    """A header of which only the parts of an id matter."""
    base = make_header()
    clock = replace(base.clock, start_utc_ns=utc_s * 1_000_000_000)
    return replace(base, host=host, clock=clock, target=replace(base.target, main_pid=pid))


def save(folder: Path, raw: bytes = RAW, **names: object) -> str:
    """Saves a run whose time lies after that of all saved before."""
    run_id = runs.save_run(raw, header(**names), folder)  # type: ignore[arg-type]
    now_ns = time.time_ns()
    os.utime(folder / f"{run_id}.capture", ns=(now_ns, now_ns))
    return run_id


def left_over(folder: Path) -> list[str]:
    """Drafts that lie about."""
    return [path.name for path in folder.glob(f"{DRAFT_PREFIX}*")]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("host", "20261123-031240-host-4821"),
        ("Web-7.Example.com", "20261123-031240-web-7-example-com-4821"),
        ("../../etc/x", "20261123-031240-etc-x-4821"),
        ("\x1b[31m\n", "20261123-031240-31m-4821"),
        ("", "20261123-031240-host-4821"),
        ("x" * 99, f"20261123-031240-{'x' * 24}-4821"),
    ],
)
def test_id_tells_time_host_and_pid(host: str, expected: str) -> None:
    """An id can be read, typed and used as a file's name, whatever the host is called."""
    assert runs.name_run(header(host, utc_s=1_795_403_560)) == expected


@pytest.mark.parametrize("utc_s", [-5, 1 << 62])
def test_id_of_an_absurd_clock_is_still_an_id(utc_s: int) -> None:
    """A host whose clock is wrong can save its runs too."""
    run_id = runs.name_run(header(utc_s=utc_s))

    assert run_id.endswith("-host-1-4821")


def test_saved_run_is_read_again(tmp_path: Path) -> None:
    """What is read by id is what was saved."""
    run_id = save(tmp_path)

    assert runs.read_run(run_id, tmp_path) == (run_id, RAW)


def test_runs_are_private(tmp_path: Path) -> None:
    """Command lines and host names may hold secrets, so that only their owner reads runs."""
    folder = tmp_path / "state" / "runs"
    run_id = runs.save_run(RAW, header(), folder)

    modes = [path.stat().st_mode & 0o777 for path in (folder, folder / f"{run_id}.capture")]
    assert modes == [0o700, 0o600]


def test_same_second_same_pid_gives_another_id(tmp_path: Path) -> None:
    """Two runs that ask for one name both stay."""
    ids = [save(tmp_path) for _ in range(3)]

    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]


def _save_many(folder: str) -> None:
    for _ in range(10):
        runs.save_run(RAW, header(), Path(folder))


def test_many_perfkits_at_once_lose_nothing(tmp_path: Path) -> None:
    """Several processes that save at the same time under the same name all keep their runs."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_save_many, args=(str(tmp_path),)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    sizes = [run.size_bytes for run in runs.list_runs(tmp_path)]
    assert sizes == [len(RAW)] * 40
    assert left_over(tmp_path) == []
    _stop_resource_tracker()


def _stop_resource_tracker() -> None:
    """The helper process that multiprocessing leaves running for the interpreter's lifetime."""
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def test_last_is_the_run_saved_last(tmp_path: Path) -> None:
    """`last` goes by when a run was saved, whatever its host's clock said."""
    save(tmp_path, utc_s=1_900_000_000)
    newest = save(tmp_path, utc_s=1_000_000_000)

    assert runs.find_run("last", tmp_path).id == newest


def test_prefix_names_a_run(tmp_path: Path) -> None:
    """As much of an id as is unique is enough."""
    first = save(tmp_path, pid=1)
    save(tmp_path, utc_s=1_795_500_000)

    assert runs.find_run("20261123-0", tmp_path).id == first


def test_ambiguous_prefix_is_refused(tmp_path: Path) -> None:
    """A prefix of several runs names none."""
    save(tmp_path, pid=1)
    save(tmp_path, pid=2)

    with pytest.raises(RunError, match="2 runs begin with '2026'"):
        runs.find_run("2026", tmp_path)


def test_whole_id_wins_over_prefix(tmp_path: Path) -> None:
    """An id that begins another one still names its own run."""
    first = save(tmp_path)
    save(tmp_path)

    assert runs.find_run(first, tmp_path).id == first


@pytest.mark.parametrize("name", ["", "nothing", "../x"])
def test_unknown_run_is_refused(tmp_path: Path, name: str) -> None:
    """A name that no run has is an error with a way on."""
    save(tmp_path)

    with pytest.raises(RunError) as caught:
        runs.find_run(name, tmp_path)

    assert caught.value.fix == "perfkit runs"


def test_no_runs_is_said(tmp_path: Path) -> None:
    """An empty store says how to fill it."""
    with pytest.raises(RunError) as caught:
        runs.find_run("last", tmp_path / "absent")

    assert caught.value.fix == "perfkit diagnose ."


def test_file_is_read_by_path(tmp_path: Path) -> None:
    """A capture's file needs no store."""
    path = tmp_path / "some.capture"
    path.write_bytes(RAW)

    assert runs.read_run(str(path), tmp_path / "absent") == (str(path), RAW)


def test_oldest_run_makes_room(tmp_path: Path) -> None:
    """The store stays under its size by letting the oldest go first."""
    ids = [save(tmp_path, pid=pid) for pid in range(5)]

    kept = runs.save_run(RAW, header(pid=9), tmp_path, limit_bytes=3 * len(RAW))

    assert sorted(run.id for run in runs.list_runs(tmp_path)) == sorted([*ids[-2:], kept])


def test_pinned_run_stays(tmp_path: Path) -> None:
    """A pinned run does not make room, however old."""
    pinned = save(tmp_path, pid=1)
    runs.pin_run(runs.find_run(pinned, tmp_path), pinned=True)
    save(tmp_path, pid=2)

    kept = runs.save_run(RAW, header(pid=3), tmp_path, limit_bytes=len(RAW))

    assert sorted(run.id for run in runs.list_runs(tmp_path)) == sorted([pinned, kept])


def test_unpinned_run_goes_again(tmp_path: Path) -> None:
    """Unpinning undoes pinning."""
    once = save(tmp_path, pid=1)
    runs.pin_run(runs.find_run(once, tmp_path), pinned=True)
    runs.pin_run(runs.find_run(once, tmp_path), pinned=False)

    kept = runs.save_run(RAW, header(pid=3), tmp_path, limit_bytes=len(RAW))

    assert [run.id for run in runs.list_runs(tmp_path)] == [kept]


def test_run_larger_than_the_store_is_kept(tmp_path: Path) -> None:
    """What was just measured is never thrown away for room."""
    kept = runs.save_run(RAW, header(), tmp_path, limit_bytes=1)

    assert [run.id for run in runs.list_runs(tmp_path)] == [kept]


def test_deleted_run_is_gone_with_its_pin(tmp_path: Path) -> None:
    """Deleting leaves nothing behind."""
    run = runs.find_run(save(tmp_path), tmp_path)
    runs.pin_run(run, pinned=True)

    runs.delete_run(run)

    assert list(tmp_path.iterdir()) == []


def test_draft_of_a_killed_perfkit_is_removed(tmp_path: Path) -> None:
    """A draft that is an hour old belongs to nobody; a fresh one may be another perfkit's."""
    stale, fresh = tmp_path / f"{DRAFT_PREFIX}1-a", tmp_path / f"{DRAFT_PREFIX}2-b"
    stale.touch()
    fresh.touch()
    os.utime(stale, (1, 1))

    save(tmp_path)

    assert left_over(tmp_path) == [fresh.name]


def test_file_system_without_links_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hard links do not exist a run is saved all the same, and nothing is overwritten."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    ids = [save(tmp_path), save(tmp_path)]

    assert [read_file(tmp_path / f"{one}.capture") for one in ids] == [RAW, RAW]
    assert left_over(tmp_path) == []


@pytest.fixture
def full_disk(tmp_path: Path, needs_root: None) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_said_and_leaves_nothing(full_disk: Path) -> None:
    """A run that does not fit is an error that says so, and no part of it stays."""
    with pytest.raises(RunError, match="no space left on device"):
        runs.save_run(MAGIC + bytes(1 << 20), header(), full_disk)

    assert list(full_disk.iterdir()) == []


@contextlib.contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Limits what this process may write, as `ulimit -f` does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_file_limit_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """A run over the user's file limit is an error that says so, and no part of it stays."""
    with largest_file(4096), pytest.raises(RunError, match="file too large"):
        runs.save_run(MAGIC + bytes(1 << 16), header(), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    """A state folder that cannot be made is an error with a way on."""
    (tmp_path / "state").write_text("in the way")

    with pytest.raises(RunError) as caught:
        runs.save_run(RAW, header(), tmp_path / "state" / "runs")

    assert "XDG_STATE_HOME" in caught.value.fix


@pytest.mark.parametrize(
    ("state_home", "expected"),
    [("/srv/state", "/srv/state/perfkit/runs"), ("relative", "HOME/.local/state/perfkit/runs")],
)
def test_state_folder_is_xdgs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_home: str, expected: str
) -> None:
    """XDG_STATE_HOME is heeded where it is an absolute path, as its specification says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", state_home)

    assert str(runs.find_folder()) == expected.replace("HOME", str(tmp_path))


def test_written_file_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """An export that fails half-way leaves the old file as it was."""
    path = tmp_path / "report.md"
    path.write_text("old")

    with largest_file(100), pytest.raises(RunError):
        write_file(bytes(1000), path)

    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["report.md"]


def test_file_is_written_through_a_link(tmp_path: Path) -> None:
    """A link to the place where exports go stays a link."""
    (tmp_path / "link").symlink_to(tmp_path / "real")

    write_file(b"x", tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


def test_device_without_end_is_not_read(tmp_path: Path) -> None:
    """What does not begin like a capture is read no further."""
    raw = read_file(Path("/dev/zero"))

    assert len(raw) == len(MAGIC)


def test_folder_as_a_run_is_said(tmp_path: Path) -> None:
    """Naming a folder is an error in words."""
    with pytest.raises(RunError, match="is a directory"):
        runs.read_run(f"{tmp_path}/", tmp_path)
