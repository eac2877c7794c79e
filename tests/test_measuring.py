"""Measurements wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from measuring import HELD, LOCK, alone

HOLDER = """
import sys
from measuring import alone
with alone():
    print("mine", flush=True)
    sys.stdin.readline()
"""


def start_holder(environment: dict[str, str]) -> subprocess.Popen[str]:
    """Another program that measures until a line is written to it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        env=environment,
    )


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose lock no real measurement holds."""
    monkeypatch.delenv(HELD, raising=False)
    monkeypatch.setattr("measuring.LOCK", tmp_path / LOCK.name)
    return {key: value for key, value in os.environ.items() if key != HELD} | {
        "TMPDIR": str(tmp_path)
    }


def test_second_measurement_waits_for_the_first(apart: dict[str, str]) -> None:
    """It says that it waits, and begins when the first has ended."""
    with alone():
        stranger = start_holder({key: apart[key] for key in apart if key != HELD})
        assert stranger.stderr is not None and stranger.stdout is not None
        said = stranger.stderr.readline()
        time.sleep(0.1)
        ended_ns = time.monotonic_ns()
    begun = stranger.stdout.readline()
    begun_ns = time.monotonic_ns()
    stranger.communicate("\n", timeout=10)

    assert said.startswith("waiting for another measurement")
    assert (begun, begun_ns > ended_ns) == ("mine\n", True)


def test_children_of_a_measurement_do_not_wait(apart: dict[str, str]) -> None:
    """What a measurement starts takes part in it."""
    with alone():
        child = start_holder(apart | {HELD: os.environ[HELD]})
        output, _ = child.communicate("\n", timeout=10)

    assert output == "mine\n"
