"""The demo's parts that touch nothing: latencies, protocols, arrivals, places for a quota."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from perfkit import discover
from perfkit.demo import cgroups, pipeline, wire
from perfkit.demo.latency import has_moved, measure, quantile
from perfkit.demo.load import Asked, make_requests, plan_gaps_s
from perfkit.demo.options import FAULTS, FRONTS, LoadOptions, WorldOptions
from perfkit.demo.world import STRENGTH_HIGH, STRENGTH_LOW, strength

SECOND_NS = 1_000_000_000
MOUNTS_V1 = (
    "25 20 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 25 0:29 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
)
MEMBER_V1 = "4:memory:/\n3:cpu,cpuacct:/system.slice/web.service\n0::/\n"
MOUNTS_V2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
MEMBER_V2 = "0::/user.slice/user-1.slice/session-2.scope\n"


def asked(planned_s: float, latency_s: float) -> Asked:
    """One good request, sent when it was planned."""
    planned_ns = int(planned_s * SECOND_NS)
    return Asked(planned_ns, planned_ns, planned_ns + int(latency_s * SECOND_NS), True)


def steady(latency_s: float) -> list[Asked]:
    """A hundred requests over one second."""
    return [asked(index / 100, latency_s) for index in range(100)]


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0)])
def test_quantile_interpolates(ratio: float, expected: float) -> None:
    """A quantile lies on the line between its neighbours, whatever the order of the values."""
    assert quantile([3.0, 1.0, 4.0, 2.0], ratio) == expected


def test_measure_counts_only_requests_planned_in_the_window() -> None:
    """A request belongs to the window in which it was planned, also if it ends after it."""
    latency = measure([asked(0.5, 0.7), asked(1.5, 0.1)], [], 0, SECOND_NS)

    assert (latency.count, latency.p50_ms) == (1, 700.0)


def test_measure_charges_a_service_that_answers_nothing() -> None:
    """Requests without an answer count with their age, so silence is slow and not unmeasured."""
    latency = measure([], [0] * 30, 0, SECOND_NS)

    assert (latency.p50_ms, latency.unanswered_count) == (1000.0, 30)


def test_measure_knows_how_many_requests_were_in_flight() -> None:
    """A hundred requests of 20 ms in one second are two in flight on average."""
    latency = measure(steady(0.02), [], 0, SECOND_NS)

    assert latency.in_flight_mean == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(("after_s", "moved"), [(0.021, False), (0.040, True)])
def test_has_moved_tells_a_slower_window(after_s: float, moved: bool) -> None:
    """Twice the latency has moved, a twentieth more has not."""
    before, after = (measure(steady(each_s), [], 0, SECOND_NS) for each_s in (0.02, after_s))

    assert has_moved(before, after) is moved


def test_plan_gaps_constant_arrivals_keep_the_rate() -> None:
    """Constant arrivals at 50 a second are 20 ms apart."""
    gaps_s = itertools.islice(plan_gaps_s(LoadOptions(arrivals="constant", rate_hertz=50.0)), 3)

    assert list(gaps_s) == [0.02, 0.02, 0.02]


def test_plan_gaps_poisson_arrivals_keep_the_rate() -> None:
    """Poisson arrivals at 50 a second are 20 ms apart on average, and repeat with their seed."""
    options = LoadOptions(rate_hertz=50.0, seed=7)
    first, second = (list(itertools.islice(plan_gaps_s(options), 4000)) for _ in range(2))

    assert (sum(first) / 4000, first) == (pytest.approx(0.02, rel=0.1), second)


def test_requests_are_read_back_as_they_were_made() -> None:
    """The service's parser understands what the load sends, to the last byte."""
    head, _, body = make_requests(1)[0].partition(wire.HEAD_END)
    query = pipeline.parse_query(body)

    assert wire.parse_head(head) == ("POST", "/recommend", len(body))
    assert sum(map(len, query.ids)) == 60 + pipeline.SHARD_COUNT


@pytest.mark.parametrize(
    "head",
    [b"", b"GET", b"\xff\xfe\x00", b"POST / HTTP/1.1\r\nContent-Length: 99999999", b"a b c d"],
)
def test_parse_head_refuses_what_is_not_a_request(head: bytes) -> None:
    """A head that is none, or announces too much, is refused before a body is read."""
    with pytest.raises(wire.WireError):
        wire.parse_head(head)


@pytest.mark.parametrize("header", [b"\0" * 8, wire.HEADER.pack(wire.LOOKUP, 10**6)])
def test_parse_lookup_count_refuses_foreign_bytes(header: bytes) -> None:
    """A shard reads no more ids than a lookup may hold."""
    with pytest.raises(wire.WireError):
        wire.parse_lookup_count(header)


