"""Laws of perfkit.stacks, for whatever is counted: nothing is lost, and order does not matter."""

from __future__ import annotations

import resource
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stack_oracle import (
    OTHER,
    UNKNOWN,
    Stack,
    count_nodes,
    fold,
    make,
    prune,
    rank_functions,
    read_counts,
    read_nodes,
    read_paths,
)

from perfkit.stacks import StackTable

FEW = settings(max_examples=80, deadline=None)
FRAMES = st.sampled_from(
    [("a", ""), ("a", "f.py"), ("ab", "f.py"), ("a", "bf.py"), ("b", "ü.py"), ("", ""), OTHER]
) | st.tuples(st.text("xyz", max_size=3), st.text("pq", max_size=2))
STACKS = st.lists(FRAMES, max_size=6).map(tuple)
COUNTS = st.dictionaries(STACKS, st.integers(0, 9) | st.integers(0, 2**50), max_size=12)
RATIOS = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 1.0]) | st.floats(0, 1)
Counts = dict[Stack, int]


def add(*all_counts: Counts) -> Counts:
    """The sum of several counts."""
    summed: Counter[Stack] = Counter()
    for counts in all_counts:
        summed.update(counts)
    return dict(summed)


@FEW
@given(COUNTS)
def test_tree_is_that_of_the_oracle(counts: Counts) -> None:
    """Nodes are the beginnings of the stacks that were counted, with their sums."""
    tree = make(counts).tree()

    own, whole = count_nodes(counts)
    assert read_nodes(tree, "total") == whole
    assert read_nodes(tree, "self") == {path: own.get(path, 0) for path in whole}


@FEW
@given(COUNTS)
def test_nodes_stand_before_their_subtrees(counts: Counts) -> None:
    """Parents come first, subtrees are whole, and siblings have an order of their own."""
    tree = make(counts).tree()

    columns = tree.columns()
    ranks = [
        tuple(columns["frame"][one] for one in to_root(columns["parent"], node))
        for node in range(tree.node_count)
    ]
    assert all(parent < node for node, parent in enumerate(columns["parent"]))
    assert ranks == sorted(ranks)


def to_root(parents: memoryview, node: int) -> list[int]:
    """The nodes from below the root to a node."""
    path = []
    while node > 0:
        path.append(node)
        node = parents[node]
    return path[::-1]


@FEW
@given(COUNTS, COUNTS, COUNTS, st.permutations(range(3)))
def test_merging_is_adding_in_any_order(
    one: Counts, two: Counts, three: Counts, order: list[int]
) -> None:
    """Merging is associative and commutative; trees and bytes do not tell the order."""
    parts = [make(one, 1), make(two, 2), make(three, 3)]
    expected = make(add(one, two, three), 6)

    shuffled = [parts[place] for place in order]
    nested = StackTable.merge_all(shuffled[1:])
    nested.merge(shuffled[0])

    assert StackTable.merge_all(parts) == nested == expected
    assert nested.total == sum(add(one, two, three).values())
    assert nested.to_bytes() == expected.to_bytes()
    assert nested.tree().fold() == expected.tree().fold()


@FEW
@given(COUNTS, st.lists(st.integers(0, 2**70), max_size=30))
def test_ids_count_as_their_stacks(counts: Counts, places: list[int]) -> None:
    """Counting by ids, in one go and in any order, is recording stacks."""
    known = list(counts) or [()]
    chosen = [known[place % len(known)] for place in places]
    table = make(dict.fromkeys(known, 0))
    ids = {stack: table.ids()[16 * i : 16 * i + 16] for i, stack in enumerate(known)}

    table.add(b"".join(ids[one] for one in chosen), np.arange(len(chosen)))

    expected = make(dict.fromkeys(known, 0))
    for i, stack in enumerate(chosen):
        expected.record(stack, i)
    assert table == expected


@FEW
@given(COUNTS, COUNTS, st.integers(0, 5))
def test_bytes_come_back(counts: Counts, others: Counts, unknown: int) -> None:
    """What is encoded is decoded, stacks without counts and counts without stacks included."""
    table = make(add(counts, others), 2**63 - 1)
    table.add(bytes(range(16 * unknown)), np.arange(1, unknown + 1))

    encoded = table.to_bytes()
    found = StackTable.from_bytes(encoded)

    assert (found == table, found.to_bytes() == encoded) == (True, True)
    assert read_counts(found) == read_counts(table)


@FEW
@given(COUNTS, RATIOS)
def test_pruning_loses_nothing(counts: Counts, ratio_min: float) -> None:
    """Pruned trees have the sums of whole ones; what is below the share is under its parent."""
    tree = make(counts).tree().prune(ratio_min)

    own, whole = count_nodes(prune(counts, ratio_min))
    assert read_nodes(tree, "total") == whole
    assert read_nodes(tree, "self") == {path: own.get(path, 0) for path in whole}
    assert sum(tree.columns()["self"]) == tree.columns()["total"][0] == sum(counts.values())


