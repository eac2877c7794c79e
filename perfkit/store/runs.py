"""Runs on disk: captures under the XDG state folder, written whole or not at all, up to a size.

A run is the file `ID.capture`; an empty `ID.pinned` beside it keeps it from being removed for room,
`ID.verdict` is what its report said.
Several perfkits may use the folder at once: names are claimed by `link`, which never overwrites.
"""

from __future__ import annotations

import errno
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from perfkit.config import load_config
from perfkit.errors import RunError
from perfkit.model import Header
from perfkit.store.files import (
    DRAFT_PREFIX,
    STDIN,
    check_filled,
    read_file,
    read_stdin,
    write_draft,
)

STORE_LIMIT_BYTES = 1 << 30
HOST_NAME_LIMIT = 24
NAME_TRY_LIMIT = 100
STALE_S = 3600.0
SUFFIX, PIN_SUFFIX, VERDICT_SUFFIX = ".capture", ".pinned", ".verdict"
LAST = "last"
_LIST_FIX = "perfkit runs"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Run(Struct, frozen=True):
    """One saved run; `saved_ns` is UTC."""

    id: str
    path: Path
    size_bytes: int
    saved_ns: int
    is_pinned: bool


def find_folder() -> Path:
    """Where runs lie: as configured, else $XDG_STATE_HOME/perfkit/runs, or below ~/.local/state."""
    if folder := load_config().get("runs.folder"):
        return Path(folder).expanduser()
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        state = named if named.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError as homeless:
        raise RunError("no home directory is known", fix="set XDG_STATE_HOME") from homeless
    return state / "perfkit" / "runs"


def name_run(header: Header) -> str:
    """The id that a capture asks for: its UTC time, host and pid."""
    seconds = min(max(header.clock.start_utc_ns // 1_000_000_000, 0), 253_402_300_799)
    moment = datetime.fromtimestamp(seconds, UTC)
    host = re.sub(r"[^a-z0-9]+", "-", header.host.lower())[:HOST_NAME_LIMIT].strip("-") or "host"
    return f"{moment:%Y%m%d-%H%M%S}-{host}-{max(header.target.main_pid, 0)}"


def save_run(raw: bytes, header: Header, folder: Path, limit_bytes: int = STORE_LIMIT_BYTES) -> str:
    """Saves a capture under an id of its own and gives that id.

    The oldest runs that are not pinned make room; the one just saved stays, whatever its size.
    Raises: `RunError` where the folder cannot be written, or the disk is full.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(folder)
        run_id = _claim(write_draft(raw, folder, mode=0o600), folder, name_run(header))
        _make_room(folder, run_id, limit_bytes)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RunError(
            f"the run could not be saved in {folder}: {why}",
            fix="free some space or set XDG_STATE_HOME to a folder that can be written",
        ) from error
    return run_id


def list_runs(folder: Path) -> list[Run]:
    """All runs, newest first; none where the folder does not exist."""
    found = []
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        what = f"cannot list {folder}: {(error.strerror or '').lower()}"
        raise RunError(
            what, fix="set runs.folder to a folder of your own: perfkit config"
        ) from error
    pinned = {entry.name for entry in entries if entry.name.endswith(PIN_SUFFIX)}
    for entry in entries:
        run_id = entry.name.removesuffix(SUFFIX)
        if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_pinned = run_id + PIN_SUFFIX in pinned
            run = Run(run_id, Path(entry.path), status.st_size, status.st_mtime_ns, is_pinned)
            found.append(run)
    return sorted(found, key=lambda run: (-run.saved_ns, run.id))


def find_run(name: str, folder: Path) -> Run:
    """The run of an id, a unique prefix of one, or `last`. Raises `RunError`."""
    runs = list_runs(folder)
    if not runs:
        raise RunError(f"no run is saved in {folder}", fix="perfkit diagnose .")
    if name == LAST:
        return runs[0]
    exact = [run for run in runs if run.id == name]
    found = exact or [run for run in runs if name and run.id.startswith(name)]
    if not found:
        raise RunError(f"no run or file is called {name!r}", fix=_LIST_FIX)
    if len(found) > 1:
        ids = ", ".join(run.id for run in found[:3])
        raise RunError(f"{len(found)} runs begin with {name!r}: {ids} ...", fix=_LIST_FIX)
    return found[0]


def read_run(name: str, folder: Path) -> tuple[str, bytes]:
    """The bytes of a run, or of a capture's file, and the name under which it is found again.

    `-` is a capture on stdin, which has no such name.
    """
    found, raw = _read(name, folder)
    check_filled(name, raw)
    return found, raw


def _read(name: str, folder: Path) -> tuple[str, bytes]:
    if name == STDIN:
        return "", read_stdin()
    path = Path(name)
    if name != LAST and (os.sep in name or path.is_file()):
        return name, read_file(path)
    run = find_run(name, folder)
    return run.id, read_file(run.path)


def delete_run(run: Run) -> None:
    """Removes a run, pinned or not, with all that lies beside it."""
    run.path.unlink(missing_ok=True)
    for suffix in (PIN_SUFFIX, VERDICT_SUFFIX):
        run.path.with_name(run.id + suffix).unlink(missing_ok=True)


def pin_run(run: Run, *, pinned: bool) -> None:
    """Keeps a run from being removed for room, or lets it go again."""
    mark = run.path.with_name(run.id + PIN_SUFFIX)
    if pinned:
        mark.touch(mode=0o600)
    else:
        mark.unlink(missing_ok=True)


def _claim(draft: Path, folder: Path, wanted: str) -> str:
    """Gives the draft a name that no other run has."""
    try:
        for number in range(1, NAME_TRY_LIMIT + 1):
            run_id = wanted if number == 1 else f"{wanted}-{number}"
            try:
                _link(draft, folder / (run_id + SUFFIX))
            except FileExistsError:
                continue
            _sync_folder(folder)
            return run_id
    finally:
        draft.unlink(missing_ok=True)
    raise FileExistsError(errno.EEXIST, f"{NAME_TRY_LIMIT} runs of that name exist")


def _link(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: claim the name with an empty file, then replace it.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        draft.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_room(folder: Path, kept_id: str, limit_bytes: int) -> None:
    runs = list_runs(folder)
    excess_bytes = sum(run.size_bytes for run in runs) - limit_bytes
    for run in reversed(runs):
        if excess_bytes <= 0:
            return
        if run.id != kept_id and not run.is_pinned:
            delete_run(run)
            excess_bytes -= run.size_bytes


def _remove_stale(folder: Path) -> None:
    """Drafts that a killed perfkit left behind."""
    for draft in folder.glob(f"{DRAFT_PREFIX}*"):
        try:
            if time.time() - draft.stat().st_mtime > STALE_S:
                draft.unlink()
        except OSError:
            continue
