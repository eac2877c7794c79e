"""Tries every source for real, for about a second, and says where perfkit runs.

Each collector is opened on a target just as a recording opens it, so a right that is missing shows
as it would in a capture. Nothing is kept but how each of them fared.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from perfkit import __version__, discover
from perfkit.agent.census import count_closed, take_census
from perfkit.agent.loop import Problem, attempt, run, to_status
from perfkit.agent.machine import read_host_name
from perfkit.agent.target import resolve
from perfkit.host import Host
from perfkit.losses import list_losses
from perfkit.model import Collector, Rate, Status, Target

TRY_S = 1.2
IDLE_INTERVAL_S = 0.2
OWN_WORDS = "a process of its own, since no service can be seen; --pid N tries it on yours"
SCHEMA = "perfkit.doctor/1"
PACKAGE = "perfkit.collectors"

Place = Literal["bare metal", "systemd", "docker", "kubernetes"]


class Check(Struct, frozen=True):
    """How one source fared: all of it, less of it (`in part`), or none. Text is untrusted."""

    source: str
    state: Literal["ok", "in part", "lost"]
    why: str = ""
    grant: str = ""


class Examination(Struct, frozen=True):
    """All that was tried on a host. `schema` comes first, so that the bytes begin with it."""

    schema: str
    perfkit_version: str
    host: str
    place: Place
    user_id: int
    target: str
    checks: tuple[Check, ...]


def examine(
    pid: int | None, host: Host | None = None, begin: Callable[[], None] = lambda: None
) -> Examination:
    """Tries every source on a process, else the busiest service, else a process of our own.

    `begin` is called once it is known what they are tried on.
    Raises: `TargetError` where the pid is no process.
    """
    host = host or Host()
    collectors, missing = load_collectors()
    with choosing(host, pid) as (target, words):
        begin()
        recording = run(host, target, collectors, TRY_S, stop=threading.Event())
    closed = [] if words != OWN_WORDS else check_closed(host)
    return Examination(
        schema=SCHEMA,
        perfkit_version=__version__,
        host=read_host_name(host),
        place=read_place(host),
        user_id=os.geteuid(),
        target=words,
        checks=(*to_checks((*recording.statuses, *missing), recording.rates), *closed),
    )


def check_closed(host: Host) -> list[Check]:
    """Whether processes are closed to us, one of which may be the service; none where none is.

    A process of our own, on which all else was tried, is open whatever rights we lack.
    """
    count = count_closed(host, take_census(host, os.getpid()).processes)
    if not count:
        return []
    closed = "1 process is" if count == 1 else f"{count} processes are"
    why = f"{closed} closed to this user, the service may be one of them"
    return [Check("services", "lost", why, "CAP_SYS_PTRACE")]


def load_collectors() -> tuple[list[Collector], list[Status]]:
    """The collectors that can be imported, and how it is with those that cannot."""
    found: list[Collector] = []
    missing: list[Status] = []
    for name in discover.names(PACKAGE):
        problem = attempt(partial(_load, name, found))
        if problem is not None:
            words = problem.reason
            grant = (
                "" if "_native" not in words else "a C compiler and Python.h, then install again"
            )
            missing.append(to_status(name, Problem("unavailable", words, grant)))
    return found, missing


def _load(name: str, found: list[Collector]) -> None:
    found.append(discover.load(PACKAGE, name, "COLLECTOR"))


@contextmanager
def choosing(host: Host, pid: int | None) -> Iterator[tuple[Target, str]]:
    """The target, and how it was chosen; one of our own lives as long as it is needed."""
    target = resolve(host, pid, only_pid=False)
    if target.kind != "host":
        yield target, f"pid {target.main_pid} ({target.name}), {target.chosen_by}"
        return
    child = _fork_idle()
    try:
        yield resolve(host, child, only_pid=True), OWN_WORDS
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _fork_idle() -> int:
    """A Python process that does nothing, for as long as this one lives.

    Forked and not started, since the interpreter's own file may be out of our reach by now.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        while os.getppid() == parent:
            time.sleep(IDLE_INTERVAL_S)
        os._exit(0)
    return child


def to_checks(statuses: tuple[Status, ...], rates: tuple[Rate, ...]) -> Iterator[Check]:
    """One line of the table each; what a sampler could not see is told in its remark."""
    for status in sorted(statuses, key=lambda one: one.collector):
        remarks = [rate.note for rate in rates if rate.sampler == status.collector]
        less = [part for note in remarks for part in list_losses(note)]
        if status.state != "ok":
            yield Check(status.collector, "lost", status.reason, status.grant)
        elif less:
            yield Check(status.collector, "in part", "; ".join(less), "; ".join(less))
        elif status.reason:
            yield Check(status.collector, "in part", status.reason, status.grant)
        else:
            yield Check(status.collector, "ok")


def read_place(host: Host) -> Place:
    """In which of the four kinds of place perfkit runs."""
    text = ""
    with suppress(Exception):
        text = host.read_proc("self/cgroup")
    return to_place(text, os.environ, is_marked=Path("/.dockerenv").exists())


def to_place(cgroups: str, environment: Mapping[str, str], *, is_marked: bool) -> Place:
    """Judges by /proc/self/cgroup, the environment, and whether /.dockerenv is there."""
    if "KUBERNETES_SERVICE_HOST" in environment or "kubepods" in cgroups:
        return "kubernetes"
    if is_marked or any(word in cgroups for word in ("/docker", "libpod", "/containerd")):
        return "docker"
    is_unit = any(line.rstrip("/").endswith(".service") for line in cgroups.splitlines())
    return "systemd" if is_unit and "user.slice" not in cgroups else "bare metal"
