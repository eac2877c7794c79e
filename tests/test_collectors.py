"""Every collector, found by discovery: on the fixture trees, and on the real host."""

from __future__ import annotations

import importlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from perfkit import discover
from perfkit.agent.target import resolve
from perfkit.collectors import cgroup, cpu, owners, pressure, processes
from perfkit.collectors._proc import parse_cpu_list, parse_stat, parse_status, read_cpu_ns
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, ColumnType, Item, Reading, Row, Target

TREES = Path(__file__).parent / "host"
TREE_NAMES = sorted(path.name for path in TREES.iterdir() if path.is_dir())
COLLECTORS: dict[str, Collector] = discover.load_all("perfkit.collectors", "COLLECTOR")
LIVE = {
    name
    for name in COLLECTORS
    if getattr(importlib.import_module(f"perfkit.collectors.{name}"), "FIXTURE", "") == "live"
}
FIXTURED = sorted(COLLECTORS.keys() - LIVE)
# These tell of limits in use and of events; a host may have neither.
MAY_BE_QUIET = {"cgroup_io", "kernel_events"}
MAIN_PID = 5000001
Tree = Callable[[str], Host]


def to_line(item: Item) -> str:
    """One item as a line of golden text."""
    if isinstance(item, Reading):
        return f"{item.metric}{{{','.join(item.labels)}}} {item.value:g}"
    if isinstance(item, Row):
        return f"{item.table} {' | '.join(str(value) for value in item.values)}"
    return f"{item.table} {item.row_count} packed rows, {item.dropped_count} dropped"


def to_lines(host: Host, collector: Collector, target: Target) -> list[str]:
    """All that a collector tells in one open, two polls and a close."""
    try:
        session = collector.open(host, target)
        lines = [to_line(item) for item in session.poll()]
        lines += ["--- second poll", *(to_line(item) for item in session.poll())]
        return [*lines, "--- close", *(to_line(item) for item in session.close())]
    except Unavailable as absent:
        return [f"unavailable: {absent.reason} [{absent.grant}]"]


@pytest.mark.parametrize("tree_name", TREE_NAMES)
@pytest.mark.parametrize("name", FIXTURED)
def test_collector_reads_its_fixture(
    name: str, tree_name: str, tree: Tree, golden: Callable[[Path, str], None]
) -> None:
    """A collector tells of a fixture tree exactly what its golden lines say."""
    host = tree(tree_name)
    target = resolve(host, MAIN_PID, only_pid=False)

    lines = to_lines(host, COLLECTORS[name], target)

    text = "\n".join(lines).replace(str(TREES / tree_name), "")
    golden(TREES / tree_name / "golden" / f"{name}.txt", text + "\n")


@pytest.mark.parametrize("name", sorted(COLLECTORS))
def test_collector_is_well_formed(name: str) -> None:
    """Names are those of the file, units end metric names, intervals and limits are positive."""
    collector = COLLECTORS[name]

    faults = list(find_faults(name, collector))

    assert faults == []


def find_faults(name: str, collector: Collector) -> Iterable[str]:
    """What is wrong with a collector's declaration."""
    if collector.name != name:
        yield f"it is called {collector.name!r}"
    if not 0 < collector.timeout_s <= collector.interval_s:
        yield "its time limit is not within its interval"
    for metric in collector.metrics:
        words = metric.name.split("_")
        if metric.unit and metric.unit not in words:
            yield f"{metric.name} lacks its unit {metric.unit}"
        if (metric.kind == "counter") != (words[-1] == "total"):
            yield f"{metric.name}: _total marks the counters, and only these"
        if not metric.source or not metric.help:
            yield f"{metric.name} does not say where it is from or what it means"
    for table in collector.tables:
        if not table.source or not table.help:
            yield f"{table.name} does not say where it is from or what it means"
        for column in table.columns:
            if column.name.endswith("_ns") and column.unit != "ns":
                yield f"{table.name}.{column.name} does not have the unit ns"


