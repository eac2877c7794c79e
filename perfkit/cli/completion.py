"""`perfkit completion`: the script that makes a shell complete perfkit's words."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from perfkit.cli._command import Command
from perfkit.cli._screen import write_out


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell the script is for.")],
) -> int:
    """Print the script that makes a shell complete commands, options, hosts, runs and causes.

    bash: eval "$(perfkit completion bash)" in ~/.bashrc. zsh: the same, behind compinit.
    fish: perfkit completion fish > ~/.config/fish/completions/perfkit.fish
    """
    # Where typer keeps it; its own options print the same script, but only for this very shell.
    from typer._completion_shared import get_completion_script

    from perfkit.cli.main import COMPLETION_VARIABLE, PROGRAM

    script = get_completion_script(
        prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, shell=shell.value
    )
    write_out(lambda out: print(script, file=out))
    return 0


COMMAND = Command(
    "completion",
    group="Setup",
    summary="A script for the shell: bash, zsh or fish",
    run=completion,
)
