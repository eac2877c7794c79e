"""`perfkit config`: the settings in effect and where each came from; what is wrong with a file."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfkit.cli._command import Command
from perfkit.cli._screen import write_out
from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from perfkit.config import Config


class Action(StrEnum):
    """What to do with the configuration."""

    SHOW = "show"
    CHECK = "check"
    PATH = "path"


def config(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.SHOW,
) -> int:
    """Show the settings in effect and where each came from; check the files; say where they lie.

    Later wins: the default, /etc/perfkit/config.toml, $XDG_CONFIG_HOME/perfkit/config.toml, the
    environment.
    """
    from perfkit.config import load_config
    from perfkit.report.escape import to_printable

    problems: list[str] = []
    if action is Action.SHOW:
        lines = _show(load_config())
    elif action is Action.PATH:
        lines = _list_paths()
    else:
        lines, problems = _check()
    safe = [to_printable(line) for line in (*lines, *problems)]
    write_out(lambda out: out.writelines(f"{line}\n" for line in safe))
    return ConfigError.exit_code if problems else 0


def _show(config: Config) -> list[str]:
    rows = [(one.name, _word(one.value), one.origin) for one in config.settings]
    rows += [
        (f'hosts."{one.pattern}".{one.setting.name}', _word(one.setting.value), one.setting.origin)
        for one in config.hosts
    ]
    names, values = (max(len(row[place]) for row in rows) for place in (0, 1))
    return [f"{name:<{names}}  {value:<{values}}  {origin}" for name, value, origin in rows]


def _word(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_word(one) for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _list_paths() -> list[str]:
    from perfkit.config import find_files

    return [f"{path}{'' if path.exists() else '  (absent)'}" for path in find_files()]


def _check() -> tuple[list[str], list[str]]:
    """A line for each file that is right, and one for each thing that is wrong."""
    from perfkit.config import find_files, list_unknown, load_config, read_file

    right, problems = [], []
    for path in find_files():
        wrong, settings, hosts = read_file(path)
        problems += [f"error: {one}" for one in wrong]
        if not wrong and path.exists():
            count = len(settings) + len(hosts)
            right.append(f"{path}: fine, {count} setting{'' if count == 1 else 's'}")
        elif not wrong:
            right.append(f"{path}: absent")
    if not problems:
        try:
            load_config()
        except ConfigError as error:
            problems.append(f"error: {error.what}")
    return right, [*problems, *(f"error: {one}" for one in list_unknown())]


COMMAND = Command(
    "config",
    group="Setup",
    summary="Show, check and locate the settings",
    run=config,
)
