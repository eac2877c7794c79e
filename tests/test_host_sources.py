"""Memory, disks, network, kernel messages, cgroup limits: parsers, and the real host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from perfkit.agent.target import resolve
from perfkit.collectors import (
    cgroup_io,
    cgroup_memory,
    disk,
    kernel_events,
    memory,
    network,
    process_io,
)
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Reading, Row, Rows, Session, Target

HOST_TARGET = Target("host", 0, "", "")
MAIN_PID = 5000001
Tree = Callable[[str], Host]
SLEEPER = "import sys; print('ready', flush=True); sys.stdin.readline()"


def open_on(collector: Collector, pid: int) -> Session:
    """A session of a collector on one real process."""
    host = Host()
    return collector.open(host, resolve(host, pid, only_pid=True, own_pid=-1))


def rows_of(session: Session) -> list[tuple[int | float | str, ...]]:
    """The rows of one poll, without those that only count what was dropped."""
    return [item.values for item in session.poll() if isinstance(item, Row)]


def values_of(readings: Iterator[Reading]) -> dict[tuple[str, ...], float]:
    """Readings by metric and labels."""
    return {(one.metric, *one.labels): one.value for one in readings}


@pytest.mark.system
def test_memory_agrees_with_psutil() -> None:
    """Total and available memory are those that psutil reads."""
    values = values_of(memory.read(Host(), HOST_TARGET))

    other = psutil.virtual_memory()
    assert values["memory_total_bytes",] == other.total
    assert values["memory_available_bytes",] == pytest.approx(other.available, rel=0.1)


def test_memory_sums_stalls_over_zones() -> None:
    """Allocation stalls are told per zone by new kernels and as one number by old ones."""
    new = values_of(memory.parse_vmstat("allocstall_dma 1\nallocstall_normal 22\n"))
    old = values_of(memory.parse_vmstat("allocstall 23\n"))

    assert new == old == {("memory_allocation_stalls_total",): 23.0}


@pytest.mark.parametrize("text", ["", "MemTotal", "MemTotal: x kB", "MemTotal: -1 kB", "a b\n: :"])
def test_memory_leaves_out_what_is_malformed(text: str) -> None:
    """Garbled files give no reading and no error."""
    assert [*memory.parse_meminfo(text), *memory.parse_vmstat(text)] == []


@pytest.mark.parametrize(
    "text",
    ["", "8 0 sda 1 2 3", "8 0 sda " + "x " * 11, "x y z " + "1 " * 11, "8 0 sda " + "-1 " * 11],
)
def test_disk_leaves_out_what_is_malformed(text: str) -> None:
    """Lines that are cut or garbled give no row."""
    assert list(disk.parse_diskstats(text)) == []


def test_disk_keeps_absurd_counters_within_64_bits() -> None:
    """A counter of thirty digits is cut to what fits the column."""
    found = next(disk.parse_diskstats("8 0 sda " + " ".join(["9" * 30] * 17)))

    assert max(disk.to_values(found[2])) < 1 << 63


@pytest.mark.system
def test_disk_counts_what_is_flushed(tmp_path: Path) -> None:
    """23 MB that are written and flushed appear among the bytes written of the disks."""
    try:
        session = disk.COLLECTOR.open(Host(), HOST_TARGET)
    except Unavailable:
        pytest.skip("this host shows no physical disk")
    before = sum(int(row[7]) for row in rows_of(session))

    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(23_000_000))
        file.flush()
        os.fsync(file.fileno())

    written = sum(int(row[7]) for row in rows_of(session)) - before
    if not written:
        pytest.skip("the folder of temporary files is on no physical disk")
    assert written >= 23_000_000


@pytest.mark.system
def test_process_io_counts_only_the_target(tmp_path: Path, spawn: Callable[..., object]) -> None:
    """What a process writes in the window is counted; what another writes is not."""
    writer = (
        "import os, sys; print('ready', flush=True); sys.stdin.readline();"
        "f = open(sys.argv[1], 'wb'); f.write(bytes(2_300_000)); f.flush(); os.fsync(f.fileno());"
        "print('done', flush=True); sys.stdin.readline()"
    )
    child = spawn(writer, str(tmp_path / "file"))
    session = open_on(process_io.COLLECTOR, child.pid)
    rows_of(session)

    (tmp_path / "other").write_bytes(bytes(5_000_000))
    child.stdin.write("go\n")
    child.stdin.flush()
    child.stdout.readline()

    row = rows_of(session)[0]
    assert (row[1], row[3]) == (1, pytest.approx(2_300_000, rel=0.01))


def test_process_io_without_the_file_is_unavailable(tree: Tree) -> None:
    """A kernel that does not account I/O is said to lack it."""
    host = tree("none")
    session = process_io.COLLECTOR.open(host, resolve(host, MAIN_PID, only_pid=False))

    with pytest.raises(Unavailable, match="/io: no such file"):
        list(session.poll())


@pytest.mark.system
def test_network_is_that_of_the_target(spawn: Callable[..., object], needs_root: None) -> None:
    """A service in a namespace of its own has its own interfaces, not those of perfkit."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    child = spawn(
        "import ctypes, sys; ctypes.CDLL(None).unshare(0x40000000);"
        "print('ready', flush=True); sys.stdin.readline()"
    )
    host = Host()
    target = resolve(host, child.pid, only_pid=True, own_pid=-1)

    values = values_of(network.read(host, target))

    assert values["network_received_bytes_total", "lo"] == 0
    assert values["network_tcp_received_segments_total",] == 0


