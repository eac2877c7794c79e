"""What perfkit costs its target: latencies of the demo's service with perfkit on and off in turn.

Rounds of three slots in random order: off, off again, and on. The first two give the A/A ratio,
which is the noise; on against off is the cost. A slot without perfkit lasts two seconds; one with
it is a whole `perfkit diagnose` with a window of two seconds, and requests are told apart by
whether they were planned in the window or beside it (start-up, probes and analysis).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import alone

from perfkit.demo.look import find_perfkit
from perfkit.demo.options import LoadOptions, ServiceOptions, WorldOptions
from perfkit.demo.run import say, stopping_by_signal, wait_healthy
from perfkit.demo.world import World, start_world

SLOT_S = 2.0
SETTLE_S = 0.3
RESAMPLE_COUNT = 1000
ARMS = ("off", "off again", "window", "beside")
Floats = npt.NDArray[np.float64]


class Span(Struct, frozen=True):
    """One stretch of monotonic time that belongs to an arm of a round."""

    round: int
    arm: str
    start_ns: int
    end_ns: int


class Interval(Struct, frozen=True):
    """A ratio with its 90 % interval."""

    value: float
    low: float
    high: float


def run_perfkit(world: World, round_index: int, folder: Path, seconds: float) -> list[Span]:
    """Diagnoses the service once; gives the window and the stretches before and after it."""
    shift_ns = time.time_ns() - time.monotonic_ns()
    command = [find_perfkit(), "diagnose", ".", "--pid", str(world.service.pid), "--json", "-q"]
    start_ns = time.monotonic_ns()
    ended = subprocess.run(
        [*command, "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | {"XDG_STATE_HOME": str(folder)},
    )
    end_ns = time.monotonic_ns()
    window = json.loads(ended.stdout)["window"]
    first_ns, last_ns = (to_monotonic_ns(window[end], shift_ns) for end in ("start", "end"))
    return [
        Span(round_index, "beside", start_ns, first_ns),
        Span(round_index, "window", first_ns, last_ns),
        Span(round_index, "beside", last_ns, end_ns),
    ]


def to_monotonic_ns(instant: str, shift_ns: int) -> int:
    """The monotonic instant of an RFC 3339 text in UTC."""
    return int(datetime.fromisoformat(instant).timestamp() * 1e9) - shift_ns


def run_rounds(world: World, round_count: int, seed: int) -> list[Span]:
    """Runs the rounds, with a line of progress for every tenth."""
    drawn, spans = random.Random(seed), []
    with tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
        for index in range(round_count):
            arms = ["off", "off again", "on"]
            drawn.shuffle(arms)
            for arm in arms:
                time.sleep(SETTLE_S)
                start_ns = time.monotonic_ns()
                if arm == "on":
                    spans += run_perfkit(world, index, Path(folder), SLOT_S)
                    continue
                time.sleep(SLOT_S)
                spans.append(Span(index, arm, start_ns, time.monotonic_ns()))
            if index % 10 == 9:
                say(f"round {index + 1} of {round_count}")
    return spans


def gather(world: World, spans: list[Span], round_count: int) -> dict[str, list[Floats]]:
    """The latencies in ms of each arm, round by round."""
    asked = sorted(
        (one.planned_ns, (one.done_ns - one.planned_ns) / 1e6) for one in world.watch.asked()
    )
    planned_ns = np.array([each for each, _ in asked])
    latency_ms = np.array([each for _, each in asked])
    parts: dict[str, list[list[Floats]]] = {arm: [[] for _ in range(round_count)] for arm in ARMS}
    for span in spans:
        first, last = np.searchsorted(planned_ns, [span.start_ns, span.end_ns])
        parts[span.arm][span.round].append(latency_ms[first:last])
    return {arm: [np.concatenate(each) for each in rounds] for arm, rounds in parts.items()}


def compare(off: list[Floats], on: list[Floats], ratio: float, seed: int) -> Interval:
    """The ratio of a quantile, on to off, with its interval by a bootstrap over whole rounds."""
    drawn = np.random.default_rng(seed)

    def once(rounds: npt.NDArray[np.int64]) -> float:
        over, under = (np.concatenate([arm[i] for i in rounds]) for arm in (on, off))
        return float(np.quantile(over, ratio) / np.quantile(under, ratio))

    count = len(off)
    resampled = [once(drawn.integers(0, count, count)) for _ in range(RESAMPLE_COUNT)]
    low, high = np.quantile(resampled, [0.05, 0.95])
    return Interval(once(np.arange(count)), float(low), float(high))


def print_table(front: str, rate_hertz: float, arms: dict[str, list[Floats]]) -> None:
    """Prints one Markdown row a comparison, the A/A ratio first."""
    both_off = [np.concatenate(pair) for pair in zip(arms["off"], arms["off again"], strict=True)]
    on_whole = [np.concatenate(pair) for pair in zip(arms["window"], arms["beside"], strict=True)]
    rows = [
        ("A/A: off again to off", arms["off"], arms["off again"]),
        ("in the window to off", both_off, arms["window"]),
        ("whole command to off", both_off, on_whole),
    ]
    columns = ("front", "load", "comparison", "requests an arm", "p50 off", "p99 off")
    print("| " + " | ".join((*columns, "p50 ratio", "p99 ratio")) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for name, off, on in rows:
        counts = f"{sum(map(len, off))} / {sum(map(len, on))}"
        p50_ms, p99_ms = np.quantile(np.concatenate(off), [0.5, 0.99])
        ratios = [compare(off, on, ratio, seed=1) for ratio in (0.5, 0.99)]
        texts = " | ".join(f"{r.value:.3f} ({r.low:.3f} to {r.high:.3f})" for r in ratios)
        cells = (front, f"{rate_hertz:.0f} requests/s", name, counts)
        print("| " + " | ".join((*cells, f"{p50_ms:.2f} ms", f"{p99_ms:.2f} ms", texts)) + " |")


def main() -> int:
    """Measures until each arm has the requests asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--front", choices=("threads", "asyncio"), default="threads")
    parser.add_argument("--requests", type=int, default=20_000, help="in each arm")
    parser.add_argument("--rate-hertz", type=float, default=150.0)
    parser.add_argument("--candidate-count", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    values = parser.parse_args()
    round_count = max(2, -int(-values.requests // (SLOT_S * values.rate_hertz)))
    options = WorldOptions(
        ServiceOptions(front=values.front, candidate_count=values.candidate_count),
        LoadOptions(rate_hertz=values.rate_hertz, seed=values.seed),
        values.seed,
    )
    with stopping_by_signal(), alone(), ExitStack() as stack:
        world = start_world(options, stack)
        wait_healthy(world)
        say(f"{round_count} rounds, some {round_count * 10 / 60:.0f} minutes")
        time.sleep(3)
        spans = run_rounds(world, round_count, values.seed)
        time.sleep(1)
        arms = gather(world, spans, round_count)
    print_table(values.front, values.rate_hertz, arms)
    return 0


if __name__ == "__main__":
    sys.exit(main())
