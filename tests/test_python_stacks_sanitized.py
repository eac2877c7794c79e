"""The C that reads Python stacks, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build

HERE = Path(__file__).parent
NATIVE = HERE.parent / "native"
NOUNS = ("process", "procfile", "pylayout", "pylist", "pyname", "pyprocess", "pystack", "pywalk")
SOURCES = [str(NATIVE / f"pk_{noun}.c") for noun in (*NOUNS, "remote", "ring")]


def test_python_stacks_survive_damage_under_sanitizers(tmp_path: Path) -> None:
    """An interpreter whose words point anywhere causes no fault, and no read of our own memory."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", f"-I{NATIVE}"]
    try:
        source = HERE / "native" / "exercise_pystacks.c"
        program = build(source, tmp_path / "exercise", *flags, "-w", *SOURCES)
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no -fsanitize=address,undefined")

    done = subprocess.run(
        [str(program), "42", "2000"], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.returncode, done.stdout[:3]) == (0, "ok "), (done.stdout, done.stderr[-2000:])
