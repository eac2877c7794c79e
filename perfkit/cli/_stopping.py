"""Ctrl-C: the first asks for an early end, with a report of what there is; the second leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from perfkit.cli import _codes

CHECK_INTERVAL_S = 0.2


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Sets `stop` at the first SIGINT or SIGTERM; the second ends the process at once.

    The signals are blocked and taken by a thread of their own: a handler in the main thread could
    run while that thread holds the very lock that `stop.set()` needs, and programs that run for us
    inherit the block, so that the terminal's Ctrl-C does not end them. Threads that libraries began
    before (numpy's) block nothing: what they take comes to a handler, which only counts.
    """
    numbers = {
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        # A shell starts background jobs with SIGINT ignored; they are not meant to be stopped.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    done = threading.Event()
    heard: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    handlers = {one: signal.signal(one, lambda number, _: heard.append(number)) for one in numbers}
    listener = threading.Thread(
        target=_listen, args=(numbers, heard, stop, done), name="perfkit signals", daemon=True
    )
    listener.start()
    try:
        yield
    finally:
        done.set()
        listener.join()
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(
    numbers: set[signal.Signals], heard: list[int], stop: threading.Event, done: threading.Event
) -> None:
    heeded_count = 0
    while not done.is_set():
        taken = signal.sigtimedwait(numbers, CHECK_INTERVAL_S)
        if taken is not None:
            heard.append(taken.si_signo)
        while heeded_count < len(heard):
            heeded_count += 1
            if stop.is_set():
                os._exit(_codes.INTERRUPTED)
            stop.set()
