"""Where the demo begins: `python -m perfkit.demo`."""

import sys

from perfkit.interrupts import INTERRUPTED, interrupt_when_told, leave_when_told


def start() -> None:
    """Loads and runs the demo; SIGINT ends it quietly, with 130, also while modules load."""
    leave_when_told()
    from perfkit.demo.command import main

    try:
        interrupt_when_told()
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    start()
