"""Where a process stands among the cgroups, v1, v2 or hybrid, and in which folders those lie.

Paths in /proc/PID/cgroup and the roots in mountinfo are both told relative to our own cgroup
namespace; a folder is found by taking the mount's root off the path. Where a mount begins above our
namespace its names are not told, and the folder is searched for by the pids that it lists.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Target

CGROUP_LIMIT = 64
DEPTH_LIMIT = 64
MOUNT_LIMIT = 4096
SEARCH_LIMIT = 2048
ENTRY_LIMIT = 16_384
UNIFIED = ""
WEIGHT_DEFAULT = {1: 1024, 2: 100}  # cpu.shares and cpu.weight (Documentation/admin-guide)
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """One mounted cgroup hierarchy; `root` is the cgroup that its mount point shows.

    Missing: `controllers` is empty for the unified hierarchy (version 2).
    """

    root: str
    point: str
    version: int
    controllers: tuple[str, ...] = ()


class CgroupRef(Struct, frozen=True):
    """One cgroup that can hold the target back: its own (`is_own`), or an ancestor of that.

    Unit: `depth` counts path components, 0 is the root of our cgroup namespace.
    """

    index: int
    path: str
    version: int
    depth: int
    is_own: bool
    folder: Path


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Finds the cgroup hierarchies in the text of a mountinfo file."""
    found = []
    for line in text.splitlines()[:MOUNT_LIMIT]:
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(kind) < 3:
            continue
        root, point = _unescape(fields[3]), _unescape(fields[4])
        if kind[0] == "cgroup":
            found.append(Mount(root, point, 1, tuple(kind[2].split(","))))
        elif kind[0] == "cgroup2":
            found.append(Mount(root, point, 2))
    return tuple(found)


def parse_membership(text: str) -> dict[str, str]:
    """Reads /proc/PID/cgroup: controller -> path, the unified hierarchy under the key UNIFIED."""
    paths: dict[str, str] = {}
    for line in text.splitlines()[:DEPTH_LIMIT]:
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def parse_cpu_path(text: str) -> str:
    """The path that the cpu controller goes by, from /proc/PID/cgroup; "" where there is none."""
    paths = parse_membership(text)
    return paths.get("cpu", paths.get(UNIFIED, ""))


def split_path(path: str) -> tuple[str, ...]:
    """The components of a cgroup path; ".." at its head (above our namespace) is kept."""
    return tuple(part for part in path.split("/") if part)


def to_relative(path: str, root: str) -> tuple[str, ...] | None:
    """Takes a mount's root off a path. Missing: None where the mount does not show the path."""
    parts, base = split_path(path), split_path(root)
    if parts[: len(base)] != base or ".." in parts[len(base) :]:
        return None
    return parts[len(base) :]


def read_mounts(host: Host) -> tuple[Mount, ...]:
    """The hierarchies that we can see, those that show the most first."""
    mounts = parse_mounts(host.read_proc("self/mountinfo"))
    return tuple(sorted(mounts, key=lambda mount: len(split_path(mount.root))))


def read_cpu_path(host: Host, pid: int) -> str:
    """The cpu controller's path of one process; "" where it is gone or cannot be read."""
    try:
        return parse_cpu_path(host.read_proc(f"{pid}/cgroup"))
    except Unavailable:
        return ""


def mount_folder(host: Host, mount: Mount) -> Path:
    """The folder of a mount point, seen through the host's root of sys."""
    point = Path(mount.point)
    if point.is_relative_to(host.sys) or not point.is_relative_to("/sys"):
        return point
    return host.sys / point.relative_to("/sys")


def find_chain(
    host: Host, mounts: tuple[Mount, ...], pid: int, controller: str
) -> tuple[tuple[str, Path, int], ...]:
    """Path, folder and version of a process's cgroup for one controller, and of each ancestor.

    Shape: leaf first, up to what the mount shows. Missing: empty where no mount shows it.
    """
    try:
        paths = parse_membership(host.read_proc(f"{pid}/cgroup"))
    except Unavailable:
        return ()
    name = controller if controller in paths else UNIFIED
    path, version = paths.get(name), 2 if name == UNIFIED else 1
    for mount in mounts:
        if path is None or mount.version != version or (name and name not in mount.controllers):
            continue
        base = mount_folder(host, mount)
        parts = to_relative(path, mount.root)
        if parts is None and ".." in split_path(mount.root):
            parts = _search(host, base, pid)
        if parts is not None and _is_folder(base.joinpath(*parts)):
            return tuple(_ascend(path, base, parts[:DEPTH_LIMIT], version))
    return ()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a path that cannot be: too long, or with a NUL
        return False


