"""What a shared histogram costs its server: one record in C and from Python, and a snapshot.

All that is compared takes turns in one process, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from histogram import NATIVE, ROOT, Work, build_empty_call, call_often, show
from measuring import alone
from programs import build

from perfkit import Histogram, SharedHistogram, SharedHistogramReader

CALL_COUNT = 20_000
SNAPSHOT_COUNT = 100
RUN_COUNT = 9
IN_C = (
    "perfkit_shard_record, called",
    "perfkit_histogram_record, which looks it up",
    "perfkit_histogram_record_common, atomic",
    "empty call in the same loop",
    "perfkit_shard_record, inlined",
    "pk_histogram_record, in private memory, called",
)


def show_c() -> None:
    """One record in C, beside that of a histogram in private memory, in turns."""
    parts = [str(NATIVE / f"pk_{part}.c") for part in ("bounds", "bucketing", "histogram")]
    with tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
        programs = []
        for name, sources in (("time_shared_histogram", []), ("time_histogram", parts)):
            source = ROOT / "tests" / "native" / f"{name}.c"
            flags = ("-O2", f"-I{NATIVE}", "-Wl,--no-as-needed", "-lm", *sources)
            programs.append(build(source, Path(folder) / name, *flags))
        runs = [
            [word for one in programs for word in subprocess.check_output([one]).split()]
            for _ in range(RUN_COUNT)
        ]
    print(f"One record in C, CPU time, median of {RUN_COUNT} runs (range)\n\n| | ns |\n|---|---|")
    for place, name in enumerate(IN_C):
        each = sorted(float(run[place]) for run in runs)
        print(f"| {name} | {statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f}) |")


def show_calls(rounds: int) -> None:
    """One value at a time from Python."""
    shared, plain = SharedHistogram("bench"), Histogram()

    def time_block() -> None:
        for _ in range(CALL_COUNT):
            with shared.timer():
                pass

    with tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
        works: dict[str, Work | None] = {
            "empty C-extension call": call_often(build_empty_call(Path(folder)), 1.5),
            "SharedHistogram.record(float)": call_often(shared.record, 1.5),
            "Histogram.record(float)": call_often(plain.record, 1.5),
            "SharedHistogram, with timer()": time_block,
        }
        show("One call from Python, the loop included", works, CALL_COUNT, rounds)


def show_snapshots(rounds: int) -> None:
    """What a reader pays, by the shards that were ever used."""
    shared = SharedHistogram("bench")
    shared.record(1.5)
    path = f"/proc/self/fd/{shared.fileno()}"
    reader = SharedHistogramReader(path)
    works: dict[str, Work | None] = {
        "snapshot, one shard used": lambda: [reader.snapshot() for _ in range(SNAPSHOT_COUNT)],
        "open": lambda: [SharedHistogramReader(path) for _ in range(SNAPSHOT_COUNT)],
    }
    show("What a reader pays", works, SNAPSHOT_COUNT, rounds)


def main() -> int:
    """Measures all and prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="of each comparison")
    values = parser.parse_args()
    with alone():
        show_c()
        show_calls(values.rounds)
        show_snapshots(values.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
