"""What a diagnosis costs the host: on the demo, and on hosts and services of a large scale.

Each case is one real `perfkit diagnose` of 10 s with every source on; a row has the CPU of all of
perfkit within the window in percent of one core, its largest resident size, the rates that the
samplers reached, how long after the window the report came, and the verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from perfkit.agent.target import resolve
from perfkit.demo.look import find_perfkit
from perfkit.host import Host

sys.path.insert(0, str(Path(__file__).parents[1]))

import crowd
from measuring import alone

PROCESS_COUNT = 2000
THREAD_COUNT, SOCKET_COUNT, FILE_COUNT = 500, 4000, 2000
QUOTA_US = 20_000
SETTLE_S = 2.0
COLUMNS = ("case", "CPU", "memory", "threads", "sockets", "stacks", "report after", "verdict")


class Measured(Struct, frozen=True):
    """One diagnosis: its JSON report, and when it was there."""

    report: dict[str, Any]
    ended_s: float


def diagnose(command: list[str], folder: str) -> Measured:
    """Runs a command that prints a diagnosis as JSON."""
    environment = os.environ | {"XDG_STATE_HOME": folder}
    ended = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    return Measured(json.loads(ended.stdout), time.time())


def on_demo(front: str, fault: str) -> Callable[[str], Measured]:
    """A diagnosis of the demo's service with a fault."""

    def measure(folder: str) -> Measured:
        inner = f"{shlex.quote(find_perfkit())} diagnose . --pid {{pid}} --json -q"
        demo = [sys.executable, "-m", "perfkit.demo", "run", "--front", front, "--fault", fault]
        return diagnose([*demo, "--exec", inner], folder)

    return measure


def on_crowd(
    *, sleeping: int = 0, threads: int = 24, sockets: int = 50, files: int = 0, quota_us: int = 0
) -> Callable[[str], Measured]:
    """A diagnosis of a service of this size, beside this many other processes."""

    def measure(folder: str) -> Measured:
        with ExitStack() as stack:
            stack.enter_context(crowd.sleeping(sleeping))
            pid = stack.enter_context(crowd.serving(threads, sockets, files))
            if quota_us:
                stack.enter_context(crowd.throttled(pid, quota_us))
            time.sleep(SETTLE_S)
            if sleeping:
                print_inventory(sleeping, pid)
            named = ["--pid", str(pid), "--json", "-q"]
            return diagnose([find_perfkit(), "diagnose", ".", *named], folder)

    return measure


def print_inventory(process_count: int, pid: int) -> None:
    """Says how long it takes to find a service, named and not, five times each."""
    for words, wanted in (("named", pid), ("not named", None)):
        taken_s = []
        for _ in range(5):
            begin_s = time.perf_counter()
            resolve(Host(), wanted, only_pid=False, own_pid=-1)
            taken_s.append(time.perf_counter() - begin_s)
        spread = f"{min(taken_s):.2f} to {max(taken_s):.2f}"
        median_s = statistics.median(taken_s)
        print(f"inventory of {process_count} processes, {words}: {median_s:.2f} s ({spread})")


CASES: dict[str, Callable[[str], Measured]] = {
    "threads": on_demo("threads", "none"),
    "asyncio": on_demo("asyncio", "none"),
    "threads-busy": on_demo("threads", "busy_poll_thread"),
    "asyncio-busy": on_demo("asyncio", "busy_poll_thread"),
    "processes": on_crowd(sleeping=PROCESS_COUNT),
    "large": on_crowd(threads=THREAD_COUNT, sockets=SOCKET_COUNT),
    "large-quota": on_crowd(threads=THREAD_COUNT, sockets=SOCKET_COUNT, quota_us=QUOTA_US),
    "descriptors": on_crowd(files=FILE_COUNT),
}


def to_row(name: str, measured: list[Measured]) -> str:
    """One row of the table, the median of several runs and their range."""
    reports = [one.report for one in measured]
    cpu = sorted(report["cost"]["cpu_percent_of_core"] for report in reports)
    memory_mb = max(report["cost"]["memory_peak_mb"] for report in reports)
    after_s = max(one.ended_s - to_seconds(one.report["window"]["end"]) for one in measured)
    cells = [name, f"{statistics.median(cpu):.2f} % ({cpu[0]:.2f} to {cpu[-1]:.2f})"]
    cells.append(f"{memory_mb:.0f} MB")
    for sampler in ("threads", "sockets", "python_stacks"):
        rates = [report["cost"]["rates"].get(sampler, 0.0) for report in reports]
        cells.append(f"{min(rates):.0f} to {max(rates):.0f} Hz")
    # The demo ends its own processes after the report, so its command takes longer.
    cells.append("" if name.startswith(("threads", "asyncio")) else f"{after_s:.1f} s")
    cells.append(", ".join(sorted({to_verdict(report) for report in reports})))
    return "| " + " | ".join(cells) + " |"


def to_verdict(report: dict[str, Any]) -> str:
    """The first cause, or the state of a report without one."""
    causes = report["causes"]
    return str(causes[0]["id"] if causes else report["verdict"]["state"])


def to_seconds(instant: str) -> float:
    """The UTC time of an RFC 3339 text."""
    return datetime.fromisoformat(instant).timestamp()


def main() -> int:
    """Measures the cases asked for and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(CASES), action="append", help="these cases")
    parser.add_argument("--runs", type=int, default=3, help="of each case")
    values = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |", flush=True)
    print("|---" * len(COLUMNS) + "|", flush=True)
    with alone(), tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
        for name in values.only or CASES:
            measured = [CASES[name](folder) for _ in range(values.runs)]
            print(to_row(name, measured), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