def cpu_chains(host: Host, target: Target) -> tuple[CgroupRef, ...]:
    """The cgroups whose CPU limits bind the target: every leaf, then its ancestors.

    Shape: leaf first, then upwards, each folder once over all processes of the service; at most
    CGROUP_LIMIT. Missing: empty where no cgroup file system with the cpu controller is mounted.
    """
    try:
        mounts = read_mounts(host)
    except Unavailable:
        return ()
    found: dict[Path, CgroupRef] = {}
    seen: set[str] = set()
    for process in target.processes:
        path = read_cpu_path(host, process.pid)
        if not path or path in seen:
            continue
        seen.add(path)
        for place, (name, folder, version) in enumerate(
            find_chain(host, mounts, process.pid, "cpu")
        ):
            if folder in found and place == 0 and not found[folder].is_own:
                old = found[folder]
                found[folder] = CgroupRef(old.index, name, version, old.depth, True, folder)
            elif folder not in found and len(found) < CGROUP_LIMIT:
                depth = len(split_path(name))
                found[folder] = CgroupRef(len(found), name, version, depth, place == 0, folder)
    return tuple(found.values())


class Weights:
    """How the CPU is shared between the target and others, where their cgroups meet."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        try:
            self._mounts = read_mounts(host)
        except Unavailable:
            self._mounts = ()
        self._own = find_chain(host, self._mounts, target.main_pid, "cpu")

    def of(self, pid: int) -> tuple[int, int]:
        """The weights of another process's cgroup and of the target's, below their common one.

        A process that lies in the common cgroup itself competes with the default weight. Missing:
        -1 for both where they are in the same cgroup, or where it was not told.
        """
        other = find_chain(self._host, self._mounts, pid, "cpu")
        mine = [folder for _, folder, _ in self._own]
        theirs = [folder for _, folder, _ in other]
        common = next((folder for folder in theirs if folder in mine), None)
        if common is None or theirs[0] == mine[0]:
            return -1, -1
        version = other[0][2]
        host = self._host
        return (
            _weight_below(host, theirs, common, version),
            _weight_below(host, mine, common, version),
        )


def _weight_below(host: Host, folders: list[Path], common: Path, version: int) -> int:
    """The weight of the group on the way from `common` down to the leaf `folders[0]`."""
    place = folders.index(common)
    if place == 0:
        return WEIGHT_DEFAULT[version]
    name = "cpu.weight" if version == 2 else "cpu.shares"
    try:
        text = host.read_path(f"{folders[place - 1]}/{name}", 64).strip()
    except Unavailable:
        return -1
    return int(text) if text.isdecimal() and len(text) < 19 else -1


def is_root(ref: CgroupRef) -> bool:
    """Whether a cgroup is the true root of its hierarchy, not only that of our namespace."""
    if ref.version == 1:
        return (ref.folder / "release_agent").exists()
    return not (ref.folder / "cgroup.events").exists()


def walk(base: Path, limit: int) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every cgroup below `base` (itself first) as path components, and whether it is a leaf."""
    waiting: list[tuple[str, ...]] = [()]
    count = 0
    while waiting and count < limit:
        parts = waiting.pop()
        try:
            with os.scandir(base.joinpath(*parts)) as entries:
                first = islice(entries, ENTRY_LIMIT)
                children = [e.name for e in first if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        count += 1
        yield parts, not children
        if len(parts) < DEPTH_LIMIT:
            waiting.extend((*parts, name) for name in sorted(children, reverse=True))


def _ascend(
    path: str, base: Path, parts: tuple[str, ...], version: int
) -> Iterator[tuple[str, Path, int]]:
    names = split_path(path)
    for up in range(len(parts) + 1):
        # A folder above our namespace has no name that we are told: its path is "/", "/..", ...
        above = up - len(names)
        name = "/".join(names[: len(names) - up]) if above <= 0 else "/".join([".."] * above)
        yield "/" + name, base.joinpath(*parts[: len(parts) - up]), version


def _search(host: Host, base: Path, pid: int) -> tuple[str, ...] | None:
    for parts, _ in walk(base, SEARCH_LIMIT):
        try:
            listed = host.read_path(os.fspath(base.joinpath(*parts, "cgroup.procs")))
        except Unavailable:
            continue
        if str(pid) in listed.split():
            return parts
    return None


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), field)
