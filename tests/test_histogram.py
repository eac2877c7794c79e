"""perfkit.Histogram as its users see it: what is counted, refused, and given back."""

from __future__ import annotations

import array
import ast
import copy
import math
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from histogram_oracle import make, read_buckets
from source_tree import ROOT

import perfkit
from perfkit.histogram import Histogram

# What every type has, whoever made it.
OF_EVERY_TYPE = set(dir(object)) | {"__module__"}
# How special methods are written that the tests call as operators.
OPERATORS = {"__add__": " + ", "__sub__": " - ", "__iadd__": " += ", "__eq__": " == "}
OPERATORS |= {"__copy__": "copy.copy(", "__deepcopy__": "copy.deepcopy("}


def test_histogram_is_part_of_the_package() -> None:
    """`perfkit.Histogram` is there, and `import perfkit` does not load the extension for it."""
    program = "import sys, perfkit; print('perfkit._native' in sys.modules, perfkit.Histogram)"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "False <class 'perfkit._native.Histogram'>\n"
    assert perfkit.Histogram is Histogram


def test_package_has_no_other_lazy_name() -> None:
    """A name that is not there is an AttributeError."""
    with pytest.raises(AttributeError, match="no attribute 'Histograms'"):
        perfkit.Histograms  # noqa: B018


def list_typed() -> dict[str, set[str]]:
    """Names of methods and properties in _native.pyi, of each class."""
    tree = ast.parse((ROOT / "perfkit" / "_native.pyi").read_text())
    return {
        one.name: {part.name for part in one.body if isinstance(part, ast.FunctionDef)}
        for one in tree.body
        if isinstance(one, ast.ClassDef)
    }


def test_types_say_what_the_extension_has() -> None:
    """_native.pyi lists the methods of Histogram, no more and no fewer."""
    typed = list_typed()["Histogram"]

    special = {name for name in vars(Histogram) if name.startswith("__")} & typed
    assert {name for name in vars(Histogram) if not name.startswith("_")} == {
        name for name in typed if not name.startswith("_")
    }
    assert {name for name in typed if name.startswith("__")} == special


