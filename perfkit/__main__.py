"""Where perfkit begins, as a program and as `python -m perfkit`."""

import sys

# Until the handlers stand SIGINT just ends the program: what is loaded first takes its time, too.
_signal = __import__("_signal")
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def start() -> None:
    """Loads and runs the command line; SIGINT and SIGTERM end it quietly, with 130, at any time."""
    from perfkit.interrupts import INTERRUPTED, interrupt_when_told, leave_when_told

    leave_when_told(_signal.SIGTERM)
    from perfkit.cli.main import run

    try:
        interrupt_when_told(_signal.SIGTERM)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    start()
