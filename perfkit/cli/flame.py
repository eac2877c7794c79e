"""`perfkit flame`: which functions the time goes to, of a target or of a saved run."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfkit.cli import _codes
from perfkit.cli._command import Command
from perfkit.cli._complete import list_profiles, list_subjects
from perfkit.cli._live import THIS_HOST, Sampling, check_reader, check_target, keep, sample
from perfkit.cli._options import (
    ColourOption,
    OnlyPidOption,
    OutputOption,
    PidOption,
    QuietOption,
    VerboseOption,
)
from perfkit.cli._screen import Colour
from perfkit.cli._stopping import stopping
from perfkit.errors import UsageError

if TYPE_CHECKING:
    from perfkit.analysis.profile import Subject
    from perfkit.cli._show import View
    from perfkit.host import StackWish

SECONDS = 10.0
RATE_HERTZ = 99.0
RATIO_MAX = 0.01  # of one core
TREE = "tree"


def flame(  # noqa: PLR0917 (typer makes the arguments into options)
    subject: Annotated[
        str,
        typer.Argument(
            metavar="[TARGET|RUN|FILE]",
            help="What to sample, as in diagnose; or a saved run, a capture's file, - for stdin.",
            autocompletion=list_subjects,
        ),
    ] = THIS_HOST,
    pid: PidOption = None,
    only_pid: OnlyPidOption = False,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="How long to sample, 10.")
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FORMAT", help="tree, folded or svg.", autocompletion=list_profiles
        ),
    ] = TREE,
    off_cpu: Annotated[
        bool, typer.Option("--off-cpu", help="Time off the CPUs, by where threads left them.")
    ] = False,
    wall: Annotated[bool, typer.Option("--wall", help="All time of threads, waiting or not.")] = (
        False
    ),
    host: Annotated[
        bool, typer.Option("--host", help="CPU time of all processes, not only the service's.")
    ] = False,
    output: OutputOption = None,
    colour: ColourOption = Colour.AUTO,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Show which functions the time goes to: of a target that is sampled now, or of a saved run.

    What is sampled is kept among the saved runs, as by diagnose. The default is CPU time.
    """
    from perfkit.cli._show import View, show_profile

    of = choose_subject(off_cpu=off_cpu, wall=wall, host=host)
    check_format(to)
    check_reader()
    view = View(to, output, colour, verbose)
    if is_saved(subject):
        if pid is not None or only_pid or seconds is not None:
            fix = f"perfkit flame . --pid N, or perfkit flame {subject}"
            raise UsageError(
                "--pid, --only-pid and --seconds are for sampling, not for a run", fix=fix
            )
        return _show_saved(subject, view, of)
    length_s = SECONDS if seconds is None else seconds
    wish = choose_stacks(subject, of)
    wanted = Sampling(subject, pid, only_pid, length_s, False, quiet, wish)
    check_target(wanted)
    from perfkit.codec import decode

    stop = threading.Event()
    with stopping(stop):
        raw = sample(wanted, stop)
        run = keep(raw, decode(raw).header)
        show_profile(raw, run, view, of)
    return _codes.INTERRUPTED if stop.is_set() else 0


def is_saved(subject: str) -> bool:
    """Whether it names what was recorded: a file, stdin, `last`, an id; else it is a target."""
    from perfkit.errors import RunError
    from perfkit.store.files import STDIN
    from perfkit.store.runs import LAST, find_folder, find_run

    if subject == THIS_HOST:
        return False
    if subject in (LAST, STDIN) or os.sep in subject or Path(subject).is_file():
        return not subject.startswith("ssh://")
    try:
        find_run(subject, find_folder())
    except RunError:
        return False
    return True


def choose_subject(*, off_cpu: bool, wall: bool, host: bool) -> Subject:
    """Which time is shown. Raises: `UsageError` where two are asked for."""
    if off_cpu + wall + host > 1:
        raise UsageError("--off-cpu, --wall and --host show different times", fix="name one")
    if off_cpu:
        return "off-cpu"
    if wall:
        return "wall"
    return "host" if host else "cpu"


def choose_stacks(target: str, of: Subject) -> StackWish:
    """How native stacks are sampled for a profile. Raises: `UsageError` for what is only here."""
    from perfkit.host import StackWish

    if target != THIS_HOST and of in ("off-cpu", "host"):
        raise UsageError(
            f"--{of} cannot be asked of another host", fix=f"run it there: perfkit flame . --{of}"
        )
    return StackWish(
        rate_hertz=RATE_HERTZ,
        has_switches=of == "off-cpu",
        is_host_wide=of == "host",
        ratio_max=RATIO_MAX,
        wall_ratio_max=RATIO_MAX if of == "wall" else StackWish().wall_ratio_max,
    )


def check_format(name: str) -> None:
    """Refuses formats that show no profile. Raises: `UsageError`."""
    from perfkit.cli._show import find_exporter

    if find_exporter(name).of != "profile":
        formats = " | ".join(list_profiles(""))
        raise UsageError(f"{name} is a format of reports", fix=f"--to {formats}")


def _show_saved(subject: str, view: View, of: Subject) -> int:
    from perfkit.cli._show import show_profile
    from perfkit.errors import CaptureError
    from perfkit.store.runs import find_folder, read_run

    name, raw = read_run(subject, find_folder())
    try:
        show_profile(raw, name, view, of)
    except CaptureError as error:
        raise CaptureError(f"{name or subject}: {error.what}", fix="perfkit runs") from error
    return 0


COMMAND = Command(
    "flame",
    group="Diagnose",
    summary="Which functions the time goes to, as a tree or a flame graph",
    run=flame,
    examples=(("perfkit flame . --pid 48213", "which functions its time goes to"),),
)
