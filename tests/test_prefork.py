"""Requests of one process of a service that shares its listening socket, against its own count."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import pytest
from msgspec import Struct

from perfkit.analysis.align import align
from perfkit.analysis.analyse import analyse
from perfkit.analysis.requests import read_requests
from perfkit.codec import decode
from perfkit.model import Capture

AGENT = (sys.executable, "-c", "from perfkit.agent.command import start; start()")
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
port, kept, per_second = int(sys.stdin.readline()), sys.argv[1] == "kept", 90

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


def _start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _serve(kind: str, places: tuple[int, ...]) -> list[Served]:
    """Records processes of a prefork server, each with what is below it, while it answers.

    Of `places`, 0 is the parent and the others are its workers; all are recorded side by side.
    """
    with _start(PREFORK) as server, _start(CLIENT, kind) as client:
        assert server.stdin and server.stdout and client.stdin and client.stdout
        port, *pids = (int(word) for word in server.stdout.readline().split())
        client.stdin.write(f"{port}\n")
        client.stdin.flush()
        client.stdout.readline()
        time.sleep(0.5)
        with ThreadPoolExecutor(len(places)) as pool:
            captures = list(pool.map(_record, [pids[place] for place in places]))
        server.stdin.write("\n")
        server.stdin.flush()
        notes = dict(_read_notes(server.stdout) for _ in pids[1:])
    return [Served(one, _count(notes, one)) for one in captures]


def _record(pid: int) -> Capture:
    """A window of one process and its descendants, by an agent of its own."""
    words = ("record", "--pid", str(pid), "--only-pid", "--seconds", str(WINDOW_S), "--no-probe")
    return decode(subprocess.run([*AGENT, *words], stdout=subprocess.PIPE, check=True).stdout)


def _read_notes(out: IO[str]) -> tuple[int, list[int]]:
    pid, notes = out.readline().split(None, 1)
    out.readline()
    return int(pid), json.loads(notes)


def _count(notes: dict[int, list[int]], capture: Capture) -> dict[int, int]:
    clock = capture.header.clock
    return {
        pid: sum(clock.start_ns <= at < clock.end_ns for at in instants)
        for pid, instants in notes.items()
    }


@pytest.fixture(scope="module")
def kept() -> list[Served]:
    """The parent and each worker while questions come on connections that stay."""
    return _serve("kept", (0, 1, 2, 3))


@pytest.fixture(scope="module")
def brief() -> list[Served]:
    """The parent and one worker while each question comes on a connection of its own."""
    return _serve("brief", (0, 1))


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_worker_is_credited_with_its_own_requests_only(kept: list[Served], place: int) -> None:
    """Of a listening socket that three share, one worker's answers are those that it noted."""
    served = kept[place]

    told = read_requests(align(served.capture)).answer_count
    pid = served.capture.header.target.main_pid
    assert told == pytest.approx(served.answers[pid], rel=0.10), served.answers


def test_a_parent_is_credited_with_the_requests_of_its_children(kept: list[Served]) -> None:
    """With --only-pid the parent is looked at with all of its descendants."""
    served = kept[0]

    told = read_requests(align(served.capture)).answer_count
    assert len(served.capture.header.target.processes) == 4
    assert told == pytest.approx(sum(served.answers.values()), rel=0.10), served.answers


def test_short_connections_of_a_parent_count_whole(brief: list[Served]) -> None:
    """Where all who listen are looked at, connections that lived for one request are counted."""
    served = brief[0]

    told = read_requests(align(served.capture)).answer_count
    assert told == pytest.approx(sum(served.answers.values()), rel=0.10), served.answers


def test_short_connections_at_a_shared_socket_are_said_not_to_be_counted(
    brief: list[Served],
) -> None:
    """Whose they were is not known: none is credited to the one worker, and the report says so."""
    served = brief[1]

    told = read_requests(align(served.capture)).answer_count
    port = served.capture.header.target.listening[0].rpartition(":")[2]
    pid = served.capture.header.target.main_pid
    assert told <= 1.1 * served.answers[pid], served.answers
    [said] = [one for one in analyse(served.capture).not_checked if port in one.what]
    assert "other processes listen" in said.why
