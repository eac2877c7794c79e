"""perfkit.SharedHistogram: what a server counts, and what others read of it without its help."""

from __future__ import annotations

import fcntl
import math
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from histogram_oracle import to_float
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_files import SEALS, like, path_of
from source_tree import ROOT
from test_histogram import list_typed

import perfkit
from perfkit.histogram import Histogram
from perfkit.shared_histograms import (
    LINK_START,
    SharedHistogram,
    SharedHistogramReader,
    find_shared,
    get_include,
)

NUMBERS = st.one_of(
    st.floats(min_value=0),
    st.floats(0.25, 2.0**45),
    st.integers(0x3FE << 52, 0x42C << 52).map(to_float),
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.0, 2.0**42, 1e308]),
)


@given(st.lists(NUMBERS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_shared_and_plain_histograms_count_alike(values: list[float]) -> None:
    """The same numbers are in the same buckets, with the same counts beside, min, max and sum."""
    shared = SharedHistogram("latency")

    for value in values:
        shared.record(value)

    read, plain = SharedHistogramReader(path_of(shared)).snapshot(), like(values)
    assert read == plain == shared.snapshot()
    assert read.sum == pytest.approx(plain.sum)


def test_bounds_of_all_buckets_are_exact() -> None:
    """The number at each bound, and its neighbours, are where the plain histogram has them."""
    edges = [math.ldexp(2 ** (i / 64), e) for i in range(64) for e in (-0, 7, 41)]
    values = [near for one in edges for near in (one, math.nextafter(one, 0), one * (1 + 2**-52))]
    shared = SharedHistogram("latency")

    for value in values:
        shared.record(value)

    assert shared.snapshot() == like(values)


def test_negative_values_are_counted_without_buckets() -> None:
    """A clock that went back is seen: in negative_count, min and sum."""
    shared = SharedHistogram("latency")

    for value in (-5.0, -1e-310, 7.0, -math.inf):
        shared.record(value)

    read = shared.snapshot()
    assert (read.negative_count, read.subnormal_count, read.count) == (2, 1, 4)
    assert (read.min, read.max, read.sum) == (-math.inf, 7.0, 2.0)
    assert Histogram.from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize(
    ("unit", "low", "high"), [("us", 2**-10, 2**32), ("s", 2**-30, 2**12), ("bytes", 1, 2**42)]
)
def test_range_follows_the_unit(unit: str, low: float, high: float) -> None:
    """Times have buckets from 1 ns to 73 minutes in every unit, other values from 1 to 2^42."""
    shared = SharedHistogram("latency", unit)

    for value in (low, high, low / 2, high * 2):
        shared.record(value)

    read = shared.snapshot()
    assert (sum(read.positive_buckets()[1]), read.under_count, read.over_count) == (2, 1, 1)
    assert (read.unit, shared.unit, shared.name) == (unit, unit, "latency")


def test_header_says_what_is_counted() -> None:
    """Name, unit and labels travel with the file; so does who made it."""
    labels = {"stage": "tokenize", "model": "größe=7 b", "empty": ""}
    shared = SharedHistogram("queue.wait:p-1", "ms", labels=labels, min_value=0.5, max_value=8)

    reader = SharedHistogramReader(path_of(shared))

    assert (reader.name, reader.unit, reader.labels) == ("queue.wait:p-1", "ms", labels)
    assert (reader.creator_pid, reader.path, shared.labels) == (
        os.getpid(),
        path_of(shared),
        labels,
    )
    assert reader.inode == os.fstat(shared.fileno()).st_ino
    assert reader.generation > 0
    assert reader.generation % 2 == 0


def test_file_is_sealed_and_named() -> None:
    """Nobody can take the file from under its writer, and its link says that it is ours."""
    shared = SharedHistogram("latency")

    with pytest.raises(PermissionError):
        os.ftruncate(shared.fileno(), 0)

    assert fcntl.fcntl(shared.fileno(), fcntl.F_GET_SEALS) & SEALS == SEALS
    assert str(Path(path_of(shared)).readlink()).startswith(LINK_START)
    assert not os.get_inheritable(shared.fileno())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (SharedHistogram, TypeError),
        (lambda: SharedHistogram(""), ValueError),
        (lambda: SharedHistogram("x" * 64), ValueError),
        (lambda: SharedHistogram("a/b"), ValueError),
        (lambda: SharedHistogram("a\0b"), ValueError),
        (lambda: SharedHistogram("größe"), ValueError),
        (lambda: SharedHistogram("a", "u" * 64), ValueError),
        (lambda: SharedHistogram("a", "\n"), ValueError),
        (lambda: SharedHistogram("a", labels={"a=b": "c"}), ValueError),
        (lambda: SharedHistogram("a", labels={"": "c"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "b\0"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "\x1b"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "\ud800"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "x" * 766}), ValueError),
        (lambda: SharedHistogram("a", labels={f"a{i}": "" for i in range(17)}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": 1}), TypeError),
        (lambda: SharedHistogram("a", labels=7), TypeError),
        (lambda: SharedHistogram("a", min_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=0, max_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=2, max_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=math.nan, max_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=1, max_value=2.0**128), ValueError),
        (lambda: SharedHistogram("a", min_value=1, max_value=math.inf), ValueError),
        (lambda: SharedHistogram("a", shard_count=0), ValueError),
        (lambda: SharedHistogram("a", shard_count=1025), ValueError),
        (lambda: SharedHistogram("a").record("1"), TypeError),
        (lambda: SharedHistogram("a").stop(2**62), ValueError),
        (lambda: SharedHistogram("a", "bytes").start(), ValueError),
        (lambda: SharedHistogram("a", "bytes").timer(), ValueError),
        (lambda: SharedHistogramReader("/proc/self/fd/987654"), FileNotFoundError),
        (lambda: SharedHistogramReader("/proc\0"), ValueError),
        (lambda: SharedHistogramReader(b"/proc"), TypeError),
    ],
)
def test_what_is_wrong_is_refused(call: Callable[[], object], error: type[Exception]) -> None:
    """A wrong argument raises the error that the types promise."""
    with pytest.raises(error):
        call()


def test_times_are_counted() -> None:
    """Blocks and intervals are counted, the unit being one of time."""
    shared = SharedHistogram("latency", "s")

    with shared.timer():
        shared.stop(shared.start())

    assert shared.snapshot().count == 2
    assert 0 < (shared.snapshot().max or 0) < 1


def test_types_say_what_the_extension_has() -> None:
    """_native.pyi lists the methods of both types, and each describes itself or is a property."""
    for type_ in (SharedHistogram, SharedHistogramReader):
        had = {name for name in vars(type_) if not name.startswith("_")}
        assert had == {name for name in list_typed()[type_.__name__] if not name.startswith("_")}


def test_package_has_them() -> None:
    """All that is public can be taken from the package."""
    assert perfkit.SharedHistogram is SharedHistogram
    assert perfkit.SharedHistogramReader is SharedHistogramReader
    assert perfkit.find_shared is find_shared


def test_headers_lie_where_the_package_says() -> None:
    """get_include() leads to the headers of the source tree."""
    names = {path.name for path in (ROOT / "native").glob("perfkit_histogram*.h")}

    found = {path.name: path.read_text() for path in Path(perfkit.get_include()).iterdir()}

    assert found == {name: (ROOT / "native" / name).read_text() for name in names}
    assert get_include() == perfkit.get_include()


def test_reader_outlives_the_writer() -> None:
    """What was counted can be read after its process is gone."""
    shared = SharedHistogram("latency")
    shared.record(9)
    reader = SharedHistogramReader(path_of(shared))

    del shared

    assert reader.snapshot() == like([9])


def count_descriptors() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_leaks() -> None:
    """Memory and descriptors are flat, however many come and go."""

    def use_all() -> None:
        shared = SharedHistogram("latency", labels={"a": "b"}, shard_count=2)
        with shared.timer():
            shared.record(1)
        SharedHistogramReader(path_of(shared)).snapshot()
        for wrong in (lambda: SharedHistogram("a", labels={"a b": "c"}), lambda: shared.stop(-1)):
            with pytest.raises(ValueError, match="a"):
                wrong()

    for _ in range(50):
        use_all()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, count_descriptors()

    for _ in range(400):
        use_all()

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[0] < 2000
    assert count_descriptors() == before[1]
