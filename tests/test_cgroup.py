"""Where a process stands among the cgroups."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from perfkit.collectors import _cgroup as cgroup
from perfkit.host import Host
from perfkit.model import ProcessRef, Target

Tree = Callable[[str], Host]


def make_target(*pids: int) -> Target:
    """A service of these pids, of which only the pids matter here."""
    refs = tuple(ProcessRef(pid, 1, 0, "x", "", "", "main") for pid in pids)
    return Target("service", pids[0] if pids else 0, "x", "test", refs)


def describe(host: Host, *pids: int) -> list[str]:
    """One line per cgroup of the chains of these pids."""
    return [
        f"{ref.index} {ref.path} v{ref.version} depth={ref.depth} own={ref.is_own} "
        f"{ref.folder.relative_to(host.sys)}"
        for ref in cgroup.cpu_chains(host, make_target(*pids))
    ]


V1 = "fs/cgroup/cpu,cpuacct"
LEGACY = [
    f"0 /app.slice/web.service v1 depth=2 own=True {V1}/app.slice/web.service",
    f"1 /app.slice v1 depth=1 own=False {V1}/app.slice",
    f"2 / v1 depth=0 own=False {V1}",
]
UNIFIED = [line.replace("v1", "v2").replace(V1, "fs/cgroup") for line in LEGACY]


@pytest.mark.parametrize(
    ("name", "lines"), [("v1", LEGACY), ("v2", UNIFIED), ("hybrid", LEGACY), ("none", [])]
)
def test_chain_climbs_from_the_leaf_to_the_root(tree: Tree, name: str, lines: list[str]) -> None:
    """Every ancestor is found, leaf first, in each kind of hierarchy."""
    host = tree(name)

    found = describe(host, 5000001, 5000002)

    assert found == lines


def test_chain_holds_each_cgroup_once(tree: Tree) -> None:
    """Ancestors shared by two leaves are listed once, behind the first leaf."""
    host = tree("v2")

    found = describe(host, 5000001, 5000006)

    assert found == [*UNIFIED, "3 /batch v2 depth=1 own=True fs/cgroup/batch"]


def test_chain_marks_a_leaf_that_is_also_an_ancestor(tree: Tree, tmp_path: Path) -> None:
    """A cgroup first met as an ancestor becomes an own one when a process lives in it."""
    proc = tmp_path / "proc"
    shutil.copytree(tree("v2").proc, proc, symlinks=True)
    (proc / "5000002/cgroup").write_text("0::/app.slice\n")

    found = describe(Host(proc, tree("v2").sys), 5000001, 5000002)

    assert [line.split()[4] for line in found] == ["own=True", "own=True", "own=False"]


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/docker/abc/x", "/docker/abc", ("x",)),
        ("/docker/abc", "/docker/abc", ()),
        ("/", "/", ()),
        ("/docker/other", "/docker/abc", None),
        ("/../other", "/..", ("other",)),
        ("/../other", "/", None),
        ("/x", "/..", None),
        ("/a/../../etc", "/", None),
    ],
)
def test_path_loses_the_root_of_its_mount(
    path: str, root: str, expected: tuple[str, ...] | None
) -> None:
    """A path is told relative to our namespace, a folder relative to what the mount shows."""
    found = cgroup.to_relative(path, root)

    assert found == expected


def build_namespaced(tmp_path: Path, root: str, membership: str) -> Host:
    """A host whose one mount shows `root`, with the target in /pods/web below the mount point."""
    leaf = tmp_path / "sys/fs/cgroup/pods/web"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text("41\n42\n")
    (leaf.parent / "cgroup.procs").write_text("")
    (leaf.parent.parent / "cgroup.procs").write_text("1\n")
    for pid in ("self", "42"):
        (tmp_path / "proc" / pid).mkdir(parents=True)
    mount = f"30 23 0:26 {root} /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"
    (tmp_path / "proc/self/mountinfo").write_text(mount)
    (tmp_path / "proc/42/cgroup").write_text(membership)
    return Host(tmp_path / "proc", tmp_path / "sys")


def test_chain_of_a_container_ends_at_its_mount(tmp_path: Path) -> None:
    """Where only a part of the hierarchy is mounted, the chain ends there and depth says so."""
    host = build_namespaced(tmp_path, "/docker/abc", "0::/docker/abc/pods/web\n")

    found = describe(host, 42)

    assert [line.split()[1:4:2] for line in found] == [
        ["/docker/abc/pods/web", "depth=4"],
        ["/docker/abc/pods", "depth=3"],
        ["/docker/abc", "depth=2"],
    ]


def test_chain_is_searched_above_our_namespace(tmp_path: Path) -> None:
    """A mount that begins above our namespace hides names; the listed pids tell the folder."""
    host = build_namespaced(tmp_path, "/../..", "0::/\n")

    found = describe(host, 42)

    assert [line.split()[1] for line in found] == ["/", "/..", "/../.."]
    assert found[0].endswith("fs/cgroup/pods/web")


def test_mount_points_are_unescaped() -> None:
    """Blanks in a mount point are told as octal escapes."""
    text = r"30 23 0:26 / /sys/fs/my\040cgroup rw - cgroup2 cgroup2 rw"

    mounts = cgroup.parse_mounts(text)

    assert mounts == (cgroup.Mount("/", "/sys/fs/my cgroup", 2),)


@pytest.mark.parametrize("text", ["", "x", "1:cpu", "::", "0::relative", "1:2:3:4", "\0\n\n"])
def test_membership_ignores_what_it_does_not_know(text: str) -> None:
    """Malformed lines give no path."""
    found = cgroup.parse_cpu_path(text)

    assert found == ""


@pytest.mark.system
def test_chain_of_this_process_lists_it() -> None:
    """On the real host the leaf's cgroup.procs names this process."""
    chain = cgroup.cpu_chains(Host(), make_target(os.getpid()))
    if not chain:
        pytest.skip("no cgroup file system with the cpu controller is mounted here")

    listed = (chain[0].folder / "cgroup.procs").read_text().split()

    assert str(os.getpid()) in listed
