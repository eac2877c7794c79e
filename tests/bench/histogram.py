"""What perfkit.Histogram costs, beside what else Python has: one call, arrays, merges, bytes.

All that is compared takes turns in one process, and a ratio is the median of the rounds' ratios.
Peers are installed by `make bench-histogram`; of one that cannot be had, its line says so.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from measuring import alone
from programs import build

from perfkit import Histogram

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
PEERS = ("hdrh.histogram", "prometheus_client", "ddsketch", "fast_histogram")
CALL_COUNT = 20_000
MERGED_COUNT = 10_000
BINS = 1024
Work = Callable[[], object]


def find_peers() -> dict[str, ModuleType | None]:
    """Each peer's module; None where it is not installed."""
    found: dict[str, ModuleType | None] = {}
    for name in PEERS:
        try:
            found[name] = importlib.import_module(name)
        except ImportError:
            found[name] = None
    return found


def compare(works: dict[str, Work | None], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, in turns; work that cannot be had takes none."""
    had = [(name, work) for name, work in works.items() if work is not None]
    times: dict[str, list[float]] = {name: [] for name, _ in had}
    for _ in range(rounds):
        for name, work in had:
            start_s = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start_s)
    return times


def show(title: str, works: dict[str, Work | None], per: int, rounds: int) -> None:
    """Prints a table: ns for each of `per`, and how often the first one's time that is."""
    print(f"\n{title}, median of {rounds} rounds\n\n| | ns each (range) | x the first |")
    print("|---|---|---|", flush=True)
    times = compare(works, rounds)
    first = next(iter(times.values()))
    for name in works:
        if name not in times:
            print(f"| {name} | not installed | |")
            continue
        each_ns = sorted(1e9 * one / per for one in times[name])
        ratio = statistics.median(a / b for a, b in zip(times[name], first, strict=True))
        spread = f"{statistics.median(each_ns):,.3g} ({each_ns[0]:,.3g} to {each_ns[-1]:,.3g})"
        print(f"| {name} | {spread} | {ratio:.3g} |", flush=True)


def call_often(function: Callable[[Any], object], value: Any) -> Work:
    """A loop that does nothing but call."""

    def loop() -> None:
        for _ in range(CALL_COUNT):
            function(value)

    return loop


def build_empty_call(folder: Path) -> Callable[[Any], object]:
    """A function of a C extension that does nothing."""
    include = sysconfig.get_paths()["include"]
    flags = ("-O2", "-shared", "-fPIC", f"-I{include}")
    build(ROOT / "tests" / "native" / "empty_call.c", folder / "empty_call.so", *flags)
    sys.path.insert(0, str(folder))
    taken: Callable[[Any], object] = importlib.import_module("empty_call").take
    return taken


def show_calls(rounds: int) -> None:
    """One value at a time."""
    peers = find_peers()
    hdr, prometheus, sketch = (peers[name] for name in PEERS[:3])
    histogram = Histogram()
    prometheus_one = prometheus and prometheus.Histogram("a", "a", registry=None)

    def time_block() -> None:
        for _ in range(CALL_COUNT):
            with histogram.timer():
                pass

    def time_span() -> None:
        for _ in range(CALL_COUNT):
            histogram.stop(histogram.start())

    with tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
        works: dict[str, Work | None] = {
            "record(float)": call_often(histogram.record, 1.5),
            "empty C-extension call": call_often(build_empty_call(Path(folder)), 1.5),
            "record(int)": call_often(histogram.record, 3),
            "stop(start())": time_span,
            "with timer()": time_block,
            "hdrhistogram record_value": hdr
            and call_often(hdr.HdrHistogram(1, 1 << 42, 2).record_value, 1500),
            "prometheus_client observe": prometheus and call_often(prometheus_one.observe, 1.5),
            "ddsketch add": sketch and call_often(sketch.DDSketch(0.005).add, 1.5),
        }
        show("One call from Python, the loop included", works, CALL_COUNT, rounds)


def show_arrays(count: int, rounds: int) -> None:
    """Whole arrays."""
    values = np.random.default_rng(1).lognormal(0, 1, count)
    top = float(values.max())
    fast = find_peers()["fast_histogram"]
    histogram = Histogram()
    works: dict[str, Work | None] = {
        "numpy.sum, which only reads": values.sum,
        "record_many": lambda: histogram.record_many(values),
        "record_many, scalar": lambda: histogram.record_many(values, "scalar"),
        f"fast-histogram, {BINS} linear bins": fast
        and (lambda: fast.histogram1d(values, BINS, (0, top))),
        f"numpy.histogram, {BINS} linear bins": lambda: np.histogram(values, BINS, (0, top)),
    }
    show(f"Arrays of {count:,} lognormal float64", works, count, rounds)


def show_kinds(rounds: int) -> None:
    """Arrays of other formats, and of values that are not plain."""
    values = np.random.default_rng(2).lognormal(10, 1, 10_000_000)
    mixed = values.copy()
    mixed[::10] = 0
    arrays = {
        "float64": values,
        "float32": values.astype(np.float32),
        "int64": values.astype(np.int64) + 1,
        "uint64": values.astype(np.uint64) + np.uint64(1),
        "int32": values.astype(np.int32) + 1,
        "float64, every tenth 0": mixed,
        "float64, negative": -values,
        "float64, every second one": values.repeat(2)[::2],
    }
    histogram = Histogram()
    works: dict[str, Work | None] = {
        name: lambda one=one: histogram.record_many(one)  # type: ignore[misc]
        for name, one in arrays.items()
    }
    show("record_many of 10,000,000", works, len(values), rounds)


def show_merges(rounds: int) -> None:
    """Ten thousand histograms of a thousand values each."""
    random = np.random.default_rng(3)
    histograms = [Histogram() for _ in range(MERGED_COUNT)]
    for one in histograms:
        one.record_many(random.lognormal(0, 1, 1000))
    encoded = [one.to_bytes() for one in histograms]
    counts = np.zeros((MERGED_COUNT, 1024), np.uint64)
    works: dict[str, Work | None] = {
        "merge_all of histograms": lambda: Histogram.merge_all(histograms),
        "merge_all of bytes": lambda: Histogram.merge_all(encoded),
        "numpy, a matrix of 1,024 counts each": lambda: counts.sum(0),
    }
    show(f"Merging {MERGED_COUNT:,}", works, MERGED_COUNT, rounds)
    print(f"\nbytes of each, mean: {sum(map(len, encoded)) / MERGED_COUNT:.0f}")


def show_sizes() -> None:
    """A million values as bytes."""
    values = np.random.default_rng(1).lognormal(0, 1, 1_000_000)
    histogram = Histogram()
    histogram.record_many(values)
    hdr, _, sketch, _ = find_peers().values()
    print("\n1,000,000 lognormal values as bytes\n\n| | bytes |\n|---|---|")
    print(f"| Histogram.to_bytes() | {len(histogram.to_bytes()):,} |")
    if hdr is not None:
        one = hdr.HdrHistogram(1, 1 << 42, 2)
        for value in (values * 1000).astype(int).tolist():
            one.record_value(value)
        print(f"| hdrhistogram, 2 digits, encode() | {len(one.encode()):,} |")
    if sketch is not None:
        other = sketch.DDSketch(0.005415)
        for value in values[:200_000].tolist():
            other.add(value)
        print(f"| ddsketch, 200,000 of them, pickled | {len(pickle.dumps(other)):,} |")


def show_c() -> None:
    """One record in C."""
    with tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
        parts = [str(NATIVE / f"pk_{part}.c") for part in ("bounds", "bucketing", "histogram")]
        source = ROOT / "tests" / "native" / "time_histogram.c"
        flags = ("-O2", f"-I{NATIVE}", "-Wl,--no-as-needed", "-lm", *parts)
        program = build(source, Path(folder) / "time_histogram", *flags)
        lines = [subprocess.check_output([program], text=True).split() for _ in range(5)]
    print("\nOne record in C, CPU time, median of 5 runs (range)\n\n| | ns |\n|---|---|")
    for place, name in enumerate(("pk_histogram_record", "log-linear, 64 an octave")):
        each = sorted(float(line[place]) for line in lines)
        print(f"| {name} | {statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f}) |")


PARTS = {
    "calls": lambda values: show_calls(values.rounds),
    "arrays": lambda values: show_arrays(values.count, values.rounds),
    "kinds": lambda values: show_kinds(values.rounds),
    "merges": lambda values: show_merges(values.rounds),
    "sizes": lambda values: show_sizes(),
    "c": lambda values: show_c(),
}


def main() -> int:
    """Measures what was asked for and prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of each comparison")
    parser.add_argument("--count", type=int, default=100_000_000, help="values of the large array")
    parser.add_argument("--only", choices=PARTS, help="one part")
    values = parser.parse_args()
    with alone():
        for name in [values.only] if values.only else PARTS:
            PARTS[name](values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
