"""`perfkit runs`: list, show, pin and delete saved runs."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perfkit.cli._command import Command
from perfkit.cli._complete import list_runs
from perfkit.cli._screen import find_width, write_out
from perfkit.errors import UsageError

LISTED = 50


class Action(StrEnum):
    """What to do with saved runs."""

    LIST = "list"
    SHOW = "show"
    PIN = "pin"
    UNPIN = "unpin"
    DELETE = "delete"


def runs(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    run: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]",
            help="An id, the beginning of one, or last.",
            autocompletion=list_runs,
        ),
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help=f"List all, not only the newest {LISTED}.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> int:
    """List, show, pin and delete saved runs.

    The list says of each when it began (local time), what was looked at, and what its report said.
    The oldest runs make room for new ones once they exceed runs.limit_mib (perfkit config);
    pinned ones stay.
    """
    from perfkit.store.runs import find_folder

    folder = find_folder()
    if action is Action.LIST:
        if run:
            raise UsageError("perfkit runs list takes no RUN", fix=f"perfkit runs show {run}")
        lines = _list(folder, everything, json)
    elif json or everything:
        raise UsageError("--json and --all are for the list of runs", fix="perfkit runs --json")
    elif not run:
        raise UsageError(f"perfkit runs {action} needs a RUN", fix=f"perfkit runs {action} last")
    else:
        lines = _ACTIONS[action](run, folder)
    write_out(lambda out: out.writelines(f"{line}\n" for line in lines))
    return 0


def _list(folder: Path, everything: bool, json: bool) -> list[str]:
    import msgspec

    from perfkit.cli._listing import to_document, to_lines
    from perfkit.report.escape import to_printable
    from perfkit.store.entries import read_entry
    from perfkit.store.runs import list_runs

    found = list_runs(folder)
    shown = found if everything else found[:LISTED]
    entries = [read_entry(run) for run in shown]
    if json:
        document = to_document(entries, len(found) - len(shown), folder)
        return [msgspec.json.encode(document).decode()]
    lines = to_lines(entries, len(found) - len(shown), find_width())
    return lines or [f"no runs in {to_printable(str(folder))}"]


def _show(name: str, folder: Path) -> list[str]:
    from perfkit.cli._listing import word_kept
    from perfkit.codec import decode
    from perfkit.report.escape import to_printable
    from perfkit.store.files import read_file
    from perfkit.store.runs import find_run
    from perfkit.store.verdicts import read_verdict
    from perfkit.units import to_duration, to_text

    run = find_run(name, folder)
    header = decode(read_file(run.path)).header
    machine, target = header.machine, header.target
    hardware = (header.host, machine.cpu_model, f"{machine.cpu_count} CPUs", machine.kernel)
    length_s = (header.clock.end_ns - header.clock.start_ns) / 1e9
    rows = (
        ("run", run.id + (" (pinned)" if run.is_pinned else "")),
        ("file", f"{run.path} ({to_text(run.size_bytes, 'bytes')})"),
        ("host", ", ".join(filter(None, hardware))),
        ("target", f"{target.kind} {target.name} (pid {target.main_pid}), {target.chosen_by}"),
        ("window", f"{to_duration(length_s)} {header.interrupted}".strip()),
        ("verdict", word_kept(read_verdict(run))),
        ("perfkit", header.perfkit_version),
        *((one.collector, f"{one.state} {one.reason}".strip()) for one in header.statuses),
    )
    return [f"{to_printable(label):<16}{to_printable(text)}" for label, text in rows]


def _pin(name: str, folder: Path) -> list[str]:
    from perfkit.store.runs import find_run, pin_run

    run = find_run(name, folder)
    pin_run(run, pinned=True)
    return [f"pinned {run.id}"]


def _unpin(name: str, folder: Path) -> list[str]:
    from perfkit.store.runs import find_run, pin_run

    run = find_run(name, folder)
    pin_run(run, pinned=False)
    return [f"unpinned {run.id}"]


def _delete(name: str, folder: Path) -> list[str]:
    from perfkit.store.runs import delete_run, find_run

    run = find_run(name, folder)
    delete_run(run)
    return [f"deleted {run.id}"]


_ACTIONS: dict[Action, Callable[[str, Path], list[str]]] = {
    Action.SHOW: _show,
    Action.PIN: _pin,
    Action.UNPIN: _unpin,
    Action.DELETE: _delete,
}

COMMAND = Command(
    "runs",
    group="Record and share",
    summary="List, show, pin and delete saved runs",
    run=runs,
)
