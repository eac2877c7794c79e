"""What SIGINT does while a program loads, and once it runs."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # what is loaded here is loaded while SIGINT still leaves a traceback
    from collections.abc import Callable

# What `signal` is made of: it is built in and loads in one step, which nothing can interrupt.
signal = __import__("_signal")

INTERRUPTED = 130


def leave_when_told(*numbers: int) -> None:
    """Ends the program at once at SIGINT and these signals: for the time that modules load."""
    _heed(_leave, numbers)


def interrupt_when_told(*numbers: int) -> None:
    """Raises KeyboardInterrupt at SIGINT and these signals."""
    _heed(_interrupt, numbers)


def _heed(handler: Callable[[int, object], None], numbers: tuple[int, ...]) -> None:
    for number in (signal.SIGINT, *numbers):
        # A shell starts background jobs with SIGINT ignored; they are not meant to be stopped.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    # While modules load there is nothing to put in order, and an import may swallow an exception.
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
