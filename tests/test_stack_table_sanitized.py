"""The C behind perfkit.stacks, on whatever stacks and bytes, under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build
from source_tree import ROOT

NATIVE = ROOT / "native"
TABLE = ("order", "stackid", "framenames", "stacktable", "stacktable_add", "stacktable_merge")
OTHERS = ("stacktree", "stackfold", "stacktop", "stackwire", "stackwire_decode")


def test_stacks_survive_hostile_bytes_under_sanitizers(tmp_path: Path) -> None:
    """Sums hold, nothing is read or written out of bounds, nothing leaks or is undefined."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", f"-I{NATIVE}"]
    sources = [str(NATIVE / f"pk_{part}.c") for part in (*TABLE, *OTHERS)]
    try:
        source = ROOT / "tests" / "native" / "exercise_stacks.c"
        program = build(source, tmp_path / "exercise", *flags, *sources)
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no -fsanitize=address,undefined")

    done = subprocess.run(
        [program, "42", "60"], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.returncode, done.stdout[:3]) == (0, "ok "), (done.stdout, done.stderr[-2000:])
