"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfkit.cli._complete import list_runs, list_targets
from perfkit.cli._screen import Colour

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="What to look at: . is this host, anything else a host that ssh reaches.",
        autocompletion=list_targets,
    ),
]
TargetsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="What to sample: . is this host, anything else a host that ssh reaches.",
        autocompletion=list_targets,
    ),
]
PidOption = Annotated[
    int | None,
    typer.Option("--pid", min=1, metavar="N", help="Look at the service around this process."),
]
OnlyPidOption = Annotated[
    bool, typer.Option("--only-pid", help="Only this process and its descendants.")
]
SecondsOption = Annotated[float, typer.Option("--seconds", metavar="S", help="How long to sample.")]
NoProbeOption = Annotated[
    bool, typer.Option("--no-probe", help="Do not connect to slow peers after the window.")
]
SlowOption = Annotated[
    bool, typer.Option("--slow", help="It is known to be slow: name the largest part at least.")
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="RUN",
        help="Hold it against a saved run: an id, last, or a capture's file.",
        autocompletion=list_runs,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
ColourOption = Annotated[
    Colour, typer.Option("--color", help="NO_COLOR and FORCE_COLOR are heeded too.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Everything, however long it gets.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")
]