def test_collector_names_no_table_of_another() -> None:
    """Two collectors never fill the same table, nor measure the same metric."""
    names = [table.name for one in COLLECTORS.values() for table in one.tables]
    names += [metric.name for one in COLLECTORS.values() for metric in one.metrics]

    twice = sorted({name for name in names if names.count(name) > 1})

    assert twice == []


@pytest.mark.system
@pytest.mark.parametrize("name", FIXTURED)
def test_collector_runs_on_this_host(name: str) -> None:
    """On the real host a collector yields declared, well-typed items, or says what is missing."""
    host, collector = Host(), COLLECTORS[name]
    target = resolve(host, os.getpid(), only_pid=True, own_pid=-1)

    lines = to_lines(host, collector, target)

    is_quiet = name in MAY_BE_QUIET and len(lines) == 2
    assert len(lines) > 2 or is_quiet or lines[0].startswith("unavailable: ")


@pytest.mark.system
def test_cpu_agrees_with_psutil() -> None:
    """The seconds per CPU and mode are those that psutil reads."""
    readings = {r.labels: r.value for r in cpu.read(Host(), Target("host", 0, "", ""))}

    other = psutil.cpu_times(percpu=True)[0]

    assert readings["0", "user"] == pytest.approx(other.user, abs=1.0)
    assert readings["0", "idle"] == pytest.approx(other.idle, abs=1.0)


@pytest.mark.system
def test_pressure_grows_as_the_file_says() -> None:
    """A total lies between two readings of the same file by hand."""
    path = Path("/proc/pressure/cpu")
    if not path.exists():
        pytest.skip("this kernel was built without pressure stall information")
    before = int(path.read_text().split("total=")[1].split()[0]) / 1e6

    readings = {r.metric: r.value for r in pressure.read(Host(), Target("host", 0, "", ""))}

    after = int(path.read_text().split("total=")[1].split()[0]) / 1e6
    assert before <= readings["pressure_cpu_some_seconds_total"] <= after


BURNER = """
import sys, time
print("ready", flush=True)
sys.stdin.readline()
end = time.process_time() + 0.3
while time.process_time() < end: pass
print(time.process_time(), flush=True)
sys.stdin.readline()
"""


@pytest.mark.system
def test_owners_charge_the_process_that_burnt(spawn: Callable[..., object]) -> None:
    """A process that burns 0.3 s between two polls is charged with what its own clock says."""
    child = spawn(BURNER)
    host = Host()
    session = owners.COLLECTOR.open(host, Target("host", 0, "", ""))
    list(session.poll())
    before_ns = read_cpu_ns(host, child.pid)

    child.stdin.write("go\n")
    child.stdin.flush()
    child.stdout.readline()
    rows = [item.values for item in session.poll() if item.table == "owners"]

    mine = [row for row in rows if row[2] == child.pid]
    spent_ns = read_cpu_ns(host, child.pid) - before_ns
    assert mine[0][5] == pytest.approx(spent_ns, rel=0.02)
    assert mine[0][6:8] == (os.getpriority(os.PRIO_PROCESS, child.pid), 0)


@pytest.mark.system
def test_processes_agree_with_psutil(spawn: Callable[..., object]) -> None:
    """Threads, parent, user and program of a process are those that psutil reads."""
    child, host = spawn(BURNER), Host()
    target = resolve(host, child.pid, only_pid=True, own_pid=-1)

    row = next(iter(processes.COLLECTOR.open(host, target).poll())).values

    other = psutil.Process(child.pid)
    assert (row[1], row[2], row[5]) == (other.pid, other.ppid(), other.exe())
    assert (row[10], row[11]) == (other.num_threads(), other.uids().real)


def test_sessions_share_the_root_of_psutil_in_turn(tree: Tree) -> None:
    """psutil has one root of proc: a second session waits for the first to put it back."""
    first, second, before = tree("v1"), tree("v2"), psutil.PROCFS_PATH
    seen = []

    def look() -> None:
        with processes.procfs_of(second) as module:
            seen.append(module.PROCFS_PATH)

    with processes.procfs_of(first):
        other = threading.Thread(target=look)
        other.start()
        other.join(0.05)
        seen.append(psutil.PROCFS_PATH)
    other.join()

    assert seen == [str(first.proc), str(second.proc)]
    assert before == psutil.PROCFS_PATH