def test_network_of_a_process_that_is_gone_is_unavailable(tree: Tree) -> None:
    """Where the pid belongs to another process by now, nothing is read of that one."""
    target = resolve(tree("v2"), MAIN_PID, only_pid=False)
    later = Host(tree("v1").proc.parent / "nowhere", tree("v1").sys)

    with pytest.raises(Unavailable, match="no process of the service is left"):
        list(network.read(later, target))


@pytest.mark.parametrize("text", ["", "Tcp:", "Tcp: A B\n", "Tcp: RetransSegs\nUdp: 1\n", "\n\n"])
def test_network_leaves_out_what_is_malformed(text: str) -> None:
    """A line of names without its line of numbers gives no reading."""
    assert list(network.parse_protocols("snmp", text)) == []


@pytest.mark.parametrize("text", ["zz", "00000001 xyz", "eth0 1 2 3", "eth0: 1 2", "TCP: inuse"])
def test_network_survives_garbled_lines(text: str) -> None:
    """Interfaces, sockets and soft interrupts that cannot be read are left out."""
    parsers = (network.parse_interfaces, network.parse_sockets, network.parse_softnet)

    assert [one for parse in parsers for one in parse(text)] == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Out of memory: Killed process 71 (java) total-vm:1kB", "oom"),
        ("Memory cgroup out of memory: Killed process 3 (x)", "oom"),
        ("e1000e 0000:00:1f.6 eno1: NIC Link is Down", "link"),
        ("IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready", "link"),
        ("INFO: task jbd2/vda-8:231 blocked for more than 120 seconds.", "hang"),
        ("watchdog: BUG: soft lockup - CPU#3 stuck for 22s!", "hang"),
        ("mce: [Hardware Error]: Machine check events logged", "hardware"),
        ("NETDEV WATCHDOG: eth0 (igb): transmit queue 3 timed out", "nic"),
        ("NVRM: Xid (PCI:0000:17:00): 79, GPU has fallen off the bus.", "xid"),
        ("I/O error, dev sdb, sector 2048 op 0x0:(READ)", "disk"),
        ("EXT4-fs (vda): mounted filesystem", ""),
    ],
)
def test_kernel_messages_have_a_kind(text: str, kind: str) -> None:
    """What an operator must know is told apart from what is merely said."""
    assert kernel_events.find_kind(text) == kind


@pytest.mark.parametrize("record", ["", "x;y", "6,1;", ";text", "6,x,1,-;text", "6", "6,1,2"])
def test_kernel_record_that_is_malformed_is_left_out(record: str) -> None:
    """A record that is cut or garbled is none."""
    assert kernel_events.parse_record(record) is None


def fake_log(folder: Path) -> tuple[Host, Callable[[str], None]]:
    """A host whose log is a file, and what appends a record; one line a read, as the kernel."""
    log = folder / "dev" / "kmsg"
    log.parent.mkdir()
    log.write_text("6,1,1,-;Out of memory: long ago\n")

    def say(record: str) -> None:
        with log.open("a") as file:
            file.write(record)

    return Host(folder / "proc", folder / "sys", lambda: 7), say


def test_kernel_events_begin_with_the_window(tmp_path: Path) -> None:
    """Old messages are not read, and only the kernel's own are kept."""
    host, say = fake_log(tmp_path)
    session = kernel_events.COLLECTOR.open(host, HOST_TARGET)

    say("4,2,5,-;Out of memory: Killed process 9 (x)\n SUBSYSTEM=y\n")
    found = list(session.poll())
    say("12,3,6,-;Out of memory: says a program\n")
    forged = list(session.poll())

    list(session.close())
    message = "Out of memory: Killed process 9 (x)"
    assert found == [Row("kernel_events", (7, "oom", 4, message))]
    assert forged == []


