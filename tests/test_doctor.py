"""`perfkit doctor`: what is tried for real, what is said of it, and the grant for each place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from perfkit import discover
from perfkit.agent.doctor import Check, Examination, to_checks, to_place
from perfkit.cli._grants import PLACES, find_capabilities, find_others, to_grant
from perfkit.cli.doctor import _layout
from perfkit.model import Rate, Status

PERFKIT = (sys.executable, "-m", "perfkit")
NOBODY = "65534"
IDLE = "import time; print('ready', flush=True); time.sleep(60)"
CAPABILITIES = ["CAP_NET_ADMIN", "CAP_SYSLOG", "CAP_SYS_PTRACE"]
DENIED = Check(
    "sockets", "lost", "refused", "root, or CAP_SYS_ADMIN and CAP_SYS_PTRACE, to enter \x1b[31m"
)

Doctor = Callable[..., subprocess.CompletedProcess[str]]


class Tried(NamedTuple):
    """One examination with nothing amiss: of which process, and what came of it."""

    pid: int
    done: subprocess.CompletedProcess[str]


def run_doctor(
    home: Path, *arguments: str, prefix: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs perfkit doctor with folders of its own."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
    return subprocess.run(
        [*prefix, *PERFKIT, "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**kept, "HOME": str(home), "TERM": "xterm", **env},
    )


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Runs perfkit doctor in the test's folder."""
    return partial(run_doctor, tmp_path)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """An idle process is examined once for all tests that look at the answer."""
    with subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        home = tmp_path_factory.mktemp("home")
        yield Tried(child.pid, run_doctor(home, "--pid", str(child.pid), "--json"))
        child.kill()


