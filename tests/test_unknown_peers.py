"""Waits for peers that nothing names: said, and no reason to rule a slow peer out."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from perfkit.agent.record import RecordOptions, record
from perfkit.analysis.analyse import analyse
from perfkit.analysis.states import UNKNOWN_PEER
from perfkit.codec import decode

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


def test_peers_of_connections_opened_per_call_are_not_ruled_out(spawn: Spawn) -> None:
    """What waits for a peer that is not known is called that, and downstream_slow not checked."""
    upstream = spawn(UPSTREAM)
    caller = spawn(CALLER, upstream.first_line)  # type: ignore[attr-defined]
    time.sleep(0.3)
    capture = decode(record(RecordOptions(pid=caller.pid, seconds=3.0, probe=False)))

    report = analyse(capture)

    assert report.budget is not None
    assert report.budget.threads[0].culprit == UNKNOWN_PEER
    assert "downstream_slow" in [skip.what for skip in report.not_checked]
    assert "downstream_slow" not in [one.id for one in report.ruled_out]
