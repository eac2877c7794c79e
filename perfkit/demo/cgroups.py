"""Where a CPU quota for one process can be put: a child of its own cgroup, of version 1 or 2."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from msgspec import Struct

from perfkit.errors import PerfkitError

PERIOD_US = 100_000
QUOTA_MIN_US = 1_000


class CgroupError(PerfkitError):
    """No CPU quota can be set for the service here."""


class Group(Struct, frozen=True):
    """A cgroup of the cpu controller; `path` as /proc/PID/cgroup prints it, `version` 1 or 2.

    `opened` is the folder in which the cpu controller was handed down for this group's sake.
    """

    folder: Path
    path: str
    version: int
    opened: Path | None = None


def find_cpu_group(mountinfo: str, membership: str) -> Group | None:
    """The cgroup that holds a process's CPU share, from the texts of /proc/PID/{mountinfo,cgroup}.

    Version 2 counts only where version 1 has no cpu controller.
    """
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in membership.splitlines()}
    first = next((path for names, path in paths.items() if "cpu" in names.split(",")), None)
    path, version = (first, 1) if first is not None else (paths.get(""), 2)
    if path is None:
        return None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        is_it = kind == "cgroup" and "cpu" in options.split(" ")[-1].split(",")
        if is_it if version == 1 else kind == "cgroup2":
            root, mount = before.split(" ")[3:5]
            below = os.path.relpath(path, root)
            return Group(Path(mount) / below, path, version)
    return None


def make_child_group(own: Group, name: str) -> Group:
    """Makes an empty cgroup: below `own`, or, on version 2, where one may lie.

    Version 2 lets no processes live beside child groups with controllers, but in the root: the
    new group goes below the nearest ancestor that already hands the cpu controller down.
    Raises `CgroupError`.
    """
    folder, path = own.folder, own.path
    opened: Path | None = None
    try:
        while own.version == 2 and not _hands_cpu_down(folder) and path != "/":
            folder, path = folder.parent, str(Path(path).parent)
        if own.version == 2 and not _hands_cpu_down(folder):
            (folder / "cgroup.subtree_control").write_text("+cpu")
            opened = folder
        made = Group(folder / name, str(Path(path) / name), own.version, opened)
        made.folder.mkdir()
        return made
    except OSError as error:
        fix = "run as root where cgroups can be written, or choose another fault"
        what = f"no cgroup can be made in {folder}: {error.strerror}"
        raise CgroupError(what, fix=fix) from error


def remove_group(group: Group) -> None:
    """Removes a group that `make_child_group` made, if it still is there and empty."""
    with contextlib.suppress(OSError):
        group.folder.rmdir()
    if group.opened is not None:
        with contextlib.suppress(OSError):
            (group.opened / "cgroup.subtree_control").write_text("-cpu")


def can_limit() -> bool:
    """Says whether a cgroup for a quota can be made here, by making one and removing it."""
    try:
        remove_group(make_child_group(own_group(os.getpid()), f"perfkit-demo-try-{os.getpid()}"))
    except CgroupError:
        return False
    return True


def own_group(pid: int) -> Group:
    """The cgroup of the cpu controller that a process is in. Raises `CgroupError`."""
    proc = Path("/proc") / str(pid)
    group = find_cpu_group((proc / "mountinfo").read_text(), (proc / "cgroup").read_text())
    if group is None:
        raise CgroupError("no cgroup with a cpu controller is mounted", fix="choose another fault")
    return group


def set_quota(group: Group, quota_us: int) -> None:
    """Limits a group to `quota_us` of CPU time in each 100 ms."""
    quota_us = max(QUOTA_MIN_US, quota_us)
    if group.version == 2:
        (group.folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        return
    (group.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (group.folder / "cpu.cfs_quota_us").write_text(str(quota_us))


def set_weight(group: Group, ratio: float) -> None:
    """Gives a group `ratio` times the default weight."""
    if group.version == 2:
        (group.folder / "cpu.weight").write_text(str(max(1, int(100 * ratio))))
    else:
        (group.folder / "cpu.shares").write_text(str(max(2, int(1024 * ratio))))


def enter(group: Group, pid: int) -> None:
    """Moves a process, with all its threads, into a group."""
    (group.folder / "cgroup.procs").write_text(str(pid))


def _hands_cpu_down(folder: Path) -> bool:
    return "cpu" in (folder / "cgroup.subtree_control").read_text().split()
