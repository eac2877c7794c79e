"""Crowds for the tests of scale: very many processes; a service of very many threads and sockets.

Everything is started by pid and ended by pid, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from perfkit.demo import cgroups

END_LIMIT_S = 30.0
SLEEPERS = """
import os, shutil, signal, sys
sleep = shutil.which("sleep")
pids = [os.posix_spawn(sleep, [sleep, "600"], {}) for _ in range(int(sys.argv[1]))]
print("ready", flush=True)
sys.stdin.read()
for pid in pids:
    os.kill(pid, signal.SIGKILL)
for pid in pids:
    os.waitpid(pid, 0)
"""
# A connection of each of the first threads is served by that thread; the other ones stay silent.
SERVICE = """
import resource, socket, sys, threading, time
thread_count, socket_count, file_count, work_s = (float(word) for word in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
threading.stack_size(256 * 1024)

def serve(connection):
    while connection.recv(64):
        end = time.thread_time() + work_s
        while time.thread_time() < end:
            sum(range(500))
        connection.sendall(b"answer")

listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(listener.getsockname()[1], flush=True)
kept = [open("/dev/null") for _ in range(int(file_count))]
for place in range(int(socket_count)):
    connection, _ = listener.accept()
    kept.append(connection)
    if place < thread_count - 1:
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
print("full", flush=True)
sys.stdin.read()
"""
# An open loop: requests are sent at their times whether the last ones were answered or not.
CLIENT = """
import random, resource, select, socket, sys, threading, time
port, socket_count, used_count, rate = (int(word) for word in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(socket_count)]
print("connected", flush=True)
by_descriptor = {one.fileno(): one for one in sockets[:used_count]}
idle, poller = list(by_descriptor), select.epoll()
for descriptor in by_descriptor:
    poller.register(descriptor, select.EPOLLIN)
due = time.monotonic()
while True:
    while due <= time.monotonic():
        due += random.expovariate(rate)
        if idle:
            by_descriptor[idle.pop(random.randrange(len(idle)))].sendall(b"request")
    for descriptor, _ in poller.poll(max(0.001, due - time.monotonic())):
        if not by_descriptor[descriptor].recv(64):
            sys.exit()
        idle.append(descriptor)
"""


@contextlib.contextmanager
def python(source: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Runs a program of ours; closing its stdin asks it to end, and its group goes with it."""
    child = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None and child.stdin is not None
    try:
        yield child
    finally:
        child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_LIMIT_S if source == SLEEPERS else 0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.stdout.close()
        child.wait()


def read_word(child: subprocess.Popen[str]) -> str:
    """The next line that a program of ours prints."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


@contextlib.contextmanager
def sleeping(count: int) -> Iterator[None]:
    """This many processes that only sleep."""
    with python(SLEEPERS, count) as leader:
        assert read_word(leader) == "ready"
        yield


@contextlib.contextmanager
def serving(
    thread_count: int, socket_count: int, file_count: int = 0, rate_hertz: int = 40
) -> Iterator[int]:
    """A service under load, 6 ms of Python a request; gives its pid."""
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(
            python(SERVICE, thread_count, socket_count, file_count, 0.006)
        )
        port = read_word(service)
        used_count = min(socket_count, thread_count - 1)
        client = stack.enter_context(python(CLIENT, port, socket_count, used_count, rate_hertz))
        assert read_word(client) == "connected"
        assert read_word(service) == "full"
        yield service.pid


@contextlib.contextmanager
def throttled(pid: int, quota_us: int) -> Iterator[None]:
    """Gives a process `quota_us` of CPU time in each 100 ms. Raises: `CgroupError`."""
    home = cgroups.own_group(pid)
    group = cgroups.make_child_group(home, f"perfkit-test-{os.getpid()}")
    try:
        cgroups.set_quota(group, quota_us)
        cgroups.enter(group, pid)
        yield
    finally:
        with contextlib.suppress(OSError):
            cgroups.enter(home, pid)
        cgroups.remove_group(group)
