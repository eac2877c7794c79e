"""`perfkit diagnose`: sample, rank the causes, say what was ruled out."""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from perfkit.cli import _codes
from perfkit.cli._command import Command
from perfkit.cli._live import Sampling, check_judged, check_reader, keep, sample
from perfkit.cli._options import (
    AgainstOption,
    ColourOption,
    NoProbeOption,
    OnlyPidOption,
    PidOption,
    QuietOption,
    SecondsOption,
    SlowOption,
    TargetArgument,
    VerboseOption,
)
from perfkit.cli._screen import Colour
from perfkit.cli._stopping import stopping

if TYPE_CHECKING:
    from perfkit.findings import Report


class Threshold(StrEnum):
    """The severity from which on `--fail-on` gives exit code 1."""

    CRIT = "crit"
    WARN = "warn"


_MEETING = {Threshold.CRIT: ("crit",), Threshold.WARN: ("crit", "warn")}


def diagnose(  # noqa: PLR0917 (typer makes the arguments into options)
    target: TargetArgument,
    pid: PidOption = None,
    only_pid: OnlyPidOption = False,
    seconds: SecondsOption = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    no_probe: NoProbeOption = False,
    slow: SlowOption = False,
    against: AgainstOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 4 where something could not be seen.")
    ] = False,
    fail_on: Annotated[
        Threshold | None, typer.Option("--fail-on", help="Exit with 1 at this severity or above.")
    ] = None,
    colour: ColourOption = Colour.AUTO,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Sample a target, rank the causes, say what was ruled out and what could not be seen.

    TARGET is . for this host, else a host that ssh reaches and that has perfkit-agent. Without
    --pid, the busiest service with connections is looked at.
    The run is kept (perfkit runs). Ctrl-C stops early and reports what there is.
    """
    from perfkit.cli._show import (
        TERMINAL,
        Judging,
        View,
        keep_verdict,
        read_references,
        show,
        to_report,
    )
    from perfkit.codec import decode

    check_judged(seconds)
    check_reader()
    # Before sampling: `last` is the run before this one, and a wrong name costs no wait.
    judging = Judging(slow, read_references(against))
    stop = threading.Event()
    with stopping(stop):
        raw = sample(Sampling(target, pid, only_pid, seconds, not no_probe, quiet), stop)
        run = keep(raw, decode(raw).header)
        report = to_report(raw, run, judging)
        keep_verdict(report, raw)
        show(report, View("json" if json else TERMINAL, None, colour, verbose))
    return _codes.INTERRUPTED if stop.is_set() else judge(report, strict, fail_on)


def judge(report: Report, strict: bool, fail_on: Threshold | None) -> int:
    """The exit code of a report that came out as it should."""
    if fail_on and any(finding.severity in _MEETING[fail_on] for finding in report.causes):
        return _codes.THRESHOLD_MET
    if strict and (report.not_checked or report.window.interrupted):
        return _codes.INCOMPLETE
    return 0


COMMAND = Command(
    "diagnose",
    group="Diagnose",
    summary="Sample a target, rank the causes, say what was ruled out",
    run=diagnose,
    examples=(
        ("perfkit diagnose .", "this host's busiest service, 10 s"),
        ("perfkit diagnose . --pid 48213", "the service around one process"),
        ("perfkit diagnose host-123", "another host, over ssh"),
    ),
)
