"""Machines, as near as one kernel gives them: each with its own network, processes and name.

perfkit is used on another, as somebody on call would.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd import AGENT, Hosts, serving, to_environment, to_options
from test_ssh import SERVICE

from perfkit.codec import decode

PERFKIT = (sys.executable, "-m", "perfkit")
NAMES = ("shard-a", "shard-b")
IDLE = "shard-c"
Run = Callable[..., subprocess.CompletedProcess[str]]


def ip(*words: str) -> None:
    """Changes the network, or skips the test where that may not be done."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def machine(folder: Path, name: str, number: int) -> Iterator[str]:
    """A machine with this name: a network, processes and a host name of its own, and an sshd."""
    space, link = f"pk{os.getpid()}-{number}", f"pk{os.getpid() % 10_000}-{number}"
    here, there = f"10.231.{number}.1", f"10.231.{number}.2"
    ip("netns", "add", space)
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("addr", "add", f"{here}/30", "dev", link)
        ip("link", "set", link, "up")
        ip("-n", space, "addr", "add", f"{there}/30", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        apart = ("unshare", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child")
        named = ("sh", "-c", f'hostname {name}; "$@"; exit 1', "sh")
        with serving(folder, there, 22, "ip", "netns", "exec", space, *apart, *named):
            yield there
    finally:
        subprocess.run(["ip", "netns", "del", space], check=False)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A user who knows both machines, on each of which a service runs, and one that is idle."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, ip (iproute2) and unshare (util-linux)")
    folder = tmp_path_factory.mktemp("machines")
    found = Hosts(folder, to_environment(folder))
    found.configure("shard-*", f'agent = "{AGENT}"')
    with contextlib.ExitStack() as stack:
        for number, name in enumerate((*NAMES, IDLE), 1):
            address = stack.enter_context(machine(folder, name, number))
            found.add(name, *to_options(folder, address, 22))
        for name in NAMES:
            stack.enter_context(service_on(folder, name))
        yield found


@contextlib.contextmanager
def service_on(folder: Path, name: str) -> Iterator[None]:
    """A service on a machine, started over ssh as people do."""
    script = folder / "service.py"
    script.write_text(SERVICE)
    child = subprocess.Popen(
        ["ssh", "-F", str(folder / "ssh_config"), name, f"exec {sys.executable} {script}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        yield
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


@pytest.fixture
def perfkit(hosts: Hosts) -> Run:
    """Runs perfkit on the third machine."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*PERFKIT, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=hosts.environment
        )

    return run


@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
def test_each_machine_is_diagnosed_by_its_name(perfkit: Run, name: str) -> None:
    """The report is that machine's, of the service that runs there, within seconds."""
    begin_s = time.monotonic()

    done = perfkit("diagnose", name, "--seconds", "2", "--json", "--quiet")

    took_s = time.monotonic() - begin_s
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (report["host"], report["target"]["reached_as"]) == (name, name)
    assert report["target"]["listening"][0].startswith("127.0.0.1:")
    assert report["budget"]["answers_per_second"] > 20
    assert took_s < 2 + 5


@pytest.mark.system
def test_both_are_recorded_in_the_same_round(perfkit: Run, hosts: Hosts) -> None:
    """One line a machine, and windows that fall together."""
    done = perfkit("record", *NAMES, "--seconds", "1", "--quiet")

    lines = [line.split() for line in done.stdout.splitlines()]
    folder = hosts.folder / "state" / "perfkit" / "runs"
    headers = [decode((folder / f"{run}.capture").read_bytes()).header for _, run in lines]
    assert done.returncode == 0, done.stderr
    assert sorted(name for name, _ in lines) == list(NAMES)
    assert {header.host for header in headers} == set(NAMES)
    assert abs(headers[0].clock.start_utc_ns - headers[1].clock.start_utc_ns) < 2e9


@pytest.mark.system
def test_sshd_is_not_what_is_looked_at(perfkit: Run, hosts: Hosts) -> None:
    """Where nothing serves but the sshd that let us in, no service is found."""
    done = perfkit("diagnose", IDLE, "--seconds", "2", "--json", "--quiet")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"]["kind"] == "host"


@pytest.mark.system
def test_doctor_looks_at_the_other_machine(perfkit: Run) -> None:
    """What is tried is tried there, on the service there."""
    done = perfkit("doctor", NAMES[0], "--json", "--quiet")

    found = json.loads(done.stdout)
    assert found["host"] == NAMES[0]
    assert "saved runs" not in {one["source"] for one in found["checks"]}
    assert "serving" in found["target"]
