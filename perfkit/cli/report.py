"""`perfkit report`: a saved run, in any format."""

from __future__ import annotations

from typing import Annotated

import typer

from perfkit.cli._command import Command
from perfkit.cli._complete import list_formats, list_runs
from perfkit.cli._live import check_reader
from perfkit.cli._options import (
    AgainstOption,
    ColourOption,
    OutputOption,
    SlowOption,
    VerboseOption,
)
from perfkit.cli._screen import Colour


def report(  # noqa: PLR0917 (typer makes the arguments into options)
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="An id, the beginning of one, last, a capture's file, or - for stdin.",
            autocompletion=list_runs,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="terminal, json, markdown, tree, folded or svg.",
            autocompletion=list_formats,
        ),
    ] = "terminal",
    output: OutputOption = None,
    slow: SlowOption = False,
    against: AgainstOption = None,
    colour: ColourOption = Colour.AUTO,
    verbose: VerboseOption = False,
) -> int:
    """Show a saved run again: analyse its capture and write the report in any format."""
    from perfkit.cli._show import (
        Judging,
        View,
        find_exporter,
        keep_verdict,
        read_references,
        show,
        to_subject,
    )
    from perfkit.errors import CaptureError
    from perfkit.findings import Report
    from perfkit.store.runs import find_folder, read_run

    find_exporter(to)
    check_reader()
    name, raw = read_run(run, find_folder())
    references = read_references(against)
    view = View(to, output, colour, verbose)
    try:
        subject = to_subject(raw, name, view, Judging(slow, references))
    except CaptureError as error:
        raise CaptureError(f"{name or run}: {error.what}", fix="perfkit runs") from error
    # What was said of it is not overwritten by what only this reader asked.
    if isinstance(subject, Report) and not slow and not references:
        keep_verdict(subject, raw)
    show(subject, view)
    return 0


COMMAND = Command(
    "report",
    group="Record and share",
    summary="A run as text, Markdown, JSON or flame graph",
    run=report,
    examples=(
        ("perfkit report last --to markdown", "the last run, for the postmortem"),
        ("perfkit report last --to svg -o report.svg", "its flame graph"),
    ),
)
