"""`perfkit record`: sample and keep the run, no analysis."""

from __future__ import annotations

import threading
from pathlib import Path

from perfkit.cli import _codes
from perfkit.cli._command import Command
from perfkit.cli._live import Sampling, sample
from perfkit.cli._options import (
    NoProbeOption,
    OnlyPidOption,
    OutputOption,
    PidOption,
    QuietOption,
    SecondsOption,
    TargetArgument,
)
from perfkit.cli._screen import write_out
from perfkit.cli._stopping import stopping

STDOUT = Path("-")


def record(  # noqa: PLR0917 (typer makes the arguments into options)
    target: TargetArgument,
    pid: PidOption = None,
    only_pid: OnlyPidOption = False,
    seconds: SecondsOption = 10.0,
    no_probe: NoProbeOption = False,
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> int:
    """Sample and keep the run, without analysing it.

    TARGET is . for this host. The run is kept among the saved runs, and its id is printed; -o FILE
    writes the capture to a file instead, -o - to stdout.
    """
    stop = threading.Event()
    with stopping(stop):
        raw = sample(Sampling(target, pid, only_pid, seconds, not no_probe, quiet), stop)
        _put(raw, output)
    return _codes.INTERRUPTED if stop.is_set() else 0


def _put(raw: bytes, output: Path | None) -> None:
    from perfkit.codec import decode
    from perfkit.store.files import write_file
    from perfkit.store.runs import find_folder, save_run

    if output is None:
        run = save_run(raw, decode(raw).header, find_folder())
        write_out(lambda out: print(run, file=out))
    elif output == STDOUT:
        write_out(lambda out: out.write(raw), binary=True)
    else:
        write_file(raw, output)


COMMAND = Command(
    "record",
    group="Record and share",
    summary="Sample and keep the run, no analysis",
    run=record,
)
