"""The cgroups of one controller that bind the target: each leaf, then its ancestors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from perfkit.collectors._cgroup import (
    CGROUP_LIMIT,
    CgroupRef,
    find_chain,
    read_mounts,
    split_path,
)
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Target

PROCESS_LIMIT = 256
FILE_LIMIT_BYTES = 1 << 16


def controller_chains(host: Host, target: Target, controller: str) -> tuple[CgroupRef, ...]:
    """The cgroups of `controller` that the service's processes are in, and all above them.

    Shape: leaf first, then upwards, each folder once; at most CGROUP_LIMIT. Raises: `Unavailable`
    where no cgroup file system shows that controller.
    """
    found: dict[Path, CgroupRef] = {}
    mounts = read_mounts(host)
    for process in target.processes[:PROCESS_LIMIT]:
        chain = find_chain(host, mounts, process.pid, controller)
        for place, (path, folder, version) in enumerate(chain):
            old = found.get(folder)
            if old is None and len(found) >= CGROUP_LIMIT:
                continue
            index = len(found) if old is None else old.index
            is_own = place == 0 or (old is not None and old.is_own)
            depth = len(split_path(path))
            found[folder] = CgroupRef(index, path, version, depth, is_own, folder)
    if not found:
        raise Unavailable(f"no cgroup file system shows the target's {controller} controller")
    return tuple(found.values())


def read_file(host: Host, ref: CgroupRef, name: str) -> str:
    """One file of a cgroup; "" where it has none or refuses it."""
    try:
        return host.read_path(f"{ref.folder}/{name}", FILE_LIMIT_BYTES)
    except Unavailable:
        return ""


def parse_pairs(text: str, names: Iterable[str]) -> dict[str, int]:
    """Reads those lines of a name and a whole number that are named, as in memory.stat.

    Missing: names without a line, or with anything else than a number, are left out.
    """
    found = {}
    lines = f"\n{text}"
    for name in names:
        value = lines.partition(f"\n{name} ")[2].partition("\n")[0].strip()
        if value.isdecimal():
            found[name] = min(int(value[:19]), 1 << 61)
    return found
