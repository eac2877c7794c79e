"""One run: `python -m foreign.run --server S --fault F --form M --seed N [--results FILE]`.

Run from `tests/`. Prints a line, and appends the outcome as JSON; `--table FILE` counts outcomes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from foreign.faults import FAULTS, FORMS, Plan, begin_midway, inject
from foreign.lab import SERVERS, start_lab
from foreign.lookalikes import LOOKALIKES, add_lookalike
from perfkit.demo.look import find_perfkit

WARM_UP_S = 4.0
MEDIAN_MOVED, TAIL_MOVED = 1.25, 1.5


class Outcome(Struct, frozen=True):
    """What perfkit said of one run, and whether that is right."""

    server: str
    fault: str
    form: str
    seed: int
    right: bool
    state: str
    said: str
    culprit: str
    share: float
    others: tuple[str, ...]
    healthy_ms: tuple[float, float]
    faulty_ms: tuple[float, float]
    truth: str


def run_once(server: str, fault: str, form: str, seed: int, keep: Path | None = None) -> Outcome:
    """Starts everything, diagnoses once, and says whether the answer is right."""
    # With several alike the form is one of them; else there is one, held against itself or nothing.
    peer_count = 1 if fault == "slow_peer" and form != "one_of" else 4
    with tempfile.TemporaryDirectory() as name, start_lab(server, Path(name), peer_count) as lab:
        time.sleep(WARM_UP_S)
        healthy = lab.latency_ms(3)
        is_harmless = fault in LOOKALIKES
        switched = add_lookalike(lab, fault) if is_harmless else inject(lab, fault, form, seed)
        with switched as plan:
            timer = begin_midway(plan) if plan.is_midway else None
            is_slow = plan.truth.cause != "" and form == "constant"
            report = diagnose(lab.pid, Path(name), is_slow=is_slow)
            if timer is not None:
                timer.cancel()
            faulty = lab.latency_ms(4)
        if keep is not None:
            save(Path(name), keep / f"{server}.{fault}.{form}.{seed}.perfkit")
    return judge(report, plan, (server, fault, form, seed), (healthy, faulty))


def diagnose(pid: int, folder: Path, *, is_slow: bool) -> dict[str, Any]:
    """Runs `perfkit diagnose` on the server as a user would."""
    slow = ["--slow"] if is_slow else []
    ended = subprocess.run(
        [find_perfkit(), "diagnose", ".", "--pid", str(pid), "--json", *slow],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(folder)},
    )
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def save(folder: Path, to: Path) -> None:
    """Keeps the capture of a run."""
    to.parent.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*.capture"):
        to.write_bytes(path.read_bytes())


def judge(
    report: dict[str, Any],
    plan: Plan,
    which: tuple[str, str, str, int],
    latency: tuple[tuple[float, float], tuple[float, float]],
) -> Outcome:
    """Right is: the first cause and its culprit are those injected; without a fault, silence."""
    causes = report["causes"] or [{"id": "", "culprit": {"name": ""}, "share": 0.0}]
    first, truth = causes[0], plan.truth
    state = report["verdict"]["state"]
    if truth.cause:
        named = any(text in first["culprit"]["name"] for text in truth.culprit.split("|"))
        right = first["id"] == truth.cause and named
    else:
        right = state == "healthy"
    return Outcome(
        *which,
        right=right,
        state=state,
        said=first["id"],
        culprit=first["culprit"]["name"],
        share=round(first["share"], 3),
        others=tuple(f"{cause['id']} {cause['share']:.2f}" for cause in causes[1:]),
        healthy_ms=latency[0],
        faulty_ms=latency[1],
        truth=f"{truth.cause} {truth.culprit}",
    )


def has_moved(row: dict[str, Any]) -> bool:
    """Whether requests took visibly longer with the fault; else there was nothing to find."""
    ratios = [after / max(before, 0.1) for before, after in _pairs(row)]
    return ratios[0] >= MEDIAN_MOVED or ratios[1] >= TAIL_MOVED


def _pairs(row: dict[str, Any]) -> list[tuple[float, float]]:
    return list(zip(row["healthy_ms"], row["faulty_ms"], strict=True))


def print_table(path: Path) -> None:
    """Counts of right answers, and of runs in which latency moved, by server, fault and form."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        groups.setdefault((row["server"], row["fault"], row["form"]), []).append(row)
    print(f"{'server':10} {'fault':12} {'form':9} right  slower")
    for key, rows in sorted(groups.items()):
        right, moved = sum(row["right"] for row in rows), sum(map(has_moved, rows))
        total = len(rows)
        print(f"{key[0]:10} {key[1]:12} {key[2]:9} {right:2} of {total:2}  {moved:2} of {total:2}")
    every = [row for rows in groups.values() for row in rows]
    harmful = [row for row in every if row["truth"].strip()]
    for name, rows in (
        ("with a fault", harmful),
        ("without", [row for row in every if row not in harmful]),
    ):
        print(f"{name}: {sum(row['right'] for row in rows)} of {len(rows)} right")


def main() -> None:
    """One run, or a table of many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=SERVERS, default="gunicorn")
    parser.add_argument("--fault", choices=(*FAULTS, *LOOKALIKES), default="none")
    parser.add_argument("--form", choices=FORMS, default="one_of")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for the captures")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table is not None:
        print_table(options.table)
        return
    outcome = run_once(options.server, options.fault, options.form, options.seed, options.keep)
    line = json.dumps(to_builtins(outcome))
    print(line)
    if options.results is not None:
        with options.results.open("a") as results:
            results.write(line + "\n")
    sys.exit(0 if outcome.right else 1)


if __name__ == "__main__":
    main()
