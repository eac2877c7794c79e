"""Ctrl-C: the first asks for an early end, with a report of what there is; the second leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from perfkit.cli import _codes

CHECK_INTERVAL_S = 0.2
READ_LIMIT = 64


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Sets `stop` at the first SIGINT or SIGTERM; the second ends the process at once.

    The signals are blocked and taken by a thread of their own: a handler in the main thread could
    run while that thread holds the very lock that `stop.set()` needs, and programs that run for us
    inherit the block, so that the terminal's Ctrl-C does not end them. Threads that libraries began
    before (numpy's) block nothing: what they take is written to a pipe by the interpreter at once.
    """
    numbers = {
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        # A shell starts background jobs with SIGINT ignored; they are not meant to be stopped.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    done = threading.Event()
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    handlers = {one: signal.signal(one, _leave_it_to_the_pipe) for one in numbers}
    pipe_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    listener = threading.Thread(
        target=_listen, args=(numbers, reader, stop, done), name="perfkit signals", daemon=True
    )
    listener.start()
    try:
        yield
    finally:
        done.set()
        listener.join()
        signal.set_wakeup_fd(pipe_before)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reader)
        os.close(writer)


def _leave_it_to_the_pipe(number: int, frame: object) -> None:
    """A handler, without which the interpreter would write nothing."""


def _listen(
    numbers: set[signal.Signals], reader: int, stop: threading.Event, done: threading.Event
) -> None:
    while not done.is_set():
        count = int(signal.sigtimedwait(numbers, CHECK_INTERVAL_S) is not None)
        count += sum(number in numbers for number in _read(reader))
        for _ in range(count):
            if stop.is_set():
                os._exit(_codes.INTERRUPTED)
            stop.set()


def _read(reader: int) -> bytes:
    """The numbers of the signals that other threads have taken."""
    try:
        return os.read(reader, READ_LIMIT)
    except BlockingIOError:
        return b""