def test_every_method_is_tested() -> None:
    """Each name of the type occurs in its tests."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_histogram*.py"))

    untested = {
        name
        for name in list_typed()["Histogram"] - OF_EVERY_TYPE
        if f".{name}" not in text and OPERATORS.get(name, f".{name}") not in text
    }
    assert untested == set()


def test_methods_describe_themselves() -> None:
    """help(Histogram) says what each method does."""
    methods = [name for name in dir(Histogram) if not name.startswith("_")]

    bare = [name for name in methods if callable(getattr(Histogram, name))]
    assert [name for name in bare if not getattr(Histogram, name).__doc__] == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3.0), (True, 1.0), (np.float32(0.5), 0.5), (np.int64(7), 7.0), (2**60 + 1, 2.0**60)],
)
def test_numbers_of_any_kind_are_recorded(value: Any, expected: float) -> None:
    """What has a float value is counted as that."""
    histogram = Histogram()

    histogram.record(value)

    assert (histogram.count, histogram.min, histogram.max) == (1, expected, expected)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda h: h.record("1"), TypeError),
        (lambda h: h.record(None), TypeError),
        (lambda h: h.record(10**400), OverflowError),
        (lambda h: h.record_n(1.0, -1), ValueError),
        (lambda h: h.record_n(1.0, 2**63), OverflowError),
        (lambda h: h.record_n(1.0, 1.5), TypeError),
        (lambda h: h.record_n(1.0), TypeError),
        (lambda h: h.record_many(), TypeError),
        (lambda h: h.record_many(1.0), TypeError),
        (lambda h: h.record_many(b"12345678"), TypeError),
        (lambda h: h.record_many(np.zeros(3, ">f8")), TypeError),
        (lambda h: h.record_many(np.zeros(3, "f2")), TypeError),
        (lambda h: h.record_many(np.zeros(3, "c16")), TypeError),
        (lambda h: h.record_many(np.zeros(3, object)), TypeError),
        (lambda h: h.record_many(np.zeros(3), "sse"), ValueError),
        (lambda h: h.quantile(1.1), ValueError),
        (lambda h: h.quantile(-0.1), ValueError),
        (lambda h: h.quantile(math.nan), ValueError),
        (lambda h: h.quantiles([0.5, 2]), ValueError),
        (lambda h: h.quantiles(0.5), TypeError),
        (lambda h: h.cdf(math.nan), ValueError),
        (lambda h: h.stop(-1), ValueError),
        (lambda h: h.stop(2**62), ValueError),
        (lambda h: h.stop("now"), TypeError),
        (lambda h: h.merge(1), TypeError),
        (lambda h: h.merge(Histogram("bytes")), ValueError),
        (lambda h: h.merge(Histogram(max_value=8)), ValueError),
        (lambda h: h + 1, TypeError),
        (lambda h: h - make([1.0]), ValueError),
        (lambda h: h.downscale(7), ValueError),
        (lambda h: h.downscale(-1), ValueError),
        (lambda h: Histogram.merge_all([]), ValueError),
        (lambda h: Histogram.merge_all([h, b"?"]), ValueError),
        (lambda h: Histogram.merge_all([h, Histogram("s").to_bytes()]), ValueError),
        (lambda h: Histogram.merge_all([h, 1]), TypeError),
        (lambda h: Histogram.from_bytes("text"), TypeError),
        (lambda h: Histogram(scale=9), ValueError),
        (lambda h: Histogram(scale=-1), ValueError),
        (lambda h: Histogram("x" * 64), ValueError),
        (lambda h: Histogram(min_value=0), ValueError),
        (lambda h: Histogram(max_value=math.inf), ValueError),
        (lambda h: Histogram(min_value=8, max_value=4), ValueError),
        (hash, TypeError),
        (lambda h: h < Histogram(), TypeError),
        (lambda h: setattr(h, "count", 1), AttributeError),
        (lambda h: type("Heir", (Histogram,), {}), TypeError),
    ],
)
def test_what_is_wrong_is_refused(call: Callable[[Any], object], error: type[Exception]) -> None:
    """A wrong argument raises the error that the types promise, and changes nothing."""
    histogram = make([], scale=6)

    with pytest.raises(error):
        call(histogram)

    assert histogram == Histogram()


def test_empty_histogram_says_so() -> None:
    """Of nothing there is no quantile, no mean, no least and no greatest value."""
    histogram = Histogram()

    known = (histogram.count, histogram.sum, histogram.min, histogram.max)

    assert known == (0, 0.0, None, None)
    unknown = [histogram.mean, histogram.quantile(0.5), histogram.cdf(1.0)]
    assert [math.isnan(value) for value in unknown] == [True] * 3
    assert histogram.positive_buckets() == histogram.negative_buckets() == (0, [])
    assert repr(histogram) == "<Histogram unit='ns' scale=6 count=0 p50=nan p99=nan>"


def test_settings_can_be_read() -> None:
    """Unit, scale and error of a histogram are known."""
    histogram = Histogram("ms", scale=5)

    settings = (histogram.unit, histogram.scale, round(histogram.relative_error, 5))

    assert settings == ("ms", 5, 0.01083)


def test_counting_many_times_is_counting_often() -> None:
    """record_n stands for so many records; none of it changes nothing."""
    histogram = Histogram()

    histogram.record_n(2.5, 1000)
    histogram.record_n(7.0, 0)

    assert histogram == make([2.5] * 1000)
    assert (histogram.sum, histogram.mean) == (2500.0, 2.5)


def test_counts_do_not_overflow() -> None:
    """Beyond 2^63 - 1 values there is an error, and what was counted stays."""
    histogram = Histogram()
    histogram.record_n(1.0, 2**63 - 1)

    refused: list[Callable[[], object]] = [
        lambda: histogram.record(1.0),
        lambda: histogram.record(math.nan),
        lambda: histogram.record_many([1.0]),
        lambda: histogram.record_many(np.ones(1000)),
        lambda: histogram.merge(make([3.0])),
        lambda: histogram + histogram,
    ]

    for call in refused:
        with pytest.raises(OverflowError):
            call()
    assert histogram.positive_buckets() == (-1, [2**63 - 1])
    assert Histogram.from_bytes(histogram.to_bytes()) == histogram


def test_values_outside_of_the_range_are_counted_apart() -> None:
    """A range bounds the memory; what lies outside of it still moves min, max and quantiles."""
    histogram = Histogram(min_value=1, max_value=1000)

    histogram.record_many([0.25, 1.0, 1000.0, 1024.0, 1025.0, -2000.0, 0.5])

    assert (histogram.under_count, histogram.over_count, histogram.negative_count) == (2, 2, 1)
    assert (histogram.count, histogram.min, histogram.max) == (7, -2000.0, 1025.0)
    assert histogram.quantiles([0, 0.2, 1]) == [-2000.0, 0.0, 1025.0]
    assert sum(histogram.positive_buckets()[1]) == 3
    many = Histogram(min_value=1, max_value=1000)
    many.record_many(np.array([0.25, 1.0, 1000.0, 1024.0, 1025.0, -2000.0, 0.5] * 100))
    assert many == Histogram.merge_all([histogram] * 100)
    assert Histogram.from_bytes(many.to_bytes()) == many


def test_infinite_values_have_their_ranks() -> None:
    """Quantiles beyond all finite values are infinite; the sum is of the finite ones."""
    histogram = make([1.0, 2.0, math.inf, -math.inf, math.nan])

    quantiles = histogram.quantiles([0, 1])

    assert quantiles == [-math.inf, math.inf]
    assert (histogram.min, histogram.max) == (-math.inf, math.inf)
    assert (histogram.sum, histogram.mean, histogram.count) == (3.0, 1.5, 4)
    assert (histogram.cdf(-math.inf), histogram.cdf(10), histogram.cdf(math.inf)) == (0.25, 0.75, 1)
    assert (histogram.positive_infinity_count, histogram.negative_infinity_count) == (1, 1)


def test_quantiles_of_both_signs_ascend() -> None:
    """From the most negative to the greatest value, through zero."""
    histogram = make([-100.0, -10.0, 0.0, 10.0, 100.0])

    found = histogram.quantiles([0, 0.25, 0.5, 0.75, 1])

    assert found == pytest.approx([-100, -10, 0, 10, 100], rel=histogram.relative_error)
    assert [histogram.cdf(value) for value in (-64, 0, 64)] == pytest.approx([0.2, 0.6, 0.8])


@pytest.mark.parametrize(
    "values",
    [
        array.array("d", [1, 2, 3, 4]),
        array.array("q", [1, 2, 3, 4]),
        memoryview(array.array("f", [1, 2, 3, 4])),
        np.array([[1, 2], [3, 4]], np.uint32),
        np.asfortranarray(np.array([[1.0, 2.0], [3.0, 4.0]])),
        np.arange(1.0, 9.0).reshape(2, 4)[:, ::2] / np.array([1, 1.5]),
        [1, 2, 3, 4],
        (float(i) for i in range(1, 5)),
        range(1, 5),
    ],
    ids=lambda values: type(values).__name__,
)
def test_arrays_of_any_shape_are_counted(values: Any) -> None:
    """Buffers with gaps, in Fortran's order and of several dimensions are counted like a list."""
    expected = make(values.ravel().tolist()) if isinstance(values, np.ndarray) else None
    histogram = Histogram()

    histogram.record_many(values)

    assert histogram == (expected or make([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize("step", [-1, 2, 3])
def test_strided_arrays_are_counted(step: int) -> None:
    """A view with gaps, or backwards, counts what it shows."""
    values = np.arange(1.0, 500.0)[::step]
    histogram = Histogram()

    histogram.record_many(values)

    assert histogram == make(values.tolist())


def test_items_before_a_wrong_one_are_counted() -> None:
    """An iterable that raises in the middle has been counted up to there."""
    histogram = Histogram()

    with pytest.raises(TypeError):
        histogram.record_many([1.0, "2"])  # type: ignore[list-item]

    assert histogram == make([1.0])


def test_threads_can_record_while_arrays_are_counted() -> None:
    """Arrays are counted without the GIL, and no count is lost to those recorded meanwhile."""
    histogram = Histogram()
    values = np.random.default_rng(5).lognormal(0, 3, 300_000)

    def count_arrays() -> None:
        for _ in range(4):
            histogram.record_many(values)

    threads = [threading.Thread(target=count_arrays) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20_000):
        histogram.record(1e-9)
    for thread in threads:
        thread.join()

    rest = Histogram.merge_all([make(values)] * 12)  # type: ignore[arg-type]
    rest.record_n(1e-9, 20_000)
    assert histogram == rest


def test_scale_can_fall_while_an_array_is_counted() -> None:
    """A downscale during record_many meets no buckets of the old scale afterwards."""
    histogram = Histogram(scale=8)
    values = np.random.default_rng(6).lognormal(0, 2, 2_000_000)
    thread = threading.Thread(target=histogram.record_many, args=(values,))

    thread.start()
    histogram.downscale(3)
    thread.join()

    assert histogram == make(values, scale=3)  # type: ignore[arg-type]


def test_values_that_change_meanwhile_are_still_counted_once() -> None:
    """An array that is written while it is read gives as many counts as it has values."""
    values = np.ones(400_000)
    histogram = Histogram()
    done = threading.Event()

    def scribble() -> None:
        while not done.is_set():
            values[::7] = math.nan
            values[::7] = -1e300

    thread = threading.Thread(target=scribble)
    thread.start()
    for _ in range(20):
        histogram.record_many(values)
    done.set()
    thread.join()

    counted = histogram.count + histogram.nan_count
    buckets = [histogram.positive_buckets(), histogram.negative_buckets()]
    assert counted == 20 * len(values)
    assert sum(sum(counts) for _, counts in buckets) == histogram.count


def test_merging_into_itself_doubles() -> None:
    """A histogram can be added to itself."""
    histogram = make([1.0, -2.0, 0.0, math.nan, math.inf])

    histogram.merge(histogram)

    assert histogram == make([1.0, -2.0, 0.0, math.nan, math.inf] * 2)


def test_sum_in_place_is_the_same_object() -> None:
    """`+=` adds to the histogram on its left."""
    histogram = same = make([1.0])

    histogram += make([2.0])

    assert histogram is same
    assert histogram == make([1.0, 2.0])


@pytest.mark.parametrize("take", [copy.copy(copy.copy), copy.deepcopy, Histogram.copy])
def test_copies_share_nothing(take: Callable[[Histogram], Histogram]) -> None:
    """What is counted in a copy is not counted in the other."""
    histogram = make([1.0, -1.0])

    copied = take(histogram)
    copied.record(5.0)

    assert (histogram, copied) == (make([1.0, -1.0]), make([1.0, -1.0, 5.0]))


def test_difference_of_nothing_is_empty() -> None:
    """Without new values a difference is like new."""
    histogram = make([1.0, 0.0, -5.0])

    left = histogram - copy.copy(histogram)

    assert left == Histogram()
    assert (left.sum, left.min, left.max) == (0.0, None, None)


@pytest.mark.parametrize(("unit", "per_s"), [("ns", 1e9), ("us", 1e6), ("ms", 1e3), ("s", 1)])
def test_times_are_in_the_histograms_unit(unit: str, per_s: float) -> None:
    """Blocks and intervals are counted in the unit, nested ones too, and when they raise."""
    histogram = Histogram(unit)

    started = histogram.start()
    with pytest.raises(KeyError), histogram.timer(), histogram.timer():
        time.sleep(0.002)
        raise KeyError
    histogram.stop(started)

    assert histogram.count == 3
    assert 0.002 * per_s <= (histogram.min or 0) <= (histogram.max or 0) < 2 * per_s


def test_time_needs_a_unit_of_time() -> None:
    """Nobody counts seconds among bytes."""
    histogram = Histogram("bytes")

    for call in (histogram.start, histogram.timer, lambda: histogram.stop(1)):
        with pytest.raises(ValueError, match="not 'bytes'"):
            call()


def test_timer_is_for_one_block_at_a_time() -> None:
    """A timer that runs cannot be entered again; afterwards it can."""
    histogram = Histogram()
    timer = histogram.timer()

    with timer, pytest.raises(RuntimeError), timer:
        pass
    with timer:
        pass

    assert histogram.count == 2


def test_million_values_fit_800_bytes() -> None:
    """10^6 lognormal values take at most 800 bytes, headers included."""
    histogram = Histogram()
    histogram.record_many(np.random.default_rng(1).lognormal(0, 1, 10**6))

    encoded = histogram.to_bytes()

    assert len(encoded) <= 800
    assert Histogram.from_bytes(encoded) == histogram


def test_hostile_length_takes_no_memory() -> None:
    """Bytes that promise more counts than they can hold are refused before any room is made."""
    header = b"PKH\x01\x08\x08\x00"
    length = 2046 << 8
    varints = b"".join(
        bytes([number & 127 | 128, number >> 7 & 127 | 128, number >> 14])
        for number in (255, length)
    )

    with pytest.raises(ValueError, match="no Histogram"):
        Histogram.from_bytes(header + varints + b"\x01\xff")


def use_all() -> None:
    """Makes, fills, reads and drops histograms in every way there is."""
    histogram = Histogram(f"{time.monotonic_ns() % 10} x", scale=7)
    histogram.record_many(np.array([1.0, -5.0, 0.0, 1e3, math.nan] * 20))
    histogram.record_many([1.0, 2])
    other = Histogram.from_bytes(histogram.to_bytes())
    other.merge(histogram.copy())
    Histogram.merge_all([other, other.to_bytes(), histogram]).downscale(2)
    repr((other - histogram + other, histogram.quantiles([0.1, 0.9]), other.positive_buckets()))
    with Histogram("ms").timer():
        pass
    for wrong in (b"PKH", histogram.to_bytes()[:-1]):
        with pytest.raises(ValueError, match="no Histogram"):
            Histogram.from_bytes(wrong)
    with pytest.raises(TypeError):
        histogram.record_many([None])  # type: ignore[list-item]


def test_nothing_leaks() -> None:
    """Memory is flat, however many histograms come and go."""
    for _ in range(100):
        use_all()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(1500):
        use_all()

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2000


def test_counts_are_read_alike_by_all_views() -> None:
    """Buckets, counts and repr of one histogram tell the same."""
    histogram = make([1.0, 1.0, 3.0])

    buckets = read_buckets(histogram.positive_buckets())

    assert buckets == {-1: 2, 101: 1}
    assert repr(histogram).startswith("<Histogram unit='ns' scale=6 count=3 p50=1.0 p99=1.0")
