"""Stacks as the unwinder sees them, held against a book of every call and return of the program."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from elf_programs import needs, run
from unwinding import FOLDER, build_stepper, build_unwound, count_stacks

pytestmark = pytest.mark.system

BUILDS = {
    "dynamic": (),
    "pie_with_frame_pointers": ("-fno-omit-frame-pointer",),
    "static": ("-static",),
    "static_without_index": ("-static", "-Wl,--no-eh-frame-hdr"),
    "unoptimised": ("-O0",),
}
PYTHON = """
import json, os, re, signal
os.kill(os.getpid(), signal.SIGSTOP)
def deepen(level):
    return sum(sorted(x * x for x in range(5))) + (deepen(level - 1) if level else 0)
for _ in range(10_000):
    deepen(6), json.loads(json.dumps({"a": [1, {"b": 2}]})), re.sub("a+", str.upper, "baab")
    try:
        int("no number")
    except ValueError:
        pass
"""


@pytest.fixture(scope="module")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs others instruction by instruction."""
    return build_stepper(tmp_path_factory.mktemp("stepper"))


@pytest.mark.parametrize("name", BUILDS)
def test_every_stack_of_odd_code_is_exact(stepper: Path, tmp_path: Path, name: str) -> None:
    """Variable frames, re-aligned ones, signals, stubs, generated and hand-written code: exact."""
    program = build_unwound(tmp_path / "unwound", *BUILDS[name])

    counts = count_stacks(stepper, "stop", program, "all")

    assert counts["exact"] == counts["root"] == counts["points"] > 2_500
    assert counts["interrupted"] > 50 and counts["guessed"] > 10 and counts["by_pointer"] > 10


@pytest.mark.parametrize("name", ["dynamic", "pie_with_frame_pointers", "unoptimised"])
def test_tables_suffice_where_there_are_some(stepper: Path, tmp_path: Path, name: str) -> None:
    """Next to nothing is guessed: only the C library's longjmp has no tables."""
    program = build_unwound(tmp_path / "unwound", *BUILDS[name])

    counts = count_stacks(stepper, "stop", program, "ruled")

    assert counts["exact"] == counts["points"] > 2_500
    assert counts["guessed"] <= 5 and counts["by_pointer"] == 0


def test_start_of_a_program_is_exact(stepper: Path, tmp_path: Path) -> None:
    """From the very first instruction, in the dynamic linker, every stack is exact."""
    program = build_unwound(tmp_path / "unwound")

    counts = count_stacks(stepper, "start", program, "deep", steps=100_000)

    assert counts["late"] > 1_000
    assert counts["exact"] == counts["points"] > 4_000
    assert counts["guessed"] == counts["by_pointer"] == 0


def test_recursion_is_cut_at_the_limit(stepper: Path, tmp_path: Path) -> None:
    """A stack deeper than the limit has the innermost frames, as many as the limit says."""
    program = build_unwound(tmp_path / "unwound")

    counts = count_stacks(stepper, "start", program, "deep", steps=170_000)

    assert counts["deepest"] == 1024
    assert counts["exact"] == counts["points"]


def test_stacks_of_a_thread_are_exact(stepper: Path, tmp_path: Path) -> None:
    """A thread's stack ends where the thread began, and no stack is taken further."""
    program = build_unwound(tmp_path / "unwound")

    counts = count_stacks(stepper, "thread", program, "thread")

    assert counts["exact"] == counts["root"] == counts["points"] > 100
    assert counts["guessed"] == 0


def test_stacks_of_cplusplus_are_exact(stepper: Path, tmp_path: Path) -> None:
    """All but those of the moment when an exception overwrites the frames that it leaves."""
    needs("g++")
    program = tmp_path / "unwound"
    run("g++", "-O2", "-fomit-frame-pointer", "-o", program, FOLDER / "unwound.cc")

    counts = count_stacks(stepper, "stop", program, steps=150_000)

    assert counts["points"] > 7_000
    assert counts["exact"] >= 0.995 * counts["points"]
    assert counts["guessed"] == 0


def test_stacks_of_python_are_exact(stepper: Path, tmp_path: Path) -> None:
    """The interpreter's own C stacks, to the root."""
    script = tmp_path / "script.py"
    script.write_text(PYTHON)
    python = Path(shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable)

    counts = count_stacks(stepper, "stop", python.resolve(), script, steps=100_000)

    assert counts["points"] > 4_000
    assert counts["exact"] >= 0.999 * counts["points"]
