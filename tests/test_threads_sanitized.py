"""The thread sampler's C under the address, undefined-behaviour and thread sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build
from test_wall import LOOK_PARTS

HERE = Path(__file__).parent
NATIVE = HERE.parent / "native"
NOUNS = (
    "pace",
    "process",
    "procfile",
    "quota",
    "ring",
    "sampler",
    "task",
    "taskset",
    "thread",
    "worker",
    "wait",
)
NOUNS += tuple(one for one in (*LOOK_PARTS, "wall") if one not in NOUNS)
SOURCES = [str(NATIVE / f"pk_{noun}.c") for noun in NOUNS]


@pytest.mark.parametrize(
    ("sanitizer", "rounds"), [("address,undefined", 100_000), ("thread", 1000)]
)
def test_threads_survive_damage_under_sanitizers(
    sanitizer: str, rounds: int, tmp_path: Path
) -> None:
    """Damaged text, and threads that come and go, cause no fault and no data race."""
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g", f"-I{NATIVE}"]
    try:
        # gcc warns that -fsanitize=thread does not model the fences of the row's sequence lock.
        source = HERE / "native" / "exercise_threads.c"
        program = build(source, tmp_path / "exercise", *flags, "-Wno-tsan", "-w", *SOURCES)
    except subprocess.CalledProcessError:
        pytest.skip(f"this compiler has no -fsanitize={sanitizer}")

    done = subprocess.run(
        [str(program), "42", str(rounds)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout[:3]) == (0, "ok "), done.stderr[-2000:]
