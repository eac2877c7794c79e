"""Gets a capture from another host, through the system's own ssh.

The user's configuration, keys and jump hosts hold. The far end is `perfkit-agent record --attached`
(see perfkit/agent/wire.py). Whatever it does - hang, flood, die, answer nonsense - ends within
limits of time and bytes, and in one line that says what to do.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from perfkit.agent.loop import Progress
from perfkit.codec import MAGIC
from perfkit.config import Config, HostSettings
from perfkit.errors import FetchError, UsageError
from perfkit.fetch._failure import Failure, explain
from perfkit.fetch._inbox import Inbox, Journal
from perfkit.model import HOST_NAME_PATTERN

CONNECT_LIMIT_S = 5
# Connecting, a jump host, and the start of a slow machine's Python.
ANSWER_LIMIT_S = 20.0
SILENCE_LIMIT_S = 15.0
TRANSFER_LIMIT_S = 120.0
STOP_LIMIT_S = 10.0
END_LIMIT_S = 2.0
CHECK_INTERVAL_S = 0.1
READ_BYTES = 1 << 16
# A text that says "PERFKIT" has no NUL byte behind it, as a capture's version has.
CAPTURE_START = re.compile(re.escape(MAGIC) + rb"[\x01-\xff]\x00")
NAME_FIX = "a name as ssh takes it, e.g. host-123 or root@10.0.0.7"


class SshOptions(Struct, frozen=True):
    """What to record, and on which host."""

    host: str
    config: Config
    pid: int | None = None
    only_pid: bool = False
    seconds: float = 10.0
    probe: bool = True
    stop: threading.Event | None = None
    progress: Callable[[Progress], None] | None = None


class Question(Struct, frozen=True):
    """What is asked of an agent, how long it works on it, and how its answer begins."""

    host: str
    config: Config
    arguments: tuple[str, ...]
    seconds: float
    magic: re.Pattern[bytes]
    stop: threading.Event
    progress: Callable[[Progress], None] | None = None


def check_host(host: str) -> None:
    """Refuses what is no host's name, before any program sees it. Raises: `UsageError`."""
    if host.isdecimal():
        raise UsageError(
            f"{host!r} is no host; a process is named with --pid",
            fix=f"perfkit diagnose . --pid {host[:10]}",
        )
    if not re.fullmatch(HOST_NAME_PATTERN, host):
        raise UsageError(f"{host[:80]!r} is no host's name", fix=NAME_FIX)


def fetch(options: SshOptions) -> bytes:
    """Has another host record itself and gives the capture's bytes.

    Raises: `UsageError` for a bad host name; `FetchError` where no whole capture came;
    KeyboardInterrupt where `stop` was set before anything was measured.
    """
    pid = () if options.pid is None else ("--pid", str(options.pid))
    flags = [("--only-pid", options.only_pid), ("--no-probe", not options.probe)]
    arguments = ["record", "-o", "-", "--attached", "--reached-as", options.host, *pid]
    arguments += [flag for flag, is_wanted in flags if is_wanted]
    arguments += ["--seconds", f"{options.seconds:g}"]
    return ask(
        Question(
            options.host,
            options.config,
            tuple(arguments),
            options.seconds,
            CAPTURE_START,
            options.stop or threading.Event(),
            options.progress,
        )
    )