def test_rank_gives_each_user_of_a_batch_what_it_gives_alone() -> None:
    """Batching changes the cost of a ranking and not its result."""
    ranker = pipeline.make_ranker(1, 64)
    users = [np.full(wire.VECTOR_LENGTH, value, np.float32) for value in (0.1, -0.4, 0.9)]
    alone = [sorted(pipeline.rank(ranker, [user])[0]) for user in users]

    assert [sorted(items) for items in pipeline.rank(ranker, users)] == alone


@pytest.mark.parametrize("fault", discover.names(FAULTS))
def test_strength_stays_in_its_range_and_varies(fault: str) -> None:
    """Each seed draws another strength within the stated range, the same one each time."""
    drawn = [strength(WorldOptions(seed=seed), fault) for seed in range(50)]
    again = [strength(WorldOptions(seed=seed), fault) for seed in range(50)]

    assert (len(set(drawn)), drawn) == (50, again)
    assert STRENGTH_LOW <= min(drawn) < max(drawn) <= STRENGTH_HIGH


@pytest.mark.parametrize("fault", discover.names(FAULTS))
def test_each_fault_is_a_start_and_says_whether_it_needs_root(fault: str) -> None:
    """A file in the faults' folder is all that a fault is."""
    assert callable(discover.load(FAULTS, fault, "start"))
    assert isinstance(discover.load(FAULTS, fault, "NEEDS_ROOT"), bool)


@pytest.mark.parametrize("front", discover.names(FRONTS))
def test_each_front_serves(front: str) -> None:
    """A file in the fronts' folder is all that a front is."""
    assert callable(discover.load(FRONTS, front, "serve"))


@pytest.mark.parametrize(
    ("mounts", "member", "folder", "version"),
    [
        (MOUNTS_V1, MEMBER_V1, "/sys/fs/cgroup/cpu,cpuacct/system.slice/web.service", 1),
        (MOUNTS_V2, MEMBER_V2, "/sys/fs/cgroup/user.slice/user-1.slice/session-2.scope", 2),
        (MOUNTS_V1.replace(" / /sys/fs/cgroup/cpu", " /system.slice /sys/fs/cgroup/cpu"),
         MEMBER_V1, "/sys/fs/cgroup/cpu,cpuacct/web.service", 1),
    ],
)  # fmt: skip
def test_find_cpu_group_follows_mount_and_membership(
    mounts: str, member: str, folder: str, version: int
) -> None:
    """The folder is found on version 1, on version 2, and where only a subtree is mounted."""
    group = cgroups.find_cpu_group(mounts, member)

    assert group is not None
    assert (str(group.folder), group.version) == (folder, version)


def test_find_cpu_group_says_when_there_is_none() -> None:
    """A machine that mounts no cgroups has no place for a quota."""
    assert cgroups.find_cpu_group("25 20 0:22 / /proc rw - proc proc rw\n", MEMBER_V2) is None


def version_2_tree(root: Path, handed_down: str) -> cgroups.Group:
    """A tree like that of a login session, as plain files."""
    scope = root / "user.slice" / "session-2.scope"
    scope.mkdir(parents=True)
    (root / "cgroup.subtree_control").write_text("cpu memory\n")
    (root / "user.slice" / "cgroup.subtree_control").write_text(handed_down)
    (scope / "cgroup.subtree_control").write_text("")
    return cgroups.Group(scope, "/user.slice/session-2.scope", 2)


@pytest.mark.parametrize(
    ("handed_down", "path"), [("cpu pids\n", "/user.slice/demo"), ("memory\n", "/demo")]
)
def test_make_child_group_goes_where_version_2_lets_it(
    tmp_path: Path, handed_down: str, path: str
) -> None:
    """On version 2 the group lies below the nearest ancestor that hands the controller down."""
    group = cgroups.make_child_group(version_2_tree(tmp_path, handed_down), "demo")

    assert (group.path, group.folder.is_dir(), group.opened) == (path, True, None)


def test_set_quota_writes_what_version_2_reads(tmp_path: Path) -> None:
    """A quota of version 2 is one line: quota and period."""
    cgroups.set_quota(cgroups.Group(tmp_path, "/", 2), 25_000)

    assert (tmp_path / "cpu.max").read_text() == "25000 100000"


def test_make_child_group_says_in_one_line_why_not(tmp_path: Path) -> None:
    """Where no group can be made the error names the folder and what to do."""
    with pytest.raises(cgroups.CgroupError, match="no cgroup can be made") as caught:
        cgroups.make_child_group(cgroups.Group(tmp_path / "gone", "/gone", 1), "demo")

    assert "choose another fault" in caught.value.fix
