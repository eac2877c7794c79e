"""Who on this host talks to the service, and how the CPU is shared with others: real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from perfkit.collectors._cgroup import Weights
from perfkit.collectors._partners import find_ends, parse_rows, read_ends, relation_of
from perfkit.demo import cgroups
from perfkit.host import Host
from perfkit.model import ProcessRef, Target

START = "import socket, sys; local = '127.0.0.1'; "
WAIT = "print('on', flush=True); sys.stdin.read()"
CLIENT = f"{START}s = socket.create_connection((local, int(sys.argv[1]))); {WAIT}"
PEER = (
    f"{START}s = socket.create_server((local, 0)); print(s.getsockname()[1], flush=True); "
    f"c = s.accept()[0]; {WAIT}"
)
# Its connection is not among its first descriptors.
LATE = CLIENT.replace("s = ", "kept = [open('/dev/null') for _ in range(300)]; s = ")
STRANGER = f"{START}{WAIT}"


def target_of(pid: int) -> Target:
    """A target of one process."""
    return Target("process", pid, "", "", (ProcessRef(pid, 1, 0, "", "", "/", "main"),))


def start(stack: ExitStack, code: str, *words: str) -> tuple[int, str]:
    """Starts a program that ends with its stdin; gives its pid and its first line."""
    child = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    assert child.stdin is not None
    assert child.stdout is not None
    stack.callback(child.stdin.close)
    return child.pid, child.stdout.readline().strip()


@pytest.fixture
def partners() -> Iterator[dict[str, int]]:
    """This process as the service: a client asks it, it asks a peer, a stranger does neither."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client, _ = start(stack, CLIENT, str(listener.getsockname()[1]))
        stack.enter_context(listener.accept()[0])
        late, _ = start(stack, LATE, str(listener.getsockname()[1]))
        stack.enter_context(listener.accept()[0])
        peer, port = start(stack, PEER)
        stack.enter_context(socket.create_connection(("127.0.0.1", int(port))))
        stranger, _ = start(stack, STRANGER)
        yield {"client": client, "late client": late, "peer": peer, "": stranger}


@pytest.mark.system
@pytest.mark.parametrize("partner", ["client", "late client", "peer", ""])
def test_relation_is_read_from_the_connections(partners: dict[str, int], partner: str) -> None:
    """Clients, peers and strangers of a service are told apart by their sockets."""
    ends = read_ends(Host(), target_of(os.getpid()))

    assert relation_of(Host(), partners[partner], ends) == partner.removeprefix("late ")


def test_mapped_addresses_meet_plain_ones() -> None:
    """A server that listens on IPv6 for IPv4 clients knows them too."""
    mapped = "0000000000000000FFFF00000100007F"
    line = " 0: {}:{} {}:{} {} 0:0 0:0 0 0 0 {} 1\n"
    six = "head\n" + line.format("0" * 32, "1F90", "0" * 32, "0000", "0A", 7)
    six += line.format(mapped, "1F90", mapped, "C000", "01", 8)
    four = "head\n" + line.format("0100007F", "C000", "0100007F", "1F90", "01", 9)

    ends = find_ends(parse_rows(six) + parse_rows(four), frozenset((7, 8)))

    assert (ends.clients, ends.peers) == (frozenset((9,)), frozenset())


@pytest.mark.system
def test_weights_are_read_where_cgroups_meet() -> None:
    """A process that lies in the common cgroup competes with the default weight."""
    if os.geteuid() != 0 or not cgroups.can_limit():
        pytest.skip("needs root and cgroups that can be written")
    group = cgroups.make_child_group(cgroups.own_group(os.getpid()), f"perfkit-test-{os.getpid()}")
    with ExitStack() as stack:
        stack.callback(cgroups.remove_group, group)
        pid, _ = start(stack, STRANGER)
        cgroups.set_weight(group, 0.25)
        cgroups.enter(group, pid)

        weights = Weights(Host(), target_of(os.getpid())).of(pid)

    default = 1024 if group.version == 1 else 100
    assert weights == (default // 4, default)