@pytest.fixture
def nobody(tmp_path: Path, needs_root: None) -> tuple[str, ...]:
    """What runs a program as a user without rights, whose home is the test's folder."""
    tmp_path.chmod(0o777)
    prefix = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    tried = [*prefix, sys.executable, "-c", "import perfkit.agent.doctor, subprocess"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("this Python cannot be run by another user")
    return prefix


# What is tried


def test_every_source_is_tried(tried: Tried) -> None:
    """No collector is left out, and what a command needs beside them is there too."""
    found = json.loads(tried.done.stdout)

    told = {one["source"] for one in found["checks"]}
    assert told == {*discover.names("perfkit.collectors"), "saved runs", "other hosts"}
    assert found["target"].startswith(f"pid {tried.pid} ")
    assert set(found["grants"]) == set(PLACES)


def test_exit_code_says_whether_something_is_lost(tried: Tried) -> None:
    """A script need not read the table; a person is told at once what takes a second."""
    states = {one["state"] for one in json.loads(tried.done.stdout)["checks"]}

    assert tried.done.returncode == (0 if states == {"ok"} else 4)
    assert tried.done.stderr.startswith("trying every source for 1.2 s\n")


def test_missing_program_is_found(doctor: Doctor, spawn: Callable[..., Any]) -> None:
    """Without ssh the line says what cannot be done, and with which package it can."""
    done = doctor(*("--pid", str(spawn(IDLE).pid), "--quiet"), PERFKIT_SSH_COMMAND="ssh-of-nobody")

    assert done.returncode == 4
    assert re.search(r"^other hosts +lost +ssh-of-nobody: not found", done.stdout, re.M)


def test_folder_that_cannot_be_written_is_found(doctor: Doctor, spawn: Callable[..., Any]) -> None:
    """Runs that could not be kept are known before they are recorded."""
    done = doctor(
        "--pid", str(spawn(IDLE).pid), "--quiet", PERFKIT_RUNS_FOLDER="/proc/no-such-folder"
    )

    assert done.returncode == 4
    assert re.search(r"^saved runs +lost +/proc/no-such-folder: no such file", done.stdout, re.M)


@pytest.mark.system
def test_user_without_rights_learns_what_is_lost(
    doctor: Doctor, nobody: tuple[str, ...], spawn: Callable[..., Any]
) -> None:
    """On somebody else's process each refused source is named with its grant."""
    pid = str(spawn(IDLE).pid)

    done = doctor("--pid", pid, "--json", "--quiet", prefix=nobody)

    checks = {one["source"]: one for one in json.loads(done.stdout)["checks"]}
    assert done.returncode == 4, done.stderr
    assert checks["sockets"]["state"] != "ok"
    assert checks["threads"]["state"] == "in part"
    assert "CAP_SYS_PTRACE" in checks["threads"]["grant"]
    assert "downstream_slow" in checks["sockets"]["without"]
    assert checks["cpu"]["state"] == "ok"


@pytest.mark.system
def test_user_without_rights_is_served_without_a_pid(
    doctor: Doctor, nobody: tuple[str, ...]
) -> None:
    """Where no service can be seen, sources are tried on a process of our own, and it says so."""
    done = doctor("--json", "--quiet", prefix=nobody)

    found = json.loads(done.stdout)
    assert found["user_id"] == int(NOBODY)
    assert found["target"].startswith("a process of its own, since no service can be seen")
    services = next(one for one in found["checks"] if one["source"] == "services")
    assert (services["state"], services["grant"]) == ("lost", "CAP_SYS_PTRACE")


def test_dead_pid_is_a_line(doctor: Doctor) -> None:
    """Doctor is no exception to how errors look."""
    done = doctor("--pid", "4194303", "--quiet")

    assert done.returncode == 3
    assert done.stderr.startswith("error: no process has the pid 4194303")
    assert "  fix     perfkit doctor .  " in done.stderr


# How it is judged


def test_remark_about_rights_is_a_source_in_part() -> None:
    """A sampler that answers but was refused something is not reported as fine."""
    note = "slowed to 65 Hz; requests are not counted (not permitted; grant CAP_NET_ADMIN)"
    rate = Rate("sockets", 20.0, 20.0, 1, 0, note=note)

    (check,) = to_checks((Status("sockets", "ok"),), (rate,))

    assert check.state == "in part"
    assert check.why == "requests are not counted (not permitted; grant CAP_NET_ADMIN)"


def test_slow_sampler_is_no_lost_right() -> None:
    """What is only slower is seen all the same."""
    rate = Rate("threads", 100.0, 65.0, 1, 0, note="slowed to 65 Hz by a busy host")

    (check,) = to_checks((Status("threads", "ok"),), (rate,))

    assert check == Check("threads", "ok")


@pytest.mark.parametrize(
    ("cgroups", "environment", "is_marked", "place"),
    [
        ("0::/init.scope\n", {}, False, "bare metal"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", {}, False, "bare metal"),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/x.scope\n", {}, False, "bare metal"),
        ("0::/system.slice/perfkit.service\n", {}, False, "systemd"),
        ("12:cpu:/system.slice/perfkit.service\n1:name=systemd:/x\n", {}, False, "systemd"),
        ("0::/docker/8f2c\n", {}, False, "docker"),
        ("0::/machine.slice/libpod-1f.scope\n", {}, False, "docker"),
        ("0::/\n", {}, True, "docker"),
        ("0::/kubepods.slice/kubepods-pod1.slice/x.scope\n", {}, True, "kubernetes"),
        ("0::/\n", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True, "kubernetes"),
        ("", {}, False, "bare metal"),
    ],
)
def test_place_is_known(
    cgroups: str, environment: dict[str, str], is_marked: bool, place: str
) -> None:
    """The grant that is printed first is that of the place where perfkit runs."""
    assert to_place(cgroups, environment, is_marked=is_marked) == place


# What is said


def test_capabilities_are_taken_from_the_grants() -> None:
    """All lost sources together need one grant."""
    other = Check("pressure", "lost", "absent", "psi=1 on the kernel's command line")

    assert find_capabilities([DENIED, other]) == ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]
    assert find_others([DENIED, other]) == ["pressure: psi=1 on the kernel's command line"]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("systemd", "AmbientCapabilities=CAP_NET_ADMIN CAP_SYSLOG CAP_SYS_PTRACE"),
        ("systemd", "ProtectKernelLogs=no"),
        ("docker", "  --cap-add=SYS_PTRACE \\"),
        ("docker", "  --pid=host \\"),
        ("kubernetes", "        add: [NET_ADMIN, SYSLOG, SYS_PTRACE]"),
        ("kubernetes", "  hostPID: true"),
        ("bare metal", "sudo = true"),
    ],
)
def test_grant_can_be_pasted(place: Any, line: str) -> None:
    """Each place has the words that its own files take."""
    assert line in to_grant(place, CAPABILITIES, "host-1")


@pytest.mark.parametrize("width", ["60", "80", "120"])
@pytest.mark.parametrize("everything", [False, True])
def test_report_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: str, everything: bool
) -> None:
    """No line of prose is wider than the terminal, none steers it, and the verdict is last."""
    monkeypatch.setenv("COLUMNS", width)
    found = Examination("s", "0", "host", "systemd", 1000, "pid 7 (x)", (DENIED, DENIED))

    lines = _layout(found, "host-1", everything)

    assert [line for line in lines if len(line) > int(width) and "=" not in line] == []
    assert "\x1b" not in "".join(lines)
    assert lines[-1].strip().startswith("Verdict  0 of 2")
    assert ("Kubernetes, in the pod's spec:" in " ".join(lines)) == everything
