"""Shell completion, by really running the shells with the script that perfkit prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfkit.cli._complete import read_ssh_hosts

SCRIPT = Path(sys.executable).with_name("perfkit")
# What bash does at a TAB: it calls the function that the script registered.
BASH = """
eval "$(perfkit completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
$(complete -p perfkit | sed 's/.*-F \\([^ ]*\\).*/\\1/') perfkit "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
SSH_CONFIG = """
Host shard-1 shard-2   # two
  HostName 10.0.0.1
Host *
  User x
HOST = web
Include conf.d/*
"""

Complete = Callable[..., list[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user with some hosts, some runs and perfkit on the PATH."""
    if not SCRIPT.exists():
        pytest.skip(f"needs {SCRIPT}, which installing perfkit makes")
    ssh = tmp_path / ".ssh"
    (ssh / "conf.d").mkdir(parents=True)
    (ssh / "config").write_text(SSH_CONFIG)
    (ssh / "conf.d" / "more").write_text("Host behind-include !not-this\n")
    runs = tmp_path / "state" / "perfkit" / "runs"
    runs.mkdir(parents=True)
    (runs / "20261124-000000-shard-1-7.capture").touch()
    return {
        "PATH": f"{SCRIPT.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TERM": "dumb",
    }


@pytest.fixture
def complete(environment: dict[str, str]) -> Complete:
    """Has bash complete the last of some words."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")

    def press_tab(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", BASH, "bash", *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env=environment,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return press_tab


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("perfkit", "dia"), ["diagnose"]),
        (("perfkit", "diagnose", "--on"), ["--only-pid"]),
        (("perfkit", "diagnose", "sh"), ["shard-1", "shard-2"]),
        (("perfkit", "diagnose", "behind"), ["behind-include"]),
        (("perfkit", "record", "web", "sh"), ["shard-1", "shard-2"]),
        (("perfkit", "doctor", "w"), ["web"]),
        (("perfkit", "report", ""), ["last", "20261124-000000-shard-1-7"]),
        (("perfkit", "report", "last", "--to", "mark"), ["markdown"]),
        (("perfkit", "runs", "sh"), ["show"]),
        (("perfkit", "runs", "show", "2026"), ["20261124-000000-shard-1-7"]),
        (("perfkit", "explain", "cpu_thr"), ["cpu_throttled"]),
        (("perfkit", "completion", "f"), ["fish"]),
        (("perfkit", "config", "ch"), ["check"]),
    ],
)
def test_bash_offers_what_there_is(
    complete: Complete, words: tuple[str, ...], offered: list[str]
) -> None:
    """Commands, options, hosts, runs, causes and formats are completed."""
    assert complete(*words) == offered


def test_broken_configuration_offers_nothing_and_says_nothing(
    complete: Complete, environment: dict[str, str]
) -> None:
    """A TAB is no place for an error."""
    folder = Path(environment["HOME"]) / ".config" / "perfkit"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[nonsense")

    assert complete("perfkit", "report", "") == []


@pytest.mark.parametrize(
    ("shell", "arguments"), [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])]
)
def test_script_is_one_that_the_shell_reads(
    environment: dict[str, str], tmp_path: Path, shell: str, arguments: list[str]
) -> None:
    """Each shell takes its script without an error."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    path = tmp_path / "script"
    path.write_text(
        subprocess.run(
            [SCRIPT, "completion", shell], capture_output=True, text=True, check=True
        ).stdout
    )

    done = subprocess.run(
        [shell, *arguments, str(path)], capture_output=True, text=True, check=False, env=environment
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "_PERFKIT_COMPLETE" in path.read_text()


def test_includes_that_lead_in_circles_end(tmp_path: Path) -> None:
    """A configuration that includes itself is read once."""
    path = tmp_path / "config"
    path.write_text(f"Host a\nInclude {path}\nInclude {tmp_path}/*\nHost b\n")

    assert list(read_ssh_hosts(path)) == ["a", "b"]


def test_names_that_a_shell_would_read_are_left_out(tmp_path: Path) -> None:
    """Nothing is offered that does more than stand there."""
    path = tmp_path / "config"
    path.write_text('Host $(touch,x) a;b "quoted" -o c\\d fine\n')

    assert list(read_ssh_hosts(path)) == ["quoted", "fine"]
