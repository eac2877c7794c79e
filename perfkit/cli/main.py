"""The entry point: finds the commands, runs one, and turns every error into a line and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, NoReturn

from perfkit import __version__, discover
from perfkit.cli import _codes
from perfkit.cli._command import Command
from perfkit.cli._screen import print_error
from perfkit.errors import PerfkitError, UsageError

PROGRAM = "perfkit"
COMPLETION_VARIABLE = "_PERFKIT_COMPLETE"
DEBUG = "--debug"
# What only readers of captures need; agent hosts go without (the extra `cli`).
READER_MODULES = ("typer", "rich", "numpy")


def run() -> NoReturn:
    """Runs perfkit as a program."""
    code = main(sys.argv[1:])
    # What is left in the buffers must not raise behind our back when the interpreter ends.
    with suppress(BrokenPipeError, OSError, ValueError, AttributeError):
        sys.stdout.flush()
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Carries out one command line and gives its exit code."""
    wants_debug = DEBUG in arguments
    try:
        return _dispatch([one for one in arguments if one != DEBUG])
    except KeyboardInterrupt:
        return _codes.INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except Exception as error:
        if wants_debug:
            raise
        return _report(_to_ours(error))


def _dispatch(arguments: list[str]) -> int:
    is_completing = COMPLETION_VARIABLE in os.environ
    if arguments == ["--version"]:
        print(f"{PROGRAM} {__version__}", flush=True)
        return 0
    if arguments in ([], ["--help"], ["-h"]) and not is_completing:
        print(_help(_load_commands()), flush=True)
        return 0
    import typer

    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_no_command)
    for command in _load_commands():
        app.command(command.name, short_help=command.summary)(command.run)
    program: Any = typer.main.get_command(app)
    code = program(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _no_command() -> None:
    """Finds out why a host or an inference shard is slow."""


def _load_commands() -> list[Command]:
    return list(discover.load_all("perfkit.cli", "COMMAND").values())


def _help(commands: list[Command]) -> str:
    """Examples first, then the commands by group."""
    ranked = sorted(commands, key=lambda one: (one.group, one.name))
    examples = [example for command in ranked for example in command.examples]
    column = max(len(line) for line, _ in examples) + 3
    lines = ["perfkit: find out why a host or an inference shard is slow.", ""]
    lines += [f"  {line.ljust(column)}{text}" for line, text in examples]
    for group, members in groupby(ranked, key=lambda one: one.group):
        lines += ["", group]
        lines += [f"  {command.name:<11}{command.summary}" for command in members]
    options = "  -h, --help (also of a command)   --version   --debug (tracebacks)"
    return "\n".join([*lines, "", options])


def _to_ours(error: Exception) -> PerfkitError:
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
        return UsageError(" ".join(str(format_message()).split()), fix=_help_of(error))
    if type(error).__name__ == "Abort":
        return PerfkitError("interrupted")
    return PerfkitError(
        f"unexpected {type(error).__name__}: {error}",
        fix="run it again with --debug and report what it prints",
    )


def _help_of(error: Exception) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
    return f"{path} --help"


def _report(error: PerfkitError) -> int:
    print_error(error)
    return error.exit_code


def _drop_stdout() -> None:
    """The reader has gone, e.g. `head`: what is still buffered goes nowhere, without a word."""
    with suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
