"""`perfkit doctor`: what perfkit can and cannot see, and the exact grant that shows the rest."""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfkit.cli import _codes
from perfkit.cli._command import Command
from perfkit.cli._live import THIS_HOST
from perfkit.cli._options import PidOption, QuietOption, TargetArgument
from perfkit.cli._screen import find_width, showing_progress, write_out
from perfkit.cli._stopping import stopping
from perfkit.errors import FetchError, PerfkitError, TargetError

if TYPE_CHECKING:
    from perfkit.agent.doctor import Check, Examination, Place

COLLECTORS = "perfkit.collectors"
WIDTH_MAX = 100
SOURCE_WIDTH, STATE_WIDTH = 16, 9


def doctor(
    target: TargetArgument = THIS_HOST,
    pid: PidOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The grants for every place, not just for this one.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    quiet: QuietOption = False,
) -> int:
    """Try every source for a second, and say what is lost and which grant shows it.

    Sources are tried on the service around --pid, else on the busiest one, else on a process of
    perfkit's own. The exit code is 0 where all is seen, 4 where something is not.
    """
    from perfkit.agent.doctor import TRY_S

    with showing_progress(quiet) as progress:
        tried = f"every source for {TRY_S:g} s"
        try:
            if target == THIS_HOST:
                # Nothing is tried on a process that is not there.
                found = _examine_here(pid, lambda: progress.start(f"trying {tried}"))
            else:
                progress.start(f"asking {target} to try {tried}")
                found = _ask(target, pid)
        except TargetError as error:
            fix = f"perfkit doctor {target}   (tries it on the busiest serving process)"
            raise TargetError(error.what, fix=fix) from error
        progress.end(f"tried {len(found.checks)} sources")
    if json:
        _write_json(found, target)
    else:
        lines = _layout(found, target, everything)
        write_out(lambda out: out.writelines(f"{line}\n" for line in lines))
    return _codes.INCOMPLETE if any(one.state != "ok" for one in found.checks) else 0


def _examine_here(pid: int | None, begin: Callable[[], None]) -> Examination:
    """This host, and what else a command on it needs."""
    from msgspec.structs import replace

    from perfkit.agent.doctor import examine

    found = examine(pid, begin=begin)
    return replace(found, checks=(*found.checks, *_check_place()))


def _check_place() -> list[Check]:
    """Whether runs can be kept here, and other hosts be reached from here."""
    from perfkit.agent.doctor import Check
    from perfkit.config import load_config
    from perfkit.store.files import write_draft
    from perfkit.store.runs import find_folder

    checks = []
    folder = Path()
    try:
        folder = find_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_draft(b"", folder, mode=0o600).unlink()
        checks.append(Check("saved runs", "ok"))
    except (OSError, PerfkitError) as error:
        why = f"{folder}: {getattr(error, 'strerror', '') or error}".lower()
        grant = "a folder that can be written: perfkit config, runs.folder"
        checks.append(Check("saved runs", "lost", why, grant))
    command = load_config().get("ssh.command")
    if shutil.which(command):
        checks.append(Check("other hosts", "ok"))
    else:
        why = f"{command}: not found, so only this host can be looked at"
        checks.append(Check("other hosts", "lost", why, "OpenSSH's client, or ssh.command"))
    return checks


def _ask(host: str, pid: int | None) -> Examination:
    """Another host, by the agent there."""
    import msgspec

    from perfkit.agent.doctor import SCHEMA, TRY_S, Examination
    from perfkit.config import load_config
    from perfkit.fetch.ssh import Question, ask

    process = () if pid is None else ("--pid", str(pid))
    stop = threading.Event()
    with stopping(stop):
        raw = ask(
            Question(
                host=host,
                config=load_config(),
                arguments=("doctor", "--attached", *process),
                seconds=TRY_S,
                magic=re.compile(re.escape(f'{{"schema":"{SCHEMA}"'.encode())),
                stop=stop,
            )
        )
    try:
        return msgspec.json.decode(raw, type=Examination)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FetchError(
            f"what {host} sent cannot be understood: {error}",
            fix="install the same version on both hosts",
        ) from error


