"""What perfkit.stacks costs, beside what else Python has: counting ids, trees, merging profiles.

A made-up fleet: hosts that run the same programs, each with some of all stacks. All that is
compared takes turns in one process, and a ratio is the median of the rounds' ratios.
pyarrow is installed by `make bench-stacks`; where it cannot be had, its lines say so.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from measuring import alone

from perfkit.stacks import StackTable

FUNCTION_COUNT = 20_000
STACK_COUNT = 60_000
PROFILE_STACKS = 2_000
SMALL_PAIRS = 200_000
MERGED_COUNT = 200
Work = Callable[[], object]
Frame = tuple[str, str]


def find_pyarrow() -> ModuleType | None:
    """pyarrow; None where it is not installed."""
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        return None


def make_stacks(random: np.random.Generator) -> list[tuple[Frame, ...]]:
    """Distinct stacks of some 30 frames, leaf first, half of which they share with another one."""
    functions = [
        (f"Serving::Layer{i % 97}::handle_request_{i}", f"/opt/service/lib/part_{i % 211}.so")
        for i in range(FUNCTION_COUNT)
    ]
    # Few functions are in most stacks, as in programs.
    chosen = (FUNCTION_COUNT * random.random(STACK_COUNT * 40) ** 2).astype(int).tolist()
    stacks: list[tuple[Frame, ...]] = [(functions[0],)]
    seen = set(stacks)
    places = iter(chosen)
    while len(stacks) < STACK_COUNT:
        base = stacks[int(random.integers(len(stacks)))]
        depth = int(random.integers(15, 45))
        kept = base[len(base) // 2 :]
        told = max(1, depth - len(kept))
        stack = (*(functions[next(places, 1)] for _ in range(told)), *kept)
        if stack not in seen:
            seen.add(stack)
            stacks.append(stack)
    return stacks


def make_pairs(stacks: StackTable, count: int, random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Numbers, ids and counts of `count` pairs: profile after profile, each of other stacks."""
    ids = np.frombuffer(stacks.ids(), np.uint64).reshape(-1, 2)
    weights = 1 / np.arange(1, len(ids) + 1) ** 0.5
    numbers = random.choice(len(ids), count, p=weights / weights.sum())
    return numbers, ids[numbers], random.integers(1, 50, count)


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


def show(
    title: str, works: dict[str, Work | None], rounds: int, per: int, first_per: int = 0
) -> None:
    """Prints a table: ms, ns for each of `per`, and how often the first one's ns that is.

    The first one does as much for each of `first_per`, where that is another number.
    """
    first_per = first_per or per
    print(f"\n{title}, median of {rounds} rounds\n\n| | ms (range) | ns each | x the first |")
    print("|---|---|---|---|", flush=True)
    times = compare(works, rounds)
    first = next(iter(times.values()))
    for name in works:
        if name not in times:
            print(f"| {name} | not installed | | |")
            continue
        each_ms = sorted(1e3 * one for one in times[name])
        ratio = statistics.median(a / b for a, b in zip(times[name], first, strict=True))
        own_per = first_per if times[name] is first else per
        ratio *= first_per / own_per
        middle_ms = statistics.median(each_ms)
        spread = f"{middle_ms:,.4g} ({each_ms[0]:,.4g} to {each_ms[-1]:,.4g})"
        print(f"| {name} | {spread} | {1e6 * middle_ms / own_per:,.3g} | {ratio:.3g} |", flush=True)


def group_often(table: Any) -> Work:
    """Sums the counts of each stack, on one thread."""
    return lambda: table.group_by("stack", use_threads=False).aggregate([("count", "sum")])


def make_groupings(numbers: Any, ids: Any, counts: Any) -> dict[str, Work | None]:
    """pyarrow's group_by of the same pairs, on one thread: by id and by a number in its place."""
    arrow = find_pyarrow()
    names = ("pyarrow group_by, ids of 128 bits", "pyarrow group_by, numbers of 64 bits")
    if arrow is None:
        return dict.fromkeys(names)
    buffer = arrow.py_buffer(ids)
    wide = arrow.Array.from_buffers(arrow.binary(16), len(ids), [None, buffer])
    hashes = ids[:, 0].astype(np.int64)
    tables = (
        arrow.table({"stack": wide, "count": counts}),
        arrow.table({"stack": hashes, "count": counts}),
    )
    return {name: group_often(one) for name, one in zip(names, tables, strict=True)}


