"""Real faults in a real service, diagnosed for real, through the command line and its JSON."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from record_captures import FRONTS_OF

from perfkit import discover
from perfkit.demo.look import find_perfkit

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

RUN = (sys.executable, "-m", "perfkit.demo", "run")
FRONTS = ("threads", "asyncio")
FAULTS = sorted(discover.load_all("perfkit.demo.faults", "start"))
MATRIX = [
    (front, fault) for fault in FAULTS for front in FRONTS if front in FRONTS_OF.get(fault, FRONTS)
]


def diagnose(folder: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs the demo and perfkit on it; gives the report and the state that the demo kept."""
    state = folder / "state.json"
    command = f"{shlex.quote(find_perfkit())} diagnose . --pid {{pid}} --json"
    ended = subprocess.run(
        [*RUN, "--state-file", str(state), "--exec", command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(folder)},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), json.loads(state.read_text())


def first_answer(report: dict[str, Any], expected: dict[str, str]) -> tuple[Any, ...]:
    """The state, the first cause, its culprit's kind, and whether its name is the true one."""
    causes = report["causes"] or [{"id": "", "culprit": {"kind": "", "name": ""}}]
    culprit = causes[0]["culprit"]
    names_it = Path(expected["name"]).name in culprit["name"]
    return report["verdict"]["state"], causes[0]["id"], culprit["kind"], names_it


def check(folder: Path, front: str, fault: str, seed: int) -> None:
    """Asserts that the first cause and its culprit are those that were injected."""
    if import_module(f"perfkit.demo.faults.{fault}").NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root")
    report, state = diagnose(folder, "--front", front, "--fault", fault, "--seed", str(seed))
    culprit = state["culprit"]
    expected = ("cause", fault, culprit["kind"], True)

    assert first_answer(report, culprit) == expected, json.dumps(report, indent=1)


@pytest.mark.parametrize(
    ("front", "fault"), [("threads", "gil_contention"), ("asyncio", "downstream_slow")]
)
def test_diagnose_names_a_fault_of_each_front(tmp_path: Path, front: str, fault: str) -> None:
    """The cause that was switched on is named first, with its culprit."""
    check(tmp_path, front, fault, seed=1)


@pytest.mark.slow
def test_demo_shows_a_report_and_says_where_it_lies(tmp_path: Path) -> None:
    """`--diagnose` prints the report, and the files that it names exist."""
    ended = subprocess.run(
        [*RUN, "--fault", "downstream_slow", "--diagnose", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
    )
    named = [line.partition("saved run: ")[2] for line in ended.stderr.splitlines()]

    assert (ended.returncode, "Verdict" in ended.stdout) == (0, True), ended.stderr
    assert [Path(name).is_file() for name in named if name] == [True]
    assert (tmp_path / "out" / "report.md").read_text().startswith("#")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(("front", "fault"), MATRIX)
def test_diagnose_names_every_fault(tmp_path: Path, front: str, fault: str, seed: int) -> None:
    """Each fault on each front, at five strengths, is named first, with its culprit."""
    check(tmp_path, front, fault, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("front", FRONTS)
def test_diagnose_is_silent_without_a_fault(tmp_path: Path, front: str, seed: int) -> None:
    """A healthy service is called healthy, ten times of ten."""
    report, _ = diagnose(tmp_path, "--front", front, "--fault", "none", "--seed", str(seed))

    assert (report["verdict"]["state"], report["causes"]) == ("healthy", [])
