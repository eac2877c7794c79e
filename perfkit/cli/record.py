"""`perfkit record`: sample and keep the run, no analysis; many hosts, and again and again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, NamedTuple

import typer

from perfkit.cli import _codes
from perfkit.cli._command import Command
from perfkit.cli._live import Sampling, check_target, obtain, sample, save, warn_unjudged
from perfkit.cli._options import (
    NoProbeOption,
    OnlyPidOption,
    OutputOption,
    PidOption,
    QuietOption,
    SecondsOption,
    TargetsArgument,
)
from perfkit.cli._screen import print_error, tell, write_out
from perfkit.cli._stopping import stopping
from perfkit.errors import PerfkitError, UsageError

if TYPE_CHECKING:
    from perfkit.cli._rounds import Outcome

STDOUT = Path("-")


class Tally(NamedTuple):
    """What came of all rounds: how many runs, and which targets gave none how often."""

    kept_count: int
    missed_counts: Counter[str]


def record(  # noqa: PLR0917 (typer makes the arguments into options)
    targets: TargetsArgument,
    pid: PidOption = None,
    only_pid: OnlyPidOption = False,
    seconds: SecondsOption = 10.0,
    every: Annotated[
        str, typer.Option("--every", metavar="T", help="Again and again: 15m, 90s, 2h.")
    ] = "",
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, metavar="N", help="With --every: how often.")
    ] = None,
    no_probe: NoProbeOption = False,
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> int:
    """Sample and keep the run, without analysing it.

    TARGET is . for this host, else a host that ssh reaches. The run is kept among the saved runs,
    and its id is printed; -o FILE writes the capture to a file instead, -o - to stdout. Of several
    targets, or with --every, each line is a target and its run; Ctrl-C ends after the round.
    """
    if rounds is not None and not every:
        fix = "--every 15m --rounds N"
        raise UsageError("--rounds counts the rounds of --every, which is missing", fix=fix)
    wanted = [
        Sampling(target, pid, only_pid, seconds, not no_probe, quiet)
        for target in dict.fromkeys(targets)
    ]
    for one in wanted:
        check_target(one)
    warn_unjudged(wanted[0])
    if len(wanted) == 1 and not every:
        return _record_one(wanted[0], output)
    if output is not None:
        fix = "name one target, without --every; or leave -o out, and see perfkit runs"
        raise UsageError("-o takes the capture of one target, recorded once", fix=fix)
    return _record_many(wanted, every, rounds)


def _record_one(wanted: Sampling, output: Path | None) -> int:
    stop = threading.Event()
    with stopping(stop):
        raw = sample(wanted, stop)
        _put(raw, output)
    return _codes.INTERRUPTED if stop.is_set() else 0


def _record_many(wanted: list[Sampling], every: str, rounds: int | None) -> int:
    from perfkit.cli._rounds import HOST_LIMIT, jitter_limit_s, parse_every, run_rounds, sample_all
    from perfkit.config import load_config

    seconds, quiet = wanted[0].seconds, wanted[0].quiet
    if len(wanted) > HOST_LIMIT:
        fix = f"name at most {HOST_LIMIT} at a time"
        raise UsageError(f"{len(wanted)} targets are more than {HOST_LIMIT}", fix=fix)
    every_s = parse_every(every, seconds) if every else 0.0
    load_config()
    stop = threading.Event()
    by_target = {one.target: one for one in wanted}
    # One window is cut short by Ctrl-C; the windows of a periodic job are finished.
    cut = threading.Event() if every else stop

    def take(target: str) -> str:
        return _take(by_target[target], cut)

    def sample_round() -> Iterator[Outcome]:
        return sample_all(list(by_target), take, jitter_limit_s(every_s), cut)

    def say(line: str) -> None:
        if not quiet:
            tell(line)

    with stopping(stop):
        if every:
            tally = _show(run_rounds(sample_round, (every_s, seconds), rounds, stop, say))
        else:
            say(f"sampling {len(wanted)} targets for {seconds:g} s")
            tally = _show(sample_round())
    say(_summarise(tally))
    if stop.is_set():
        return _codes.INTERRUPTED
    if not tally.kept_count:
        return PerfkitError.exit_code
    return _codes.INCOMPLETE if tally.missed_counts else 0


def _take(wanted: Sampling, stop: threading.Event) -> str:
    """One run of one target, kept."""
    from perfkit.codec import decode

    raw = obtain(wanted, stop)
    return save(raw, decode(raw).header)


def _show(outcomes: Iterator[Outcome]) -> Tally:
    """A line for each outcome as it comes: runs on stdout, silent hosts on stderr."""
    from perfkit.report.escape import to_printable

    kept_count, missed_counts = 0, Counter[str]()
    for one in outcomes:
        if one.error is not None:
            missed_counts[one.target] += 1
            print_error(one.error)
        else:
            kept_count += 1
            line = f"{one.target}  {to_printable(one.run)}\n"
            write_out(partial(_write_line, line))
    return Tally(kept_count, missed_counts)


def _write_line(line: str, out: IO[str]) -> None:
    out.write(line)


def _summarise(tally: Tally) -> str:
    """How many runs were kept, and who gave none how often."""
    silent = ", ".join(f"{name} ({count}x)" for name, count in tally.missed_counts.most_common())
    kept = f"kept {tally.kept_count} run{'' if tally.kept_count == 1 else 's'}"
    return f"{kept}; none from {silent}" if silent else kept


def _put(raw: bytes, output: Path | None) -> None:
    from perfkit.codec import decode
    from perfkit.store.files import write_file

    if output is None:
        run = save(raw, decode(raw).header)
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
