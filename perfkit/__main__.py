"""Where perfkit begins, as a program and as `python -m perfkit`."""

import os
import sys
from collections.abc import Callable

# What `signal` is made of: it is built in and loads in one step, which nothing can interrupt.
signal = __import__("_signal")

INTERRUPTED = 130


def start() -> None:
    """Loads and runs the command line; SIGINT and SIGTERM end it quietly, with 130, at any time."""
    _heed(_leave)
    from perfkit.cli.main import run

    try:
        _heed(_interrupt)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _heed(handler: Callable[[int, object], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell starts background jobs with SIGINT ignored; they are not meant to be stopped.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    # While modules load there is nothing to put in order, and an import may swallow an exception.
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    start()