def ask(question: Question) -> bytes:
    """Runs the agent on another host and gives its answer. Raises: as `fetch`."""
    check_host(question.host)
    settings = question.config.for_host(question.host)
    try:
        # A group of its own: Ctrl-C in the terminal is for perfkit, which then asks the agent, and
        # what ssh starts to get through jump hosts can be ended with it.
        child = subprocess.Popen(
            to_command(question, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        command = question.config.get("ssh.command")
        raise FetchError(
            f"cannot run {command!r}: {(error.strerror or str(error)).lower()}",
            fix="install OpenSSH's client (Debian: apt install openssh-client), or set ssh.command",
            effect=f"nothing was measured on {question.host}",
        ) from error
    call = _Call(question, child)
    try:
        ending = call.listen()
    finally:
        call.end()
    if not ending and call.inbox.is_whole:
        return call.inbox.to_bytes()
    if question.stop.is_set() and call.journal.hello is None:
        raise KeyboardInterrupt
    raise explain(
        Failure(question.host, settings, call.inbox, call.journal, child.returncode, ending)
    )


def to_command(question: Question, settings: HostSettings) -> list[str]:
    """The arguments of ssh. Of two that set the same option, ssh heeds the first."""
    config = question.config
    return [
        config.get("ssh.command"),
        *settings.ssh_options,
        *config.get("ssh.options"),
        *("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_LIMIT_S}"),
        *("--", question.host, to_remote_command(settings, question.arguments)),
    ]


def to_remote_command(settings: HostSettings, arguments: tuple[str, ...]) -> str:
    """The line that the far end's shell reads; only a leading ~/ means anything to it."""
    home = "~/" if settings.agent.startswith("~/") else ""
    agent = home + shlex.quote(settings.agent.removeprefix(home))
    words = [agent, *(shlex.quote(one) for one in arguments)]
    return " ".join(["sudo", "-n", *words] if settings.sudo else words)


class _Call:
    """One run of ssh, from its start to its end."""

    def __init__(self, question: Question, child: subprocess.Popen[bytes]) -> None:
        self.inbox, self.journal = Inbox(question.magic), Journal()
        self._question, self._child = question, child
        self._start_s = self._heard_s = time.monotonic()
        self._stopped_s: float | None = None
        self._shown: Progress | None = None

    def listen(self) -> str:
        """Takes all that comes until the answer is whole; else says what put an end to it."""
        assert self._child.stdout is not None and self._child.stderr is not None
        out, err = self._child.stdout.fileno(), self._child.stderr.fileno()
        poller = select.poll()
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)
            poller.register(descriptor, select.POLLIN)
        is_open = {out: True, err: True}
        while True:
            for descriptor, _ in poller.poll(1e3 * CHECK_INTERVAL_S):
                is_open[descriptor] = self._read(descriptor, is_error=descriptor == err)
                if not is_open[descriptor]:
                    poller.unregister(descriptor)
            self.inbox.size_bytes = self.journal.size_bytes
            self._show()
            if self.inbox.is_whole:
                return ""
            if self.inbox.is_flooded or self.journal.is_flooded:
                return "flood"
            # A connection that ssh keeps for later uses may hold stderr open for hours.
            if not is_open[out] and (not is_open[err] or self._child.poll() is not None):
                self._drain(err if is_open[err] else None)
                return "" if self.inbox.is_whole else "end"
            if self._is_silent():
                return "silence"
            self._ask_to_stop()

    def end(self) -> None:
        """Leaves nothing behind: the end of its stdin ends the agent, and with it ssh."""
        child = self._child
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        with suppress(OSError):
            child.stdin.close()
        child.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            child.wait(END_LIMIT_S)
        if child.returncode is None:
            # Signals that perfkit takes by a thread are blocked in its children too, but this one.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        child.stderr.close()

    def _read(self, descriptor: int, *, is_error: bool) -> bool:
        """Takes what has come; False at the end."""
        try:
            part = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return True
        if part:
            self._heard_s = time.monotonic()
            (self.journal if is_error else self.inbox).take(part)
        return bool(part)

    def _drain(self, descriptor: int | None) -> None:
        """Takes what is left of stderr, without waiting for more."""
        while descriptor is not None and not self.journal.is_flooded:
            before = self.journal.read_bytes
            self._read(descriptor, is_error=True)
            if self.journal.read_bytes == before:
                break
        self.journal.end()
        self.inbox.size_bytes = self.journal.size_bytes

    def _show(self) -> None:
        step = self.journal.progress
        if step is not None and step is not self._shown and self._question.progress is not None:
            self._shown = step
            self._question.progress(step)

    def _is_silent(self) -> bool:
        """Whether it has taken longer than it may."""
        now_s = time.monotonic()
        if self.journal.hello is None:
            return now_s - self._start_s > ANSWER_LIMIT_S or self._question.stop.is_set()
        if self._stopped_s is not None and now_s - self._stopped_s > STOP_LIMIT_S:
            return not self.inbox.is_found
        whole_s = ANSWER_LIMIT_S + self._question.seconds + TRANSFER_LIMIT_S
        return now_s - self._heard_s > SILENCE_LIMIT_S or now_s - self._start_s > whole_s

    def _ask_to_stop(self) -> None:
        """Passes on that the user wants an early end; the agent then sends what there is."""
        if self._stopped_s is None and self._question.stop.is_set():
            self._stopped_s = time.monotonic()
            assert self._child.stdin is not None
            with suppress(OSError):
                self._child.stdin.write(b"stop\n")
                self._child.stdin.flush()
