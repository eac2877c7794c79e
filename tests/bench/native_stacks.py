"""What the sampler of native stacks costs: the whole host, all stacks unwound and aggregated.

A C++ program without frame pointers and a Python one keep two CPUs busy meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import alone
from programs import running

from perfkit._native import NativeSampler

SOURCE = Path(__file__).parents[1] / "native" / "busy.cc"
PYTHON = "import json\nprint(flush=True)\nwhile True: json.loads(json.dumps({'a': [1, {'b': 2}]}))"
COLUMNS = (
    "rate",
    "stack copied",
    "CPU of one core",
    "us a sample",
    "samples",
    "to the root",
    "late",
)
CASES = ((49, 16_384), (99, 16_384), (99, 65_528), (999, 16_384))
WARM_S = 1.0


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keeps two CPUs busy."""
    with tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
        program = Path(folder) / "busy"
        command = ["g++", "-O2", "-fomit-frame-pointer", "-o", str(program), str(SOURCE)]
        subprocess.run(command, check=True)
        with running(str(program)), running(sys.executable, "-c", PYTHON):
            yield


def measure(rate_hertz: int, stack_bytes: int, seconds: float) -> list[float]:
    """One run: percent of a core, us a sample, samples, ratio to the root, ratio late."""
    one = NativeSampler(
        "/proc",
        interval_ns=1_000_000_000 // rate_hertz,
        stack_bytes=stack_bytes,
        budget_ratio=1.0,
        row_limit=1 << 17,
    )
    one.set_wanted(None)
    time.sleep(WARM_S)
    before = one.status()
    time.sleep(seconds)
    after = one.status()
    one.stop()
    passed_ns, spent_ns, count, root, late = (
        after[name] - before[name]
        for name in ("last_tick_ns", "spent_ns", "sample_count", "root_count", "late_count")
    )
    cpu_percent = 100 * spent_ns / passed_ns
    return [cpu_percent, spent_ns / 1e3 / count, count, 100 * root / count, 100 * late / count]


def to_row(rate_hertz: int, stack_bytes: int, measured: list[list[float]]) -> str:
    """One row of the table, the median of several runs and their range."""
    cells = [f"{rate_hertz} Hz", f"{stack_bytes:,} B"]
    for place, form in enumerate(("{:.2f} %", "{:.1f}", "{:.0f}", "{:.1f} %", "{:.1f} %")):
        values = sorted(one[place] for one in measured)
        low, high = form.format(values[0]), form.format(values[-1])
        cells.append(f"{form.format(statistics.median(values))} ({low} to {high})")
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Measures each case and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each case")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    values = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |", flush=True)
    print("|---" * len(COLUMNS) + "|", flush=True)
    with alone(), busy():
        for rate_hertz, stack_bytes in CASES:
            measured = [
                measure(rate_hertz, stack_bytes, values.seconds) for _ in range(values.runs)
            ]
            print(to_row(rate_hertz, stack_bytes, measured), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
