"""The entry point: finds the commands, runs one, and turns every error into a line and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NoReturn

from perfkit import __version__, discover
from perfkit.cli import _codes
from perfkit.cli._catalog import PACKAGE, Entry, read_catalog
from perfkit.cli._command import Command
from perfkit.cli._screen import print_error, tell, write_out
from perfkit.errors import PerfkitError, UsageError

PROGRAM = "perfkit"
COMPLETION_VARIABLE = "_PERFKIT_COMPLETE"
DEBUG = "--debug"
CONFIG_CHECK = ["config", "check"]
_VALUE_ERROR = "Value error, "
# What only readers of captures need; agent hosts go without (the extra `cli`).
READER_MODULES = ("typer", "rich", "numpy")


def run() -> NoReturn:
    """Runs perfkit as a program."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Carries out one command line and gives its exit code."""
    wants_debug = DEBUG in arguments
    try:
        return _dispatch([one for one in arguments if one != DEBUG])
    except KeyboardInterrupt:
        return _codes.INTERRUPTED
    except Exception as error:
        if type(error).__name__ == "Abort":
            # What typer makes of KeyboardInterrupt.
            return _codes.INTERRUPTED
        if wants_debug:
            raise
        ours = _to_ours(error, arguments)
        print_error(ours)
        return ours.exit_code


def _dispatch(arguments: list[str]) -> int:
    is_completing = COMPLETION_VARIABLE in os.environ
    if arguments == ["--version"]:
        write_out(lambda out: print(f"{PROGRAM} {__version__}", file=out))
        return 0
    if arguments in ([], ["--help"], ["-h"]) and not is_completing:
        text = _help(read_catalog())
        write_out(lambda out: print(text, file=out))
        return 0
    import typer

    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_no_command)
    commands: dict[str, Command] = discover.load_all(PACKAGE, "COMMAND")
    for command in commands.values():
        app.command(command.name, short_help=command.summary)(command.run)
    if not is_completing and arguments[:1] != ["completion"] and arguments[:2] != CONFIG_CHECK:
        _warn_of_settings()
    program: Any = typer.main.get_command(app)
    code = program(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _warn_of_settings() -> None:
    """Says of variables that look like settings that they are none, once for each command."""
    from perfkit.config import list_unknown

    for line in list_unknown():
        tell(f"warning: {line}")


def _no_command() -> None:
    """Finds out why a host or an inference shard is slow."""


def _help(ranked: list[Entry]) -> str:
    """Examples first, then the commands by group."""
    examples = [example for command in ranked for example in command.examples]
    column = max(len(line) for line, _ in examples) + 3
    lines = ["perfkit: find out why a host or an inference shard is slow.", ""]
    lines += [f"  {line.ljust(column)}{text}" for line, text in examples]
    for group, members in groupby(ranked, key=lambda one: one.group):
        lines += ["", group]
        lines += [f"  {command.name:<12}{command.summary}" for command in members]
    options = "  -h, --help (also of a command)   --version   --debug (tracebacks)"
    return "\n".join([*lines, "", options])


def _to_ours(error: Exception, arguments: Sequence[str]) -> PerfkitError:
    """Any exception as one that can be printed in a line."""
    if isinstance(error, PerfkitError):
        return error
    module = (getattr(error, "name", None) or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and module in READER_MODULES:
        from perfkit.cli._live import missing

        return missing(module)
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        # typer's own errors; which classes they are has changed from version to version.
        what = " ".join(str(format_message()).split()).replace(_VALUE_ERROR, "")
        return UsageError(what, fix=_help_of(error, arguments))
    return PerfkitError(
        f"unexpected {type(error).__name__}: {error}",
        fix="run it again with --debug and report what it prints",
    )


def _help_of(error: Exception, arguments: Sequence[str]) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", "")
    # Some errors of typer do not say in which command they came up.
    named = arguments[0] if not path and arguments and arguments[0] in _list_commands() else ""
    return " ".join(filter(None, [path or PROGRAM, named, "--help"]))


def _list_commands() -> list[str]:
    return [entry.name for entry in read_catalog()]
