"""The Makefile's promises that need no installation: one clear line for whatever is wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "FAULT=nope"), "choose one of: none busy_poll_thread context_switch_storm"),
        (("demo", "FRONT=nope"), "choose one of: asyncio threads"),
        (("check-tools", "PYTHON="), "no Python >= 3.11 on the PATH"),
        (("check-tools", "PYTHON=/bin/false"), "/bin/false is no Python >= 3.11"),
        (("check-tools", "CC=no-such-compiler"), "no C compiler (no-such-compiler)"),
    ],
)
def test_make_names_what_is_missing(arguments: tuple[str, ...], said: str) -> None:
    """A wrong choice or a missing tool is one line of perfkit's, before anything is installed."""
    ended = subprocess.run(
        ["make", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("perfkit: ")]

    assert (ended.returncode, len(lines)) == (2, 1)
    assert said in lines[0]
