"""Waits on connections opened for one call: charged to the peer, or said to be unknown."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from callers import CALLER, UPSTREAM
from msgspec.structs import replace

from perfkit.agent.record import RecordOptions, record
from perfkit.analysis.analyse import analyse
from perfkit.analysis.states import UNKNOWN_PEER
from perfkit.codec import decode
from perfkit.model import Capture

Spawn = Callable[..., "subprocess.Popen[str]"]
pytestmark = [pytest.mark.system, pytest.mark.usefixtures("full_rate")]


@pytest.fixture
def recorded(spawn: Spawn) -> tuple[Capture, str]:
    """What was recorded of the caller, and the address of its upstream.

    Whose a connection of one call is, is told where a listing of all meets one: by chance.
    """
    upstream = spawn(UPSTREAM)
    port = upstream.first_line  # type: ignore[attr-defined]
    caller = spawn(CALLER, port, "8")
    time.sleep(0.3)
    options = RecordOptions(pid=caller.pid, seconds=6.0, probe=False)
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
