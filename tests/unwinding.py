"""Runs programs instruction by instruction, and counts which of their stacks are unwound right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "native"
NOUNS = ("blocks", "elf", "fde", "cfi", "expression", "rules", "maps", "objects")
PARTS = (*NOUNS, "walk", "guess", "unwind", "perf", "perf_event", "perf_record", "perf_ring")
SOURCES = [f"-I{ROOT / 'native'}", *(str(ROOT / "native" / f"pk_{one}.c") for one in PARTS)]


def build_unwound(program: Path, *flags: str) -> Path:
    """The program of odd stacks; -O2 is what services are compiled with."""
    usual = ("-O2", "-fomit-frame-pointer", "-Wl,-z,lazy")
    return build(FOLDER / "unwound.c", program, *usual, *flags)


def build_stepper(folder: Path) -> Path:
    """The program that runs others and compares."""
    return build(FOLDER / "step_unwind.c", folder / "step_unwind", "-O2", *SOURCES)


def count_stacks(
    stepper: Path, begin: str, *argv: str | Path, steps: int = 60_000
) -> dict[str, int]:
    """What became of the stacks at every 20th instruction or so, by the names that it prints.

    Missing: the test is skipped where this user may not trace.
    """
    command = [stepper, "7", str(steps), "20", begin, *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("needs the right to trace its own child")
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("points ")]
    assert lines, (done.returncode, done.stderr[-2000:])
    counts = dict(zip(lines[0][::2], map(int, lines[0][1::2]), strict=True))
    print(done.stderr[:4000])  # the stacks that differ, for whoever has to find out why
    return counts