def test_kernel_events_count_what_was_overwritten(tmp_path: Path) -> None:
    """A gap in the numbers of the records is counted as dropped."""
    host, say = fake_log(tmp_path)
    session = kernel_events.COLLECTOR.open(host, HOST_TARGET)

    say("6,10,5,-;quiet")
    list(session.poll())
    say("6,34,5,-;quiet")
    found = list(session.poll())

    list(session.close())
    assert found == [Rows("kernel_events", (), 0, 23)]


@pytest.mark.system
def test_kernel_events_tell_of_a_link(needs_root: None) -> None:
    """A link that comes up in the window is told."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip of iproute2")
    try:
        session = kernel_events.COLLECTOR.open(Host(), HOST_TARGET)
    except Unavailable as absent:
        pytest.skip(absent.reason)
    space = f"perfkit-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", space], check=True)
    try:
        pair = ["ip", "-n", space, "link", "add", "one", "type", "veth", "peer", "name", "two"]
        subprocess.run(pair, check=True)
        for name in ("one", "two"):
            subprocess.run(["ip", "-n", space, "link", "set", name, "up"], check=True)
        texts = wait_for_events(session)
    finally:
        subprocess.run(["ip", "netns", "delete", space], check=True)
        list(session.close())

    if not texts:
        pytest.skip("this kernel says nothing of links")
    assert {row[1] for row in texts} == {"link"}


def wait_for_events(session: Session) -> list[tuple[int | float | str, ...]]:
    """Polls for a second, or until something was told."""
    end = time.monotonic() + 1.0
    found: list[tuple[int | float | str, ...]] = []
    while not found and time.monotonic() < end:
        found = rows_of(session)
        time.sleep(0.05)
    return found


@pytest.mark.system
def test_kernel_events_refused_say_what_would_help(needs_root: None) -> None:
    """Without the right to read the log the status names the grant."""
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() != "1":
        pytest.skip("kernel.dmesg_restrict is 0 here: everybody may read the log")
    source = (
        "import os\nfrom perfkit.collectors import kernel_events\nfrom perfkit.host import Host\n"
        "from perfkit.errors import Unavailable\nos.setuid(65534)\n"
        "try: kernel_events.open_log(Host())\nexcept Unavailable as absent: print(absent.grant)"
    )
    command = [sys.executable, "-c", source]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "CAP_SYSLOG" in ended.stdout, ended.stderr


@pytest.mark.parametrize("text", ["", "x", "8:0", "8:0 rbytes=", "8:0 rbytes=x", "rbytes=5 8:0"])
def test_cgroup_io_survives_garbled_lines(text: str) -> None:
    """Lines without a device or a number change nothing."""
    found = cgroup_io.parse_keyed(text, cgroup_io.STAT_2)

    assert not any(found.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max\n", -1),
        ("536870912\n", 536870912),
        ("9223372036854771712\n", -1),
        ("", -1),
        ("-1", -1),
        ("9" * 40, -1),
    ],
)
def test_cgroup_memory_knows_no_limit(text: str, expected: int) -> None:
    """Both ways of saying "no limit", and anything else, are told from a number of bytes."""
    assert cgroup_memory.to_number(text) == expected


@pytest.fixture
def memory_group(needs_root: None) -> Iterator[Path]:
    """An own memory cgroup below the one that this process is in; removed afterwards."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.split(":", 2)[2] for line in lines if ":memory:" in line), None)
    base = Path("/sys/fs/cgroup/memory")
    if own is None or not (base / own.strip("/")).is_dir():
        pytest.skip("needs the memory controller of cgroup version 1")
    group = base / own.strip("/") / f"perfkit-test-{os.getpid()}"
    group.mkdir()
    yield group
    (group.parent / "cgroup.procs").write_text("0")
    for pid in (group / "cgroup.procs").read_text().split():
        (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()


@pytest.mark.system
def test_cgroup_memory_tells_a_real_limit(memory_group: Path, spawn: Callable[..., object]) -> None:
    """A process in a cgroup of 64 MiB is told with that limit, and with what it uses."""
    child = spawn(SLEEPER)
    (memory_group / "memory.limit_in_bytes").write_text(str(64 << 20))
    (memory_group / "cgroup.procs").write_text(str(child.pid))

    rows = rows_of(open_on(cgroup_memory.COLLECTOR, child.pid))

    own = [row for row in rows if row[3] == 1]
    assert [row[4] for row in own] == [64 << 20]
    assert [row[1] for row in rows if row[3] == 0][-1] == "/"
    (memory_group.parent / "cgroup.procs").write_text(str(child.pid))
