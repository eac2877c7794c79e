"""Which processes make up the target, and how it is chosen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from perfkit.agent.census import to_service_name
from perfkit.agent.target import resolve
from perfkit.agent.tcptable import parse_address, read_tcp_table
from perfkit.errors import TargetError
from perfkit.host import Host
from perfkit.model import Target

Tree = Callable[[str], Host]
Spawn = Callable[..., "subprocess.Popen[str]"]

PREFORK = """
import os, socket, subprocess, sys, time
server = socket.create_server(("127.0.0.1", 0))
pids = []
for worker in range(2):
    pid = os.fork()
    if pid == 0:
        if worker == 0:
            subprocess.Popen(["sleep", "60"], close_fds=True)
        server.settimeout(60)
        kept = [server.accept()[0] for _ in range(9)]
    pids.append(pid)
print(*pids, server.getsockname()[1], flush=True)
sys.stdin.readline()
"""

REUSEPORT = """
import subprocess, socket, sys
probe = socket.socket(); probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
probe.bind(("127.0.0.1", 0)); port = probe.getsockname()[1]
one = '''
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); print("up", flush=True); sys.stdin.read()
'''
kids = [subprocess.Popen([sys.executable, "-c", one, str(port)], stdout=subprocess.PIPE,
        stdin=subprocess.PIPE, text=True) for _ in range(2)]
[kid.stdout.readline() for kid in kids]
print(*(kid.pid for kid in kids), flush=True)
sys.stdin.readline()
"""

SERVER = """
import socket, sys, threading
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
kept = []
def accept():
    while True:
        kept.append(server.accept()[0])
        kept[-1].sendall(b"accepted")
threading.Thread(target=accept, daemon=True).start()
if len(sys.argv) > 1:
    while True: sum(range(10000))
sys.stdin.readline()
"""

CLIENT = """
import socket, sys
kept = [socket.create_connection(("127.0.0.1", int(port))) for port in sys.argv[1:]]
for connection in kept:
    connection.recv(1)  # The kernel connects before the server accepts: wait for its word.
print("connected", flush=True)
while True: sum(range(10000))
"""


def roles(target: Target) -> dict[int, str]:
    """The role of each process of the service."""
    return {ref.pid: ref.role for ref in target.processes}


def numbers(child: subprocess.Popen[str]) -> list[int]:
    """The numbers in the first line that a program printed."""
    return [int(word) for word in child.first_line.split()]  # type: ignore[attr-defined]


@pytest.mark.system
@pytest.mark.parametrize("named", ["master", "worker"])
def test_target_is_the_whole_preforked_service(spawn: Spawn, named: str) -> None:
    """Naming the master or a worker gives both, the other worker, and their children."""
    master = spawn(PREFORK)
    first, second, port = numbers(master)
    grandchild = wait_for_child(first)

    target = resolve(Host(), master.pid if named == "master" else first, only_pid=False, own_pid=-1)

    assert roles(target) == {
        master.pid: "main",
        first: "worker",
        second: "worker",
        grandchild: "child",
    }
    assert target.listening == (f"127.0.0.1:{port}",)
    assert target.main_pid == master.pid


def wait_for_child(pid: int) -> int:
    """The pid of the first child that a process has started."""
    deadline = time.monotonic() + 10
    while not (children := psutil.Process(pid).children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return children[0].pid


@pytest.mark.system
def test_target_joins_reuseport_siblings_and_their_parent(spawn: Spawn) -> None:
    """Workers that listen at one port each by a socket of their own, and their like parent."""
    parent = spawn(REUSEPORT)
    first, second = numbers(parent)

    target = resolve(Host(), first, only_pid=False, own_pid=-1)

    assert roles(target) == {parent.pid: "main", first: "worker", second: "worker"}
    assert f"part of the service of pid {parent.pid}" in target.chosen_by


@pytest.mark.system
def test_target_leaves_a_shell_out(spawn: Spawn) -> None:
    """A shell that started a server is no part of its service, nor is a second server of it."""
    starter = """
