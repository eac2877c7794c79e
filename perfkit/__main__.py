"""Where perfkit begins, as a program and as `python -m perfkit`."""

import sys

from perfkit.interrupts import INTERRUPTED, interrupt_when_told, leave_when_told, signal


def start() -> None:
    """Loads and runs the command line; SIGINT and SIGTERM end it quietly, with 130, at any time."""
    leave_when_told(signal.SIGTERM)
    from perfkit.cli.main import run

    try:
        interrupt_when_told(signal.SIGTERM)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    start()
