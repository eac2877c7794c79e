"""The C that counts, adds and encodes, on hostile numbers and bytes, under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import build
from source_tree import ROOT

NATIVE = ROOT / "native"
COUNTING = ("bounds", "bucketing", "histogram", "histogram_merge", "fill", "fill_vector")
PARTS = (*COUNTING, "quantile", "wire", "bits", "pack")


def test_counting_survives_hostile_numbers_under_sanitizers(tmp_path: Path) -> None:
    """Kernels, sums and bytes read and write nothing out of bounds, and nothing is undefined."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", f"-I{NATIVE}"]
    sources = [str(NATIVE / f"pk_{part}.c") for part in PARTS]
    try:
        source = ROOT / "tests" / "native" / "exercise_histogram.c"
        program = build(source, tmp_path / "exercise", *flags, *sources, "-lm")
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no -fsanitize=address,undefined")

    done = subprocess.run(
        [program, "42", "400"], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.returncode, done.stdout[:3]) == (0, "ok "), (done.stdout, done.stderr[-2000:])
