"""Real programs for tests: started, waited for, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def running(*argv: str) -> Iterator[tuple[int, list[str]]]:
    """Runs a program in a session of its own; gives its pid and the words of its first line."""
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None and child.stdin is not None
    try:
        yield child.pid, child.stdout.readline().split()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()
        child.wait()


def build(source: Path, program: Path, *flags: str) -> Path:
    """Compiles a C program, or skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    command = [compiler, "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-pthread", *flags, "-o"]
    subprocess.run([*command, str(program), str(source)], check=True, timeout=120)
    return program
