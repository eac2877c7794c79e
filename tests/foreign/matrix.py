"""All the runs, each as a program of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from foreign.faults import FORMS
from foreign.lab import SERVERS
from foreign.lookalikes import LOOKALIKES
from perfkit.demo import cgroups

TESTS = Path(__file__).parents[1]
TIMEOUT_S = 120
SEED_COUNT = 5
FROM_OUTSIDE = ("quota", "neighbour", "affinity")
IN_GROUPS = ("quota", "neighbour", "batch")


class Run(Struct, frozen=True):
    """What one run is about."""

    server: str
    fault: str
    form: str
    seed: int

    def __str__(self) -> str:
        return f"{self.server}-{self.fault}-{self.form}-{self.seed}"

    def arguments(self) -> list[str]:
        """What the program of one run is told."""
        named = ["--server", self.server, "--fault", self.fault, "--form", self.form]
        return [*named, "--seed", str(self.seed)]


def list_runs(servers: tuple[str, ...] = SERVERS, seed_count: int = SEED_COUNT) -> list[Run]:
    """Every fault in every form that a server can have, the healthy runs, and the look-alikes."""
    kinds = [(fault, "one_of") for fault in ("none", *FROM_OUTSIDE)]
    kinds += [(fault, form) for fault in ("slow_peer", "hot_handler") for form in FORMS]
    runs = [
        Run(server, fault, form, seed)
        for server in servers
        for fault, form in kinds
        for seed in range(1, seed_count + 1)
        if (server, fault) != ("redis", "slow_peer")
    ]
    return runs + [Run(server, name, "one_of", 1) for server in servers for name in LOOKALIKES]


def what_lacks(run: Run) -> str:
    """Why a run is not possible here; "" if it is."""
    if run.fault in IN_GROUPS and not cgroups.can_limit():
        return "needs root and a cgroup with a cpu controller"
    return ""


def execute(run: Run, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs one; prints its outcome as JSON, and ends with 0 if perfkit was right."""
    return subprocess.run(
        [sys.executable, "-m", "foreign.run", *run.arguments(), *more],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