@FEW
@given(COUNTS)
def test_functions_are_those_of_the_oracle(counts: Counts) -> None:
    """A frame's total counts a stack once; what is counted in frames is all there is."""
    table = make(counts)

    found = table.top(1000)

    assert found == rank_functions(counts)
    assert sum(own for _, _, own, _ in found) == table.total
    assert table.top(3) == found[:3]


@FEW
@given(COUNTS)
def test_folded_lines_have_all_counts(counts: Counts) -> None:
    """Each stack that was counted is a line, and their numbers sum up to the whole."""
    lines = make(counts).tree().fold().splitlines()

    seen = ((stack, count) for stack, count in counts.items() if count)
    assert sorted(lines) == sorted(fold(seen))
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == sum(counts.values())


@FEW
@given(COUNTS, COUNTS, st.integers(1, 10**12), st.integers(1, 10**12), RATIOS)
def test_difference_has_both_sides(
    one: Counts, two: Counts, one_ns: int, two_ns: int, ratio_min: float
) -> None:
    """Both profiles' counts are whole beside each other, pruned or not, and changes are rates."""
    tree = make(one, one_ns).diff(make(two, two_ns))

    later, earlier = count_nodes(one)[1], count_nodes(two)[1]
    paths = set(later) | set(earlier)
    assert read_nodes(tree, "total") == {path: later.get(path, 0) for path in paths}
    assert read_nodes(tree, "earlier_total") == {path: earlier.get(path, 0) for path in paths}
    rates = {p: 1e9 * later.get(p, 0) / one_ns - 1e9 * earlier.get(p, 0) / two_ns for p in paths}
    assert read_nodes(tree, "change") == pytest.approx(rates, rel=1e-9, abs=1e-3)
    pruned = tree.prune(ratio_min).columns()
    sums = (sum(pruned["self"]), sum(pruned["earlier_self"]))
    assert sums == (sum(one.values()), sum(two.values()))


@FEW
@given(COUNTS, COUNTS, st.integers(1, 10**4), st.integers(1, 10**4))
def test_folded_difference_rounds_nothing_away(
    one: Counts, two: Counts, one_ns: int, two_ns: int
) -> None:
    """Earlier counts brought to the later duration sum up to the whole brought there."""
    lines = make(one, one_ns).diff(make(two, two_ns)).fold().splitlines()

    numbers = [line.rsplit(" ", 2)[1:] for line in lines]
    assert sum(int(later) for _, later in numbers) == sum(one.values())
    assert sum(int(earlier) for earlier, _ in numbers) == sum(two.values()) * one_ns // two_ns


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"PKS\x01\x00" + tail))
@example(b"PKS\x01\x00\x01\x01\x00\x80\x00\x00")
@example(b"PKS\x01\x00\x01\x01\x01\xc3\xa9\x00\x00")
@example(b"PKS\x01" + b"\xff" * 9 + b"\x01")
def test_any_bytes_decode_or_raise(encoded: bytes) -> None:
    """Whatever comes is a table or a ValueError."""
    try:
        found = StackTable.from_bytes(encoded)
    except ValueError:
        return

    assert StackTable.from_bytes(found.to_bytes()) == found
    assert sum(found.tree().columns()["self"]) == found.total


@FEW
@given(COUNTS, st.data())
def test_damaged_bytes_decode_or_raise(counts: Counts, drawn: st.DataObject) -> None:
    """A flipped bit or a cut gives a table with sums that hold, or a ValueError."""
    encoded = bytearray(make(counts, 5).to_bytes())
    place = drawn.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[place // 8] ^= 1 << place % 8

    for damaged in (bytes(encoded), bytes(encoded[: place // 8])):
        try:
            found = StackTable.from_bytes(damaged)
        except ValueError:
            continue
        assert sum(found.tree().columns()["self"]) == sum(found.counts()) == found.total
        assert read_paths(found.tree())[0] == ()
        assert UNKNOWN in found.tree().frames()


def test_hostile_bytes_take_little_memory() -> None:
    """Few bytes that share all frames of deep stacks, or promise many, are refused."""
    frames = b"\x01\x01\x00x"
    deep = b"\x00\x80\x80\x01" + b"\x00" * 16_384 + b"\x01"
    shared = b"\x80\x80\x01\x00\x01" * 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for stacks in (b"\xe9\x07" + deep + shared, b"\xff\xff\xff\xff\x0f", b"\xe9\x07" + deep):
        with pytest.raises(ValueError, match="no StackTable"):
            StackTable.from_bytes(b"PKS\x01\x00" + frames + stacks + b"\x00")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