import subprocess, sys
shell = subprocess.Popen(["bash", "-c", 'for i in 1 2; do "$0" -c "$1" & done; wait',
    sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)
ports = [shell.stdout.readline(), shell.stdout.readline()]
print(shell.pid, flush=True)
sys.stdin.readline()
"""
    server = SERVER.replace("sys.stdin.readline()", "threading.Event().wait()")
    shell_pid = numbers(spawn(starter, server))[0]
    pids = [child.pid for child in psutil.Process(shell_pid).children()]

    target = resolve(Host(), pids[0], only_pid=False, own_pid=-1)

    assert roles(target) == {pids[0]: "main"}


@pytest.mark.system
def test_target_alone_is_a_process_and_its_descendants(spawn: Spawn) -> None:
    """With only_pid those that merely share its socket are left out; its sockets are still told."""
    master = spawn(PREFORK)
    first, _, port = numbers(master)
    grandchild = wait_for_child(first)

    target = resolve(Host(), first, only_pid=True, own_pid=-1)

    assert (target.kind, roles(target)) == ("process", {first: "main", grandchild: "child"})
    assert target.listening == (f"127.0.0.1:{port}",)
    assert target.shared_ports == (port,)


@pytest.mark.system
def test_port_of_a_whole_service_is_not_shared(spawn: Spawn) -> None:
    """The parent with all of its descendants has its socket to itself."""
    master = spawn(PREFORK)

    target = resolve(Host(), master.pid, only_pid=True, own_pid=-1)

    assert len(target.processes) >= 3
    assert target.shared_ports == ()


@pytest.mark.system
def test_port_that_another_socket_listens_at_too_is_shared(spawn: Spawn) -> None:
    """With SO_REUSEPORT each process has a socket of its own at one address."""
    first, _ = numbers(spawn(REUSEPORT))

    target = resolve(Host(), first, only_pid=True, own_pid=-1)

    assert [f"127.0.0.1:{port}" for port in target.shared_ports] == list(target.listening)


@pytest.mark.system
def test_busiest_serving_service_is_chosen(spawn: Spawn) -> None:
    """Of two services with clients the busier one is chosen, never the burning client."""
    idle, busy, lonely = spawn(SERVER), spawn(SERVER, "burn"), spawn(SERVER, "burn")
    spawn(CLIENT, idle.first_line, busy.first_line)  # type: ignore[attr-defined]

    target = resolve(Host(), None, only_pid=False, own_pid=-1)

    assert target.main_pid == busy.pid
    assert lonely.pid not in roles(target)
    assert target.chosen_by.startswith("busiest of ")
    assert target.chosen_by.endswith("% of a core")


APART = """
import ctypes, fcntl, socket, struct, sys
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:
    print("refused", flush=True); sys.exit()
raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(raw, 0x8914, struct.pack("16sh14x", b"lo", 1))
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted = server.accept()
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
"""


@pytest.mark.system
@pytest.mark.usefixtures("needs_root")
def test_sockets_are_read_in_the_network_of_the_target(spawn: Spawn) -> None:
    """A service in a network namespace of its own is told with that network's listeners."""
    child = spawn(APART)
    if child.first_line == "refused":  # type: ignore[attr-defined]
        pytest.skip("this machine lets nobody make a network namespace")

    target = resolve(Host(), child.pid, only_pid=False, own_pid=-1)

    assert target.listening == (f"127.0.0.1:{numbers(child)[0]}",)
    assert target.network_namespace != Path("/proc/self/ns/net").stat().st_ino


def test_service_of_a_tree_is_chosen_by_its_connections(tree: Tree) -> None:
    """On the fixture host only gunicorn has accepted connections, so it is the one."""
    target = resolve(tree("v2"), None, only_pid=False, own_pid=-1)

    assert target.chosen_by == "the only serving service"
    assert list(roles(target).values()) == ["main", "worker", "worker", "child"]
    assert [ref.name for ref in target.siblings] == ["log-shipper"]
    assert (target.name, target.listening) == ("gunicorn", ("0.0.0.0:8080",))
    assert (target.network_namespace, target.allowed_cpu_count) == (4026531840, 4)


def test_connections_that_the_server_closed_count_too(tmp_path: Path) -> None:
    """A server of one answer a connection is known by those it closed, which are in TIME_WAIT."""
    rows = [
        ("0100007F:1F90", "00000000:0000", "0A", 5),
        *[("0100007F:1F90", f"0100007F:C00{number}", "06", 0) for number in range(3)],
        ("0100007F:1F91", "0100007F:C009", "06", 0),
    ]
    lines = [f"0: {near} {far} {state} 0:0 0:0 0 0 0 {inode} 1" for near, far, state, inode in rows]
    (tmp_path / "7" / "net").mkdir(parents=True)
    (tmp_path / "7" / "net" / "tcp").write_text("\n".join(["header", *lines]))

    table = read_tcp_table(Host(tmp_path, tmp_path), 7)

    assert table is not None
    assert [(one.text, table.count_accepted(one)) for one in table.listeners] == [
        ("127.0.0.1:8080", 3)
    ]


@pytest.mark.parametrize("tree_name", ["none"])
def test_root_cgroup_makes_no_siblings(tree: Tree, tree_name: str) -> None:
    """Where no cgroup is to be seen, a service has no siblings."""
    target = resolve(tree(tree_name), 5000001, only_pid=False, own_pid=-1)

    assert target.siblings == ()


def test_no_server_gives_the_host(tmp_path: Path) -> None:
    """With nothing that serves, the host itself is the target, and the words say so."""
    (tmp_path / "proc").mkdir()

    target = resolve(Host(tmp_path / "proc", tmp_path), None, only_pid=False, own_pid=-1)

    assert (target.kind, target.processes) == ("host", ())
    assert "no service with accepted connections" in target.chosen_by


@pytest.mark.parametrize(
    ("pid", "words"),
    [
        (5999999, "no process has the pid 5999999"),
        (5000008, "is a zombie"),
        (5000007, "is a kernel thread"),
        (5000002, "is perfkit itself"),
    ],
)
def test_impossible_target_is_refused(tree: Tree, pid: int, words: str) -> None:
    """A pid that cannot be looked at gives one clear line and a fix."""
    with pytest.raises(TargetError, match=words) as caught:
        resolve(tree("v2"), pid, only_pid=False, own_pid=5000002)

    assert caught.value.fix


def test_own_process_is_never_part_of_a_service(tree: Tree) -> None:
    """When perfkit was started by the service, it and its children are left out."""
    target = resolve(tree("v2"), 5000001, only_pid=False, own_pid=5000002)

    assert sorted(roles(target)) == [5000001, 5000003]


def resolve_as_nobody(pid: int | None) -> tuple[str, list[int]]:
    """What another user finds: how the target was chosen, and its pids."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        target = resolve(Host(), pid, only_pid=False, own_pid=-1)
        words = json.dumps([target.chosen_by, [ref.pid for ref in target.processes]])
        os.write(writer, words.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        found = json.load(stream)
    os.waitpid(child, 0)
    return found[0], found[1]


@pytest.mark.system
@pytest.mark.usefixtures("needs_root")
def test_target_of_another_user_is_its_tree(spawn: Spawn) -> None:
    """Without the right to read descriptors the tree is taken, and the words say what lacks."""
    master = spawn(PREFORK)

    words, pids = resolve_as_nobody(master.pid)

    assert "its sockets cannot be read" in words
    assert {master.pid, *numbers(master)[:2]} <= set(pids)


@pytest.mark.system
@pytest.mark.usefixtures("needs_root")
def test_closed_processes_are_not_taken_for_absent(spawn: Spawn) -> None:
    """Who may look at no process hears that, not only that no service was found."""
    spawn(PREFORK)

    words, _ = resolve_as_nobody(None)

    pattern = r"was found \((?:1 process is|\d+ processes are) closed to this user; root or CAP_"
    assert re.search(pattern, words)


@pytest.mark.system
@pytest.mark.usefixtures("needs_root")
def test_descriptors_that_may_be_listed_but_not_followed_are_refused() -> None:
    """Root without CAP_SYS_PTRACE lists the descriptors of who has it, and sees none of their ends.

    So it is for root in a container; an empty list would say that nothing is open.
    """
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    source = f"from perfkit import _native; _native.list_fds('/proc', {os.getpid()}, 100)"
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", source)

    ended = subprocess.run(without, capture_output=True, text=True, check=False)

    assert "PermissionError" in ended.stderr, ended


def build_crowd(root: Path, count: int) -> None:
    """A tree of /proc with many processes of ten descriptors each."""
    table = "  sl  local_address\n   0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 1 1\n"
    for pid in range(5000000, 5000000 + count):
        folder = root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "ns").mkdir()
        (folder / "net").mkdir()
        (folder / "ns/net").symlink_to("net:[1]")
        (folder / "net/tcp").write_text(table)
        (folder / "cgroup").write_text("0::/\n")
        (folder / "cmdline").write_text("x\0")
        fields = "S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0 77 0 0 " + "0 " * 30
        (folder / "stat").write_text(f"{pid} (x) {fields}\n")
        for number in range(10):
            (folder / f"fd/{number}").symlink_to(f"socket:[{pid * 10 + number}]")


def test_target_is_found_among_2000_processes_in_half_a_second(tmp_path: Path) -> None:
    """Neither the way by pid nor the way by load takes longer than 0.5 s on a full host."""
    build_crowd(tmp_path / "proc", 2000)
    host = Host(tmp_path / "proc", tmp_path / "sys")

    begin = time.process_time()
    resolve(host, 5000000, only_pid=False, own_pid=-1)
    by_pid_s = time.process_time() - begin
    resolve(host, None, only_pid=False, own_pid=-1)
    by_load_s = time.process_time() - begin - by_pid_s

    assert max(by_pid_s, by_load_s) < 0.5


def test_command_line_that_blocks_does_not_delay(tree: Tree, tmp_path: Path) -> None:
    """A service whose memory lock is held is called by its short name instead."""
    subprocess.run(["cp", "-a", str(tree("v2").proc), str(tmp_path)], check=True)
    path = tmp_path / "proc/5000001/cmdline"
    path.unlink()
    os.mkfifo(path)

    begin = time.monotonic()
    target = resolve(Host(tmp_path / "proc", tree("v2").sys), 5000001, only_pid=False, own_pid=-1)
    elapsed_s = time.monotonic() - begin

    threading.Thread(target=path.write_text, args=("",)).start()
    assert target.name == "gunicorn"
    assert elapsed_s < 0.5


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("nginx: master process /usr/sbin/nginx", "nginx"),
        ("/usr/bin/vector --config /secret", "vector"),
        ("python3 -m gunicorn app:make --token x", "gunicorn"),
        ("/opt/bin/python3.11 -X dev -u /srv/app.py --password x", "app.py"),
        ("python -c import~secret", "python"),
        ("python3", "python3"),
        ("", ""),
    ],
)
def test_service_is_called_by_what_it_runs(line: str, name: str) -> None:
    """The program, script or module names a service; no argument is ever shown."""
    words = [word.replace("~", " ") for word in line.split(" ")]

    assert to_service_name(words).rstrip(":") == name


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000000000000000000000000000", "::"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ("B80D0120000000000000000001000000", "2001:db8::1"),
    ],
)
def test_address_is_parsed(text: str, address: str) -> None:
    """Addresses are printed by the kernel as words in machine order; mapped ones are IPv4."""
    assert parse_address(text) == address
