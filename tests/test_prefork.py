"""Requests of one process of a service that shares its listening socket, against its own count."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from msgspec import Struct

from perfkit.agent.record import RecordOptions, record
from perfkit.analysis.align import align
from perfkit.analysis.analyse import analyse
from perfkit.analysis.requests import read_requests
from perfkit.codec import decode
from perfkit.model import Capture

Spawn = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.system
WINDOW_S = 4.0

# Three workers accept at one socket and note the instant of each answer; a line asks for the notes.
# It is no child of the test, whose own processes are never part of a target.
PREFORK = """
import json, os, socket, sys, threading, time
if os.fork():
    os._exit(0)
server = socket.create_server(("127.0.0.1", 0), backlog=128)

def serve(client, log):
    with client:
        while client.recv(100):
            time.sleep(0.01)
            client.sendall(b"answer")
            log.append(time.monotonic_ns())

def work(order, told):
    log = []
    def accept():
        while True:
            client, _ = server.accept()
            threading.Thread(target=serve, args=(client, log), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    os.read(order, 1)
    os.write(told, json.dumps(log).encode() + b"\\n")
    os._exit(0)

workers = []
for _ in range(3):
    order, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        work(order[0], told[1])
    workers.append((pid, order[1], told[0]))
print(server.getsockname()[1], os.getpid(), *(pid for pid, _, _ in workers), flush=True)
sys.stdin.readline()
for pid, order, told in workers:
    os.write(order, b".")
    with os.fdopen(told) as file:
        print(pid, file.readline(), flush=True)
sys.stdin.readline()
"""

# Asks again and again on connections that stay, or on a new one for each question.
CLIENT = """
import socket, sys, threading, time
port, kept, per_second = int(sys.argv[1]), sys.argv[2] == "kept", float(sys.argv[3])

def ask(pause_s):
    with socket.create_connection(("127.0.0.1", port)) as server:
        while True:
            server.sendall(b"question")
            server.recv(100)
            time.sleep(pause_s)
            if not kept:
                return

def ask_on():
    while True:
        ask(9 / per_second)

for _ in range(9):
    threading.Thread(target=ask_on, daemon=True).start()
print("started", flush=True)
sys.stdin.readline()
"""


class Served(Struct, frozen=True):
    """A capture, and the answers that each worker noted inside its window, by pid."""

    capture: Capture
    answers: dict[int, int]


def _numbers(child: subprocess.Popen[str]) -> list[int]:
    return [int(word) for word in child.first_line.split()]  # type: ignore[attr-defined]


def _serve(spawn: Spawn, kind: str, named: Callable[[int, list[int]], int]) -> Served:
    """Records one process of a prefork server, with what is below it, while it answers."""
    server = spawn(PREFORK)
    port, parent, *workers = _numbers(server)
    spawn(CLIENT, str(port), kind, "90")
    time.sleep(0.5)
    options = RecordOptions(
        pid=named(parent, workers), only_pid=True, seconds=WINDOW_S, probe=False
    )
    capture = decode(record(options))
    return Served(capture, dict(_notes(server, capture, len(workers))))


def _notes(
    server: subprocess.Popen[str], capture: Capture, count: int
) -> Iterator[tuple[int, int]]:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    clock = capture.header.clock
    for _ in range(count):
        pid, notes = server.stdout.readline().split(None, 1)
        server.stdout.readline()
        instants = json.loads(notes)
        yield int(pid), sum(clock.start_ns <= at < clock.end_ns for at in instants)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_worker_is_credited_with_its_own_requests_only(spawn: Spawn, place: int) -> None:
    """Of a listening socket that three share, one worker's answers are those that it noted."""
    served = _serve(spawn, "kept", lambda _, workers: workers[place])

    told = read_requests(align(served.capture)).answer_count
    pid = served.capture.header.target.main_pid
    assert told == pytest.approx(served.answers[pid], rel=0.10), served.answers


def test_a_parent_is_credited_with_the_requests_of_its_children(spawn: Spawn) -> None:
    """With --only-pid the parent is looked at with all of its descendants."""
    served = _serve(spawn, "kept", lambda parent, _: parent)

    told = read_requests(align(served.capture)).answer_count
    assert len(served.capture.header.target.processes) == 4
    assert told == pytest.approx(sum(served.answers.values()), rel=0.10), served.answers


def test_short_connections_of_a_parent_count_whole(spawn: Spawn) -> None:
    """Where all who listen are looked at, connections that lived for one request are counted."""
    served = _serve(spawn, "brief", lambda parent, _: parent)

    told = read_requests(align(served.capture)).answer_count
    assert told == pytest.approx(sum(served.answers.values()), rel=0.10), served.answers


def test_short_connections_at_a_shared_socket_are_said_not_to_be_counted(spawn: Spawn) -> None:
    """Whose they were is not known: none is credited to the one worker, and the report says so."""
    served = _serve(spawn, "brief", lambda _, workers: workers[0])

    told = read_requests(align(served.capture)).answer_count
    port = served.capture.header.target.listening[0].rpartition(":")[2]
    pid = served.capture.header.target.main_pid
    assert told <= 1.1 * served.answers[pid], served.answers
    [said] = [one for one in analyse(served.capture).not_checked if port in one.what]
    assert "other processes listen" in said.why
