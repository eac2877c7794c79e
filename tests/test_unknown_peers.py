"""Waits on connections opened for one call: charged to the peer, or said to be unknown."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from perfkit.agent.record import RecordOptions, record
from perfkit.analysis.analyse import analyse
from perfkit.analysis.states import UNKNOWN_PEER
from perfkit.codec import decode
from perfkit.model import Capture

Spawn = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.system

# Eight workers open a connection for each call to an upstream that answers after 60 ms.
CALLER = """
import socket, sys, threading, time
port = int(sys.argv[1])

def call():
    while True:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"question")
            peer.recv(100)

for _ in range(8):
    threading.Thread(target=call, daemon=True).start()
print("started", flush=True)
sys.stdin.readline()
"""
UPSTREAM = """
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0), backlog=128)
print(server.getsockname()[1], flush=True)

def serve(client):
    with client:
        client.recv(100)
        time.sleep(0.06)
        client.sendall(b"answer")

while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@pytest.fixture
def recorded(spawn: Spawn) -> tuple[Capture, str]:
    """What was recorded of the caller, and the address of its upstream."""
    upstream = spawn(UPSTREAM)
    port = upstream.first_line  # type: ignore[attr-defined]
    caller = spawn(CALLER, port)
    time.sleep(0.3)
    options = RecordOptions(pid=caller.pid, seconds=3.0, probe=False)
    return decode(record(options)), f"127.0.0.1:{port}"


def test_peers_of_connections_opened_per_call_are_named(recorded: tuple[Capture, str]) -> None:
    """What threads wait for on sockets that come and go is told by the notices of their end."""
    capture, upstream = recorded

    report = analyse(capture)

    assert report.budget is not None
    assert report.budget.threads[0].culprit == upstream
    assert report.budget.threads[0].share > 0.8


def test_peers_that_nothing_names_are_not_ruled_out(recorded: tuple[Capture, str]) -> None:
    """Without the notices the peer is called not known, and downstream_slow not checked."""
    capture, _ = recorded
    left = {name: capture.tables[name] for name in capture.tables if name != "socket_closed"}

    report = analyse(replace(capture, tables=left))

    assert report.budget is not None
    assert report.budget.threads[0].culprit == UNKNOWN_PEER
    assert "downstream_slow" in [skip.what for skip in report.not_checked]
    assert "downstream_slow" not in [one.id for one in report.ruled_out]
