"""Where perfkit begins, as a program and as `python -m perfkit`."""

import sys

INTERRUPTED = 130


def start() -> None:
    """Loads and runs the command line; a Ctrl-C while it loads ends it without a traceback."""
    try:
        from perfkit.cli.main import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    start()
