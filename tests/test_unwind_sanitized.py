"""The C that unwinds stacks, on damaged programs, under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build
from unwinding import FOLDER, SOURCES, build_unwound


def test_unwinding_survives_damage_under_sanitizers(tmp_path: Path) -> None:
    """Whatever files, mappings and stacks hold, no read is out of bounds, no search without end."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    try:
        program = build(FOLDER / "fuzz_unwind.c", tmp_path / "fuzz", *flags, *SOURCES)
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no -fsanitize=address,undefined")
    with_index = build_unwound(tmp_path / "unwound")
    without = build_unwound(tmp_path / "bare", "-static", "-Wl,--no-eh-frame-hdr")

    done = subprocess.run(
        [program, "42", "600", with_index, without],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (done.returncode, done.stdout[:3]) == (0, "ok "), (done.stdout, done.stderr[-2000:])
