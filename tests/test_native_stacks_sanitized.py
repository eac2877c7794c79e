"""The C that samples native stacks, fed with hostile records, under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build
from unwinding import FOLDER, ROOT, SOURCES

NOUNS = (
    "profiler",
    "profile",
    "period",
    "proctable",
    "nativestack",
    "offcpu",
    "ring",
    "thread",
    "worker",
)


def test_profile_survives_hostile_records_under_sanitizers(tmp_path: Path) -> None:
    """Whatever the kernel's records say, nothing is read or written out of bounds, or leaked."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O0"]
    sources = [*SOURCES, *(str(ROOT / "native" / f"pk_{noun}.c") for noun in NOUNS)]
    try:
        program = build(FOLDER / "exercise_profile.c", tmp_path / "exercise", *flags, *sources)
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no -fsanitize=address,undefined")

    done = subprocess.run(
        [program, "42", "8000"], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.returncode, done.stdout[:3]) == (0, "ok "), (done.stdout, done.stderr[-2000:])
