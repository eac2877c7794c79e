"""The kernel's rings of samples, read and unwound, on a program whose functions are known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build
from unwinding import FOLDER, SOURCES

pytestmark = pytest.mark.system

ROUNDS = 600


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that records its child."""
    program = tmp_path_factory.mktemp("recorder") / "record_stacks"
    return build(FOLDER / "record_stacks.c", program, "-O2", *SOURCES)


def record(recorder: Path, hertz: int, stack_bytes: int, *options: str) -> dict[str, int]:
    """What was recorded, by the names that the program prints."""
    words = [str(hertz), str(stack_bytes), str(ROUNDS), *options]
    done = subprocess.run(
        [recorder, *words], capture_output=True, text=True, timeout=100, check=False
    )
    if done.returncode == 77:
        pytest.skip(f"recording is {done.stdout.strip()}")
    fields = done.stdout.split()
    return dict(zip(fields[::2], map(int, fields[1::2]), strict=True))


def test_shares_and_stacks_of_samples_are_true(recorder: Path) -> None:
    """Functions get the shares of the time that they take, and each stack goes to its root."""
    counts = record(recorder, 999, 16_384)

    known = [counts[name] for name in ("heavy", "medium", "light")]
    assert [count / sum(known) for count in known] == pytest.approx([0.6, 0.3, 0.1], abs=0.04)
    assert counts["root"] >= 0.995 * counts["samples"] > 500
    assert counts["kernel"] > 10 and counts["late"] == 0
    assert counts["weight_ms"] == pytest.approx(counts["samples"] * 1000 / 999, rel=0.02)


def test_small_copies_are_completed_late(recorder: Path) -> None:
    """What a copy of 256 bytes lacks is read from the process, and said to be."""
    counts = record(recorder, 999, 256)

    assert counts["late"] > 0.2 * counts["samples"]
    assert counts["root"] >= 0.98 * counts["samples"] > 500


def test_life_of_a_process_is_recorded(recorder: Path) -> None:
    """Births, deaths, names, programs and mappings of code are told, in the order of time."""
    counts = record(recorder, 99, 8, "switches")

    told = {name: counts[name] for name in ("births", "deaths", "names", "execs")}
    assert told == {"births": 2, "deaths": 2, "names": 1, "execs": 1}
    assert counts["mappings"] >= 4 and counts["switches"] > 4
    assert counts["lost"] == counts["damaged"] == 0
    assert counts["disordered"] <= 5