FORKER = """
import os, subprocess, sys
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "fork":
        child = subprocess.Popen(["sleep", "60"])
        print(child.pid, flush=True)
    elif word == "end":
        child.kill(); child.wait(); print("ended", flush=True)
    elif word == "exec":
        os.execvp("sleep", ["sleep", "60"])
"""


def ask(child: object, word: str) -> None:
    """Tells a forker what to do."""
    child.stdin.write(word + "\n")
    child.stdin.flush()


@pytest.mark.system
def test_processes_tell_who_came_and_went(spawn: Callable[..., object]) -> None:
    """A child of the service that starts and ends in the window is told, once each."""
    child, host = spawn(FORKER), Host()
    session = processes.COLLECTOR.open(host, resolve(host, child.pid, only_pid=False, own_pid=-1))
    list(session.poll())

    ask(child, "fork")
    pid = int(child.stdout.readline())
    started = [row.values for row in session.poll()]
    ask(child, "end")
    child.stdout.readline()
    ended = [row.values for row in session.poll()]

    assert [(row[1], row[7], row[12]) for row in started] == [(pid, "child", "started")]
    assert [(row[1], row[12]) for row in ended] == [(pid, "exited")]


@pytest.mark.system
def test_processes_tell_an_exec(spawn: Callable[..., object]) -> None:
    """A process that turns into another program is told with its new name."""
    child, host = spawn(FORKER), Host()
    session = processes.COLLECTOR.open(host, resolve(host, child.pid, only_pid=False, own_pid=-1))
    list(session.poll())

    ask(child, "exec")
    deadline = time.monotonic() + 5
    while psutil.Process(child.pid).name() != "sleep" and time.monotonic() < deadline:
        time.sleep(0.01)
    rows = [row.values for row in session.poll()]

    assert [(row[1], row[4], row[12]) for row in rows] == [(child.pid, "sleep", "execed")]


def test_owners_name_whoever_used_the_cpu(tree: Tree, tmp_path: Path) -> None:
    """Between two polls of a tree, ticks become ns of their process; small ones are summed."""
    shutil.copytree(tree("v2").proc, tmp_path / "proc", symlinks=True)
    moments = iter([1_000_000_000 + n * 500_000_000 for n in range(40)])
    host = Host(tmp_path / "proc", tree("v2").sys, lambda: next(moments))
    target = resolve(tree("v2"), MAIN_PID, only_pid=False)
    session = owners.COLLECTOR.open(host, target)
    list(session.poll())

    for pid, before, after in [(5000006, "90000 100", "90030 101"), (5000002, "5120", "5127")]:
        path = tmp_path / f"proc/{pid}/stat"
        path.write_text(path.read_text().replace(before, after))
    rows = [item.values for item in session.poll() if item.table == "owners"]

    assert [(row[2], row[4], row[5], row[9]) for row in rows] == [
        (5000006, "/batch", 310_000_000, "other"),
        (5000002, "/app.slice/web.service", 70_000_000, "service"),
        (0, "", 0, "other"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({1: 100}, {1: 150}, {1: 50}),
        ({}, {1: 150}, {1: 150}),
        ({1: 100}, {1: 30}, {1: 30}),
        ({1: 100}, {1: -1}, {}),
        ({1: -1}, {1: 40}, {1: 40}),
        ({1: 100}, {}, {}),
    ],
)
def test_owners_deltas_survive_reused_pids(
    before: dict[int, int], after: dict[int, int], expected: dict[int, int]
) -> None:
    """A new pid, and one whose clock went back, began at zero; one that went gives nothing."""
    found = owners.to_deltas(before, after)

    assert found == expected