def _layout(found: Examination, host: str, everything: bool) -> list[str]:
    """The table, then the grants, then the verdict."""
    from perfkit.report.escape import to_printable

    width = min(find_width(), WIDTH_MAX)
    user = "root" if found.user_id == 0 else f"user {found.user_id}"
    lines = textwrap.wrap(
        to_printable(f"{found.host}  {found.place}, as {user}; tried on {found.target}"),
        width,
        subsequent_indent="  ",
    )
    lines.append("")
    fine = ", ".join(to_printable(one.source, 40) for one in found.checks if one.state == "ok")
    if fine:
        lines += _hang(f"{'ok':<{SOURCE_WIDTH}}", fine, width)
    lost = [check for check in found.checks if check.state != "ok"]
    needed = _find_causes() if lost else {}
    for check in lost:
        lines += ["", *_word_check(check, needed.get(check.source, []), width)]
    if lost:
        lines += _word_grants(found, lost, host, everything)
    names = ", ".join(to_printable(one.source, 40) for one in lost)
    seen = len(found.checks) - len(lost)
    verdict = f"{seen} of {len(found.checks)} answer in full" + (f"; not {names}" * bool(lost))
    return [*lines, "", *_hang("Verdict  ", verdict, width)]


def _word_check(check: Check, causes: list[str], width: int) -> list[str]:
    from perfkit.report.escape import to_printable

    head = f"{to_printable(check.source, 40):<{SOURCE_WIDTH}}{check.state:<{STATE_WIDTH}}"
    lines = _hang(head, to_printable(check.why, 400), width)
    parts = [("shows", _read_docstring(check.source))]
    if causes and check.state == "lost":
        parts.append(("without", f"cannot be told: {', '.join(causes)}"))
    if check.grant != check.why:
        parts.append(("needs", to_printable(check.grant, 400)))
    for label, text in parts:
        if text:
            lines += _hang(f"{'':<{SOURCE_WIDTH}}{label:<{STATE_WIDTH}}", text, width)
    return lines


def _word_grants(found: Examination, lost: list[Check], host: str, everything: bool) -> list[str]:
    """The place where perfkit runs comes first; commands and files are never wrapped."""
    from perfkit.cli._grants import PLACE_WORDS, PLACES, find_capabilities, find_others, to_grant
    from perfkit.report.escape import to_printable

    capabilities = find_capabilities(lost)
    lines = []
    if capabilities:
        rest: list[Place] = [place for place in PLACES if place != found.place and everything]
        for place in (found.place, *rest):
            lines += ["", f"To see it all. {PLACE_WORDS[place]}:"]
            lines += [f"  {line}" for line in to_grant(place, capabilities, host)]
        if not everything:
            lines += ["", "perfkit doctor --all has the grants for other places."]
    for grant in find_others(lost):
        lines += ["", f"Also  {to_printable(grant, 200)}"]
    return lines


def _hang(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, len(head) + 20),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )


def _read_docstring(source: str) -> str:
    """What a source shows, in the words of its file, which need not be importable."""
    from perfkit import discover

    if source not in discover.names(COLLECTORS):
        return ""
    path = Path(discover.__file__).with_name("collectors") / f"{source}.py"
    return (ast.get_docstring(ast.parse(path.read_bytes())) or "").split("\n\n")[0]


def _find_causes() -> dict[str, list[str]]:
    """For each source, the causes that cannot be told without it."""
    from perfkit import discover

    found: dict[str, list[str]] = {}
    try:
        collectors: dict[str, Any] = discover.load_all(COLLECTORS, "COLLECTOR")
        rules: dict[str, Any] = discover.load_all("perfkit.analysis.rules", "RULE")
    except ImportError:
        return found
    for name, collector in collectors.items():
        told = {metric.name for metric in collector.metrics}
        told |= {f"{table.name}.{one.name}" for table in collector.tables for one in table.columns}
        found[name] = sorted(rule.id for rule in rules.values() if told & set(rule.needs))
    return found


def _write_json(found: Examination, host: str) -> None:
    import msgspec

    from perfkit.cli._grants import PLACES, find_capabilities, to_grant

    needed = _find_causes()
    content = msgspec.to_builtins(found)
    for check in content["checks"]:
        check["shows"] = _read_docstring(check["source"])
        check["without"] = needed.get(check["source"], []) if check["state"] == "lost" else []
    capabilities = find_capabilities(one for one in found.checks if one.state != "ok")
    content["grants"] = {
        place: to_grant(place, capabilities, host) if capabilities else [] for place in PLACES
    }
    write_out(lambda out: print(msgspec.json.encode(content).decode(), file=out))


COMMAND = Command(
    "doctor",
    group="Setup",
    summary="What can be seen here, what not, and the grant for it",
    run=doctor,
)
