"""Runs the real perfkit command on the demo's service and says where its results lie."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from perfkit.demo.world import DemoError

PARTIAL_TIMEOUT_S = 5.0


def find_perfkit() -> str:
    """The perfkit command beside this Python, or on the PATH. Raises `DemoError`."""
    beside = Path(sys.executable).with_name("perfkit")
    found = str(beside) if beside.exists() else shutil.which("perfkit")
    if found is None:
        raise DemoError("no perfkit command is installed", fix="pip install '.[cli]'")
    return found


def run_command(command: Sequence[str]) -> int:
    """Runs a command in the foreground; a signal to the demo gives it time to end in order."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException as error:
        # Ctrl-C has reached the command too; any other signal reached only the demo.
        if getattr(error, "number", signal.SIGINT) != signal.SIGINT:
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PARTIAL_TIMEOUT_S)
        process.kill()
        process.wait()
        raise


def diagnose(pid: int, out: Path, say: Callable[[str], None]) -> int:
    """Diagnoses the service, prints the report, and writes it as Markdown too."""
    perfkit = find_perfkit()
    say(f"running: perfkit diagnose . --pid {pid}")
    exit_code = run_command([perfkit, "diagnose", ".", "--pid", str(pid)])
    if exit_code > 1:
        say(f"perfkit diagnose ended with exit code {exit_code}")
        return exit_code
    out.mkdir(parents=True, exist_ok=True)
    markdown = out / "report.md"
    written = run_command([perfkit, "report", "last", "--to", "markdown", "-o", str(markdown)])
    if written == 0:
        say(f"saved run: {find_saved(perfkit)}")
        say(f"Markdown report: {markdown}")
        say(f"the perfkit command is {perfkit}")
    return written


def find_saved(perfkit: str) -> str:
    """The file of the last saved run, as the command itself tells it."""
    shown = subprocess.run(
        [perfkit, "runs", "show", "last"], stdout=subprocess.PIPE, text=True, check=False
    )
    fields = (line.split(maxsplit=2) for line in shown.stdout.splitlines())
    return next((words[1] for words in fields if words[:1] == ["file"]), "see perfkit runs")