def show_counting(pairs: int, rounds: int) -> None:
    """Ids -> counts -> tree."""
    random = np.random.default_rng(1)
    known = StackTable()
    for stack in make_stacks(random):
        known.intern(stack)
    encoded = known.to_bytes()
    numbers, ids, counts = make_pairs(known, pairs, random)
    table = StackTable.from_bytes(encoded)

    def count_and_draw() -> None:
        fresh = StackTable.from_bytes(encoded)
        fresh.add(ids, counts)
        fresh.tree()

    works: dict[str, Work | None] = {
        "add(ids, counts)": lambda: table.add(ids, counts),
        "from_bytes, add, tree": count_and_draw,
        "numpy.sum of ids and counts, which only reads": lambda: (ids.sum(), counts.sum()),
        **make_groupings(numbers, ids, counts),
    }
    show(f"{pairs:,} pairs (id, count) of {STACK_COUNT:,} stacks", works, rounds, pairs)
    tree = table.tree()
    drawn: dict[str, Work | None] = {
        "tree": table.tree,
        "tree.columns": tree.columns,
        "tree.prune(0.001)": lambda: tree.prune(0.001),
        "top(20)": table.top,
        "diff with itself": lambda: table.diff(table, by="total"),
        "to_bytes": table.to_bytes,
        "from_bytes": lambda: StackTable.from_bytes(encoded),
    }
    show(f"A tree of {tree.node_count:,} nodes", drawn, rounds, tree.node_count)
    print(f"\nto_bytes without counts: {len(encoded):,} bytes")


def nest(stacks: list[tuple[Frame, ...]]) -> dict[Frame, Any]:
    """A tree of nested dicts, walked frame by frame: [total, self, children]."""
    root: dict[Any, Any] = {}
    for stack in stacks:
        children = root
        for frame in reversed(stack):
            found = children.get(frame)
            if found is None:
                found = children[frame] = [0, 0, {}]
            found[0] += 1
            children = found[2]
        found[1] += 1
    return root


def show_dicts(rounds: int) -> None:
    """The same from Python's own types, on fewer pairs: for each pair they take as long."""
    random = np.random.default_rng(2)
    stacks = make_stacks(random)
    known = StackTable()
    for stack in stacks:
        known.intern(stack)
    numbers, ids, counts = make_pairs(known, SMALL_PAIRS, random)
    chosen = [stacks[number] for number in numbers]
    keys = [row.tobytes() for row in ids]
    listed = counts.tolist()
    many = np.tile(ids, (20, 1)), np.tile(counts, 20)

    def count_in_dict() -> None:
        found: dict[bytes, int] = {}
        for key, count in zip(keys, listed, strict=True):
            found[key] = found.get(key, 0) + count

    def count_and_draw() -> None:
        known.add(*many)
        known.tree()

    works: dict[str, Work | None] = {
        f"add of {len(many[1]):,} pairs, tree": count_and_draw,
        "dict of ids": count_in_dict,
        "nested dicts of frames": lambda: nest(chosen),
        "record(frames)": lambda: [known.record(one) for one in chosen],
    }
    show(f"{SMALL_PAIRS:,} pairs", works, rounds, SMALL_PAIRS, len(many[1]))


def show_merging(rounds: int) -> None:
    """Profiles of many hosts, as objects and as bytes."""
    random = np.random.default_rng(3)
    stacks = make_stacks(random)
    profiles = []
    for _ in range(MERGED_COUNT):
        profile = StackTable(duration_ns=10**10)
        for number in random.choice(len(stacks), PROFILE_STACKS, replace=False):
            profile.record(stacks[number], int(random.integers(1, 50)))
        profiles.append(profile)
    encoded = [profile.to_bytes() for profile in profiles]
    merged = StackTable.merge_all(profiles)

    def merge_again() -> None:
        for profile in profiles:
            merged.merge(profile)

    works: dict[str, Work | None] = {
        "merge, all stacks known": merge_again,
        "merge_all of tables": lambda: StackTable.merge_all(profiles),
        "merge_all of bytes": lambda: StackTable.merge_all(encoded),
    }
    title = f"Merging {MERGED_COUNT} profiles of {PROFILE_STACKS:,} stacks"
    show(title, works, rounds, MERGED_COUNT * PROFILE_STACKS)
    print(f"\nbytes of each, mean: {sum(map(len, encoded)) / MERGED_COUNT:,.0f}")


PARTS = {
    "counting": lambda values: show_counting(values.pairs, values.rounds),
    "dicts": lambda values: show_dicts(values.rounds),
    "merging": lambda values: show_merging(values.rounds),
}


def main() -> int:
    """Measures what was asked for and prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of each comparison")
    parser.add_argument("--pairs", type=int, default=20_000_000, help="ids that are counted")
    parser.add_argument("--only", choices=PARTS, help="one part")
    values = parser.parse_args()
    with alone():
        for name in [values.only] if values.only else PARTS:
            PARTS[name](values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
