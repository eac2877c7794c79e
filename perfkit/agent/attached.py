"""An agent whose capture somebody awaits over a pipe: it reports, heeds, and never outlives them.

Without a terminal nobody signals the far end of an ssh connection that breaks. So a thread watches
both ends of the pipe: when they are gone, the recording ends, and soon after it the process.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress

from perfkit import __version__
from perfkit.agent.loop import Progress
from perfkit.agent.wire import PROTOCOL, Hello, Message, Refusal, Sending, Step, to_line
from perfkit.errors import PerfkitError

STDIN, STDOUT, STDERR = 0, 1, 2
# Whoever is gone reads no capture: what is left to do is to close the sources.
GONE_LIMIT_S = 3.0
# Nobody waits longer than this for the capture after the window.
LINGER_LIMIT_S = 120.0
POLL_LIMIT_S = 60.0
GONE_CODE = 130
_GONE_EVENTS = select.POLLERR | select.POLLHUP | select.POLLNVAL


def say(message: Message) -> None:
    """Tells the other end; one that is gone hears nothing."""
    with suppress(OSError):
        os.write(STDERR, to_line(message))


def say_hello() -> None:
    """Says that the agent has started, and which it is."""
    say(Hello(PROTOCOL, __version__))


def show(step: Progress) -> None:
    """Tells how far the recording is."""
    say(
        Step(
            step.elapsed_s,
            step.requested_s,
            step.ok_count,
            step.source_count,
            step.cost_percent,
            step.note[:1000],
        )
    )


def refuse(error: PerfkitError) -> None:
    """Tells why there will be no capture."""
    say(Refusal(error.what[:2000], error.fix[:2000], error.effect[:500], error.exit_code))


def send(raw: bytes) -> None:
    """Announces and writes the capture. Raises: OSError where nobody reads it."""
    say(Sending(len(raw)))
    rest = memoryview(raw)
    while rest:
        rest = rest[os.write(STDOUT, rest[: 1 << 16]) :]


def watch(stop: threading.Event, seconds: float) -> None:
    """Starts the thread that ends the recording, and at last the process, with the other end."""
    threading.Thread(target=_watch, args=(stop, seconds), name="perfkit pipe", daemon=True).start()


def _watch(stop: threading.Event, seconds: float) -> None:
    # What is no length of a window is refused elsewhere, and must be heard.
    deadline = time.monotonic() + (seconds if seconds > 0 else 0.0) + LINGER_LIMIT_S
    poller = select.poll()
    poller.register(STDIN, select.POLLIN)
    poller.register(STDOUT, 0)
    while (left_s := deadline - time.monotonic()) > 0:
        events = poller.poll(1e3 * min(left_s, POLL_LIMIT_S))
        if events:
            stop.set()
        if _is_gone(events):
            time.sleep(GONE_LIMIT_S)
            break
    os._exit(GONE_CODE)


def _is_gone(events: list[tuple[int, int]]) -> bool:
    """Whether either end of the pipe has closed; any line on stdin only asks for an early end."""
    for descriptor, event in events:
        if descriptor == STDIN and event & select.POLLIN:
            if not _read_line():
                return True
        elif event & _GONE_EVENTS:
            return True
    return False


def _read_line() -> bytes:
    """What stands on stdin; nothing where it has ended."""
    try:
        return os.read(STDIN, 4096)
    except OSError:
        return b""