def test_owners_limit_their_rows() -> None:
    """Of a hundred busy processes the 64 busiest get a row of their own."""
    deltas = {pid: 20_000_000 + pid for pid in range(1, 101)}

    chosen = owners.choose(deltas, 1_000_000_000, frozenset())

    assert chosen == list(range(100, 36, -1))


@pytest.mark.parametrize(
    ("deltas", "chosen"),
    [
        ({7: 9_000_000, 8: 1, 9: 500_000_000}, [9, 7]),
        ({7: 0, 8: 0, 9: 500_000_000}, [9]),
        ({9: 500_000_000}, [9]),
        ({7: 1} | dict.fromkeys(range(100, 200), 50_000_000), [*range(100, 163), 7]),
        ({7: 20_000_000, 8: 30_000_000}, [8, 7]),
    ],
)
def test_owners_always_tell_of_the_service(deltas: dict[int, int], chosen: list[int]) -> None:
    """The service's busiest process has a row if it ran at all, however many were busier."""
    found = owners.choose(deltas, 1_000_000_000, frozenset((7, 8)))

    assert found == chosen


def test_cgroup_tells_a_changed_quota_once(tree: Tree, tmp_path: Path) -> None:
    """A limit that changes in the window makes one further row."""
    shutil.copytree(tree("v2").sys, tmp_path / "sys")
    host = Host(tree("v2").proc, tmp_path / "sys", lambda: 5)
    session = cgroup.COLLECTOR.open(host, resolve(tree("v2"), MAIN_PID, only_pid=False))
    list(session.poll())

    (tmp_path / "sys/fs/cgroup/app.slice/web.service/cpu.max").write_text("20000 100000\n")
    rows = [to_line(item) for item in [*session.poll(), *session.poll()]]

    assert rows == [
        "cgroups 5 | 0 | /app.slice/web.service | 2 | 2 | 20000 | 100000 | 50 | 1 | 0-1"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", (-1, 100000)),
        ("50000 100000\n", (50000, 100000)),
        ("", (-1, -1)),
        ("99999999999999999999999 1", (-1, 1)),
        ("²", (-1, -1)),
    ],
)
def test_cgroup_quota_is_parsed(text: str, expected: tuple[int, int]) -> None:
    """Anything but a whole number is no quota."""
    found = cgroup.parse_max(text)

    assert found == expected


@pytest.mark.parametrize("text", ["", "x", "1 (a) ", "1 (a) S 1 2", "9 (\n) S " + "x " * 50, ")"])
def test_stat_that_is_malformed_is_unavailable(text: str) -> None:
    """A stat file that is cut or garbled is said to be unavailable, never an error."""
    with pytest.raises(Unavailable):
        parse_stat(text)


def test_stat_with_a_hostile_name_is_read(tree: Tree) -> None:
    """Blanks and brackets in a name do not shift the fields behind it."""
    stat = parse_stat(tree("v2").read_proc("5000004/stat"))

    assert (stat.name, stat.parent_pid, stat.nice, stat.policy, stat.start_ticks) == (
        "tok) (en izer",
        5000002,
        5,
        3,
        90300,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-3,8", {0, 1, 2, 3, 8}), ("", set()), ("a-b,2", {2}), ("3-1", set()), ("²", set())],
)
def test_cpu_list_is_parsed(text: str, expected: set[int]) -> None:
    """A list of CPUs is read; parts that are no numbers are left out."""
    found = parse_cpu_list(text)

    assert found == expected


def test_status_keeps_the_first_of_each_key() -> None:
    """A name with a line end cannot overwrite later keys with its own."""
    found = parse_status("Name:\tx\nTracerPid:\t7\nTracerPid:\t9\n")

    assert found == {"Name": "x", "TracerPid": "7"}


def test_columns_of_text_are_declared() -> None:
    """Tables that come as packed rows have no text columns; those with text come row by row."""
    texts = [c for c in processes.PROCESSES.columns if c.type is ColumnType.TEXT]

    assert [column.name for column in texts] == ["name", "exe", "cgroup", "role", "event"]
