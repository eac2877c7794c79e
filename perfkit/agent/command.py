"""`perfkit-agent`: the part of perfkit that a host needs so that others can ask it for captures.

It imports nothing beyond the agent's packages. stdout carries the capture and nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from perfkit import __version__
from perfkit.errors import PerfkitError, RunError, UsageError

PROGRAM = "perfkit-agent"
STDOUT = "-"
INTERRUPTED = 130
_REPORT_FIX = f"report this line, with what was run and what {PROGRAM} --version prints"
_WRITE_FIX = "name a file in a folder that is there and may be written, on a disk with room"


def start() -> NoReturn:
    """Runs perfkit-agent as a program. What hangs in a source must not keep it from ending."""
    code = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(code)


def main(arguments: Sequence[str]) -> int:
    """Carries out one command line and gives its exit code."""
    try:
        wanted = _parse(arguments)
    except UsageError as error:
        # In words to the other end, too: an older perfkit knows no more of a later one's messages.
        return _tell(error, is_attached=False)
    try:
        code: int = wanted.run(wanted)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return INTERRUPTED
    except PerfkitError as error:
        return _tell(error, wanted.attached)
    except Exception as error:
        what = f"unexpected {type(error).__name__}: {error}"
        return _tell(PerfkitError(what, fix=_REPORT_FIX), wanted.attached)


def _tell(error: PerfkitError, is_attached: bool) -> int:
    """One line for the error and one for its fix, or one for the program at the other end."""
    if is_attached:
        from perfkit.agent.attached import refuse

        refuse(error)
        return error.exit_code
    parts = (("error: ", error.what), ("  effect  ", error.effect), ("  fix     ", error.fix))
    for label, text in parts:
        if text:
            safe = "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in text)
            print(label + safe, file=sys.stderr)
    return error.exit_code


class _Parser(argparse.ArgumentParser):
    """Words what is wrong with a command line as everything else that is wrong."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, fix=f"{self.prog} --help")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(PROGRAM, description="Records captures of this host, for perfkit elsewhere.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    record = commands.add_parser("record", help="sample this host and write the capture")
    record.add_argument(
        "-o", "--output", metavar="FILE", default=STDOUT, help="a file, or - for stdout (default)"
    )
    record.add_argument("--pid", type=int, metavar="N", help="the service around this process")
    record.add_argument("--only-pid", action="store_true", help="only this process and below")
    record.add_argument("--seconds", type=float, default=10.0, metavar="S", help="how long")
    record.add_argument("--no-probe", action="store_true", help="connect to no peer afterwards")
    record.add_argument(
        "--reached-as", metavar="NAME", default="", help="the name by which others reach this host"
    )
    _add_attached(record)
    record.set_defaults(run=_record)
    doctor = commands.add_parser(
        "doctor", help="try every source, and write JSON of how they fared"
    )
    doctor.add_argument("--pid", type=int, metavar="N", help="try them on this process")
    _add_attached(doctor)
    doctor.set_defaults(run=_examine)
    return parser.parse_args(arguments)


def _add_attached(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attached",
        action="store_true",
        help="a program awaits this: tell it how it goes on stderr; a line on stdin asks for an "
        "early end, the end of stdin ends all",
    )


def _record(wanted: argparse.Namespace) -> int:
    if wanted.output == STDOUT and sys.stdout.isatty():
        raise UsageError(
            "a capture is not for a terminal", fix=f"{PROGRAM} record -o FILE, or -o - | ..."
        )
    if wanted.only_pid and wanted.pid is None:
        raise UsageError("--only-pid narrows --pid, which is missing", fix="--pid N")
    stop = threading.Event()
    if wanted.attached:
        from perfkit.agent.attached import say_hello, watch

        say_hello()
        watch(stop, wanted.seconds)
    raw = _sample(wanted, stop)
    if wanted.output != STDOUT:
        _write(raw, wanted.output)
    elif wanted.attached:
        from perfkit.agent.attached import send

        send(raw)
    else:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
    return INTERRUPTED if stop.is_set() else 0


def _sample(wanted: argparse.Namespace, stop: threading.Event) -> bytes:
    """Records the window; Ctrl-C ends it early and keeps what there is."""
    import signal

    from perfkit.agent.attached import show
    from perfkit.agent.record import RecordOptions, record

    def heed(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        # The thread that is interrupted here may hold the very lock that `set` needs.
        threading.Thread(target=stop.set, name="perfkit stop", daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, heed)
    return record(
        RecordOptions(
            pid=wanted.pid,
            only_pid=wanted.only_pid,
            seconds=wanted.seconds,
            probe=not wanted.no_probe,
            stop=stop,
            progress=show if wanted.attached else None,
            reached_as=wanted.reached_as,
        )
    )


def _write(raw: bytes, name: str) -> None:
    """Writes a file whole or not at all. Raises: `RunError`."""
    draft = f"{name}.draft-{os.getpid()}"
    try:
        with open(draft, "xb") as out:
            out.write(raw)
        os.replace(draft, name)  # noqa: PTH105 (no Path is at hand)
    except OSError as error:
        what = f"cannot write {name}: {(error.strerror or str(error)).lower()}"
        raise RunError(what, fix=_WRITE_FIX) from error


def _examine(wanted: argparse.Namespace) -> int:
    """Tries every source for a second."""
    import msgspec

    from perfkit.agent.attached import say_hello, send, watch
    from perfkit.agent.doctor import TRY_S, examine

    if wanted.attached:
        say_hello()
        watch(threading.Event(), TRY_S)
    found = msgspec.json.encode(examine(wanted.pid)) + b"\n"
    if wanted.attached:
        send(found)
    else:
        sys.stdout.buffer.write(found)
        sys.stdout.buffer.flush()
    return 0
