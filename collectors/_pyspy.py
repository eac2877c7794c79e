"""Runs py-spy beside a process, never stopping it, and reads what it has recorded.

py-spy writes the Chrome trace format: for each thread an event when a frame is entered or left,
compared with the sample before. What it writes is hostile input: the target chooses the names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from perfkit.errors import Unavailable

OUTPUT_LIMIT_BYTES = 8 << 20
MESSAGE_LIMIT_BYTES = 4096
EVENT_LIMIT = 200_000
DEPTH_LIMIT = 96
NAME_LIMIT = 160
START_NS = 2_000_000
OUTPUT_DESCRIPTOR = 3
# py-spy outlives a perfkit that was killed by no more than this.
DURATION_S = 20
_THREAD = re.compile(r"thread \((\d{1,10})\)")
_REFUSED = ("ermission denied", "not permitted")
GRANT = "ptrace access to the service (root or CAP_SYS_PTRACE; the same user and ptrace_scope 0)"


class Frame(Struct, frozen=True):
    """A Python function: its name and the file that holds it, both untrusted text."""

    function: str
    file: str


class Stretch(Struct, frozen=True):
    """From one sample in which a thread was seen with a stack to the next without it.

    Shape: the stack is leaf first; `tid` is -1 where the thread is not known to the kernel.
    """

    begin_ns: int
    end_ns: int
    tid: int
    stack: tuple[Frame, ...]


class _Place(Struct, frozen=True):
    filename: str = ""


class _Event(Struct, frozen=True):
    name: str
    ph: str
    tid: int
    ts: int
    args: _Place = _Place()


class Recorder(Struct, frozen=True):
    """One py-spy at work; `output` and `messages` are files in memory that it writes to."""

    pid: int
    pid_descriptor: int
    output: int
    messages: int
    start_ns: int

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return _is_readable(self.pid_descriptor, 0.0)


def find_program() -> str:
    """Where py-spy is: beside this interpreter, or on the PATH. Raises `Unavailable`."""
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")
    if found is None:
        raise Unavailable("py-spy is not installed", grant="pip install 'perfkit[stacks]'")
    return found


def start(pid: int, rate_hertz: float, options: tuple[str, ...], now_ns: int) -> Recorder:
    """Starts a recording that ends by itself after DURATION_S at the latest."""
    arguments = [
        *(find_program(), "record", "--nonblocking", "--threads", "--function", *options),
        *("--format", "chrometrace", "--output", f"/proc/self/fd/{OUTPUT_DESCRIPTOR}"),
        *("--rate", f"{max(1, round(rate_hertz))}", "--duration", str(DURATION_S)),
        *("--pid", str(pid)),
    ]
    output, messages = _make_file("perfkit-stacks"), _make_file("perfkit-messages")
    try:
        child = os.posix_spawn(
            arguments[0],
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, messages, 2),
                (os.POSIX_SPAWN_DUP2, output, OUTPUT_DESCRIPTOR),
            ],
            # Out of the terminal's reach: Ctrl-C is perfkit's, which still wants what was recorded.
            setsid=True,
            # perfkit blocks the signals that it takes by a thread; py-spy has to hear them.
            setsigmask=(),
            setsigdef=(signal.SIGINT,),
        )
        limit = (OUTPUT_LIMIT_BYTES, OUTPUT_LIMIT_BYTES)
        resource.prlimit(child, resource.RLIMIT_FSIZE, limit)
        descriptor = os.pidfd_open(child)
    except OSError as error:
        os.close(output)
        os.close(messages)
        raise Unavailable(f"py-spy cannot be started: {error.strerror}") from error
    return Recorder(child, descriptor, output, messages, now_ns + START_NS)


def _make_file(name: str) -> int:
    """A file in memory, whose number is none that a child gives to its own."""
    first = os.memfd_create(name, os.MFD_CLOEXEC)
    moved = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(first)
    return moved


def _is_readable(descriptor: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(1000 * timeout_s))


def ask_to_end(recorder: Recorder) -> None:
    """Has py-spy write what it has, as Ctrl-C does."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(recorder.pid_descriptor, signal.SIGINT)


def finish(recorder: Recorder, timeout_s: float) -> bytes:
    """Waits for the end, kills what hangs, and gives what was written.

    Raises: `Unavailable` with py-spy's own reason where it failed.
    """
    in_time = _is_readable(recorder.pid_descriptor, timeout_s)
    try:
        if not in_time:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(recorder.pid_descriptor, signal.SIGKILL)
        _, status = os.waitpid(recorder.pid, 0)
        if in_time and status == 0:
            return os.pread(recorder.output, OUTPUT_LIMIT_BYTES, 0)
        text = os.pread(recorder.messages, MESSAGE_LIMIT_BYTES, 0).decode("utf-8", "replace")
    finally:
        for descriptor in (recorder.pid_descriptor, recorder.output, recorder.messages):
            os.close(descriptor)
    if not in_time:
        raise Unavailable("py-spy did not end in time and was killed")
    raise to_problem(text)


def to_problem(text: str) -> Unavailable:
    """What py-spy's messages say, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    refused = any(word in text for word in _REFUSED)
    reason = next((line for line in lines if line.startswith("Error:")), "".join(lines[:1]))
    return Unavailable(
        f"py-spy: {reason.removeprefix('Error:').strip() or 'ended without a reason'}",
        grant=GRANT if refused else "",
    )


def parse_trace(raw: bytes, start_ns: int) -> Iterator[Stretch]:
    """Reads the stretches of one recording that began at `start_ns`.

    Raises: `Unavailable` where it is no trace, or was cut at the limit of its size.
    """
    try:
        events = msgspec.json.decode(raw, type=list[_Event])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Unavailable(f"py-spy wrote what is no trace: {str(error)[:100]}") from error
    open_frames: dict[int, list[Frame]] = {}
    since: dict[int, int] = {}
    for event in events[:EVENT_LIMIT]:
        frames = open_frames.setdefault(event.tid, [])
        begin_ns = since.get(event.tid, event.ts)
        if event.ts > begin_ns:
            stretch = _to_stretch(frames, start_ns + 1000 * begin_ns, start_ns + 1000 * event.ts)
            if stretch is not None:
                yield stretch
        since[event.tid] = event.ts
        if event.ph == "B":
            frames.append(Frame(event.name[:NAME_LIMIT], event.args.filename[-NAME_LIMIT:]))
        elif event.ph == "E" and frames:
            frames.pop()


def _to_stretch(frames: list[Frame], begin_ns: int, end_ns: int) -> Stretch | None:
    """The stretch of one thread; the outermost frame is py-spy's own, and names the thread."""
    if len(frames) < 2:
        return None
    thread = _THREAD.match(frames[0].function)
    stack = tuple(reversed(frames[1:]))[:DEPTH_LIMIT]
    return Stretch(begin_ns, end_ns, int(thread[1]) if thread else -1, stack)
