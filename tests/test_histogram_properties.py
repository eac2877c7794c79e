"""Laws of perfkit.Histogram, for whatever is counted."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from histogram_oracle import LEAST_NORMAL, count_buckets, make, read_buckets
from hypothesis import given, settings
from hypothesis import strategies as st
from test_histogram_buckets import KERNELS

from perfkit.histogram import Histogram

ANY = st.floats(width=64)
NORMAL = st.floats(min_value=1e-300, max_value=1e300)
MIXED = st.lists(ANY | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0]), max_size=40)
SCALE = st.integers(0, 8)
FEW = settings(max_examples=60, deadline=None)


@FEW
@given(MIXED, SCALE)
def test_counts_are_those_of_the_oracle(values: list[float], scale: int) -> None:
    """Buckets of both signs, zeros, infinities and NaN are what integers say."""
    histogram = make(values, scale=scale)

    positive, negative = count_buckets(values, scale)
    assert read_buckets(histogram.positive_buckets()) == positive
    assert read_buckets(histogram.negative_buckets()) == negative
    assert histogram.zero_count == sum(value == 0 for value in values)
    assert histogram.nan_count == sum(map(math.isnan, values))
    assert histogram.count + histogram.nan_count == len(values)
    infinities = (histogram.positive_infinity_count, histogram.negative_infinity_count)
    assert infinities == (values.count(math.inf), values.count(-math.inf))
    assert histogram.subnormal_count == sum(0 < abs(value) < LEAST_NORMAL for value in values)


@FEW
@given(MIXED)
def test_statistics_are_those_of_the_finite_values(values: list[float]) -> None:
    """Sum and mean leave out what is not finite, min and max what is no number."""
    histogram = make(values)

    numbers = [value for value in values if not math.isnan(value)]
    finite = [value for value in numbers if math.isfinite(value)]
    assert histogram.min == (min(numbers) if numbers else None)
    assert histogram.max == (max(numbers) if numbers else None)
    exact = float(sum(map(Fraction, finite))) if sum(map(abs, finite)) < 1e308 else None
    slack = 1e-13 * sum(map(abs, finite))
    assert exact is None or abs(histogram.sum - exact) <= slack


@FEW
@given(st.lists(ANY, max_size=300), SCALE, st.sampled_from(KERNELS))
def test_arrays_are_counted_as_one_by_one(values: list[float], scale: int, kernel: str) -> None:
    """A kernel counts an array as `record` does its values."""
    alone = Histogram(scale=scale)
    many = Histogram(scale=scale)

    for value in values:
        alone.record(value)
    many.record_many(np.array(values), kernel)  # type: ignore[arg-type]

    assert many == alone


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "special", [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -1.5, 2.0**-1022, 1.7e308]
)
def test_special_value_is_found_at_every_place(special: float, kernel: str) -> None:
    """One value of another kind among common ones is counted as what it is, wherever it stands."""
    common = np.random.default_rng(8).lognormal(0, 1, 70)
    wrong = []

    for place in range(len(common)):
        values = common.copy()
        values[place] = special
        histogram = Histogram()
        histogram.record_many(values, kernel)  # type: ignore[arg-type]
        wrong += [place] if histogram != make(values.tolist()) else []

    assert wrong == []


@FEW
@given(st.lists(NORMAL, min_size=1, max_size=50), st.floats(0, 1), SCALE)
def test_quantile_is_within_its_error(values: list[float], quantile: float, scale: int) -> None:
    """The value of the rank floor(q (n - 1)) is met within relative_error."""
    histogram = make(values, scale=scale)

    found = histogram.quantile(quantile)

    exact = sorted(values)[int(quantile * (len(values) - 1))]
    assert abs(found - exact) <= (histogram.relative_error + 1e-14) * exact
    assert min(values) <= found <= max(values)


@FEW
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.floats(-1e9, 1e9))
def test_share_lies_between_those_of_its_buckets_ends(values: list[float], value: float) -> None:
    """A share is at most off by the values that lie in the bucket of the asked one."""
    histogram = make(values)

    share = histogram.cdf(value)

    width = 1.011 * abs(value) + 1e-300
    low = sum(one <= value - 0.011 * width for one in values) / len(values)
    high = sum(one <= value + 0.011 * width for one in values) / len(values)
    assert low - 1e-12 <= share <= high + 1e-12


@FEW
@given(MIXED, MIXED, MIXED)
def test_merging_is_adding(one: list[float], two: list[float], three: list[float]) -> None:
    """Merging is associative and commutative, and equals counting all values together."""
    a, b, c = make(one), make(two), make(three)

    assert (a + b) + c == a + (b + c) == make([*one, *two, *three])
    assert a + b == b + a
    assert Histogram.merge_all([a, b.to_bytes(), c]) == (a + b) + c


@FEW
@given(MIXED, MIXED, SCALE, SCALE)
def test_downscaling_and_merging_can_be_swapped(
    one: list[float], two: list[float], scale: int, other_scale: int
) -> None:
    """Of different scales the lower one counts, as if all had been counted at it."""
    lower = min(scale, other_scale)

    merged = make(one, scale=scale) + make(two, scale=other_scale)

    assert merged == make([*one, *two], scale=lower)
    downscaled = make(one, scale=scale)
    downscaled.downscale(lower)
    assert downscaled == make(one, scale=lower)


@FEW
@given(MIXED, MIXED)
def test_difference_is_what_came_after(one: list[float], two: list[float]) -> None:
    """A snapshot taken from a later state leaves what was counted between; min and max bound it."""
    earlier, between = make(one), make(two)

    total = earlier + between

    left = total - earlier

    assert left.positive_buckets() == between.positive_buckets()
    assert left.negative_buckets() == between.negative_buckets()
    assert (left.count, left.zero_count) == (between.count, between.zero_count)
    assert (left.nan_count, left.subnormal_count) == (between.nan_count, between.subnormal_count)
    if between.count:
        assert total.min <= left.min <= between.min  # type: ignore[operator]
        assert between.max <= left.max <= total.max  # type: ignore[operator]


@FEW
@given(st.lists(st.integers(0, 1 << 40) | st.integers(0, 9), max_size=70), st.integers(-90, 20))
def test_runs_of_any_counts_come_back(counts: list[int], first: int) -> None:
    """Counts large and small, in whatever order, are decoded as they were encoded."""
    histogram = Histogram()
    for i, count in enumerate(counts):
        histogram.record_n(1.01 * 2.0 ** ((first + i) / 64), count)

    found = Histogram.from_bytes(histogram.to_bytes())

    assert found == histogram


@settings(max_examples=25, deadline=None)
@given(MIXED, SCALE, st.text(max_size=15))
def test_bytes_and_pickles_come_back(values: list[float], scale: int, unit: str) -> None:
    """What is encoded is decoded, sum included."""
    histogram = Histogram(unit.encode(errors="ignore").decode(), scale=scale)
    histogram.record_many(values)

    found = [Histogram.from_bytes(histogram.to_bytes()), pickle.loads(pickle.dumps(histogram))]

    assert found == [histogram, histogram]
    assert [repr(one.sum) for one in found] == [repr(histogram.sum)] * 2


@FEW
@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"PKH\x01\x06" + tail))
def test_any_bytes_decode_or_raise(encoded: bytes) -> None:
    """Whatever comes is a histogram or a ValueError."""
    try:
        found = Histogram.from_bytes(encoded)
    except ValueError:
        return

    assert Histogram.from_bytes(found.to_bytes()) == found


@pytest.mark.parametrize("kind", ["f4", "i8", "u8", "i4", "u4"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_numbers_of_other_formats_are_the_nearest_doubles(kind: str, kernel: str) -> None:
    """Single precision and integers, the largest ones included, count as their doubles."""
    random = np.random.default_rng(7)
    values = random.integers(0, 1 << 64, 5000, np.uint64) >> random.integers(0, 64, 5000, np.uint64)
    given_values = values.astype(kind)
    histogram = Histogram()

    histogram.record_many(given_values, kernel)  # type: ignore[arg-type]

    assert histogram == make(given_values.astype(np.float64))
    assert read_buckets(histogram.positive_buckets()) == Counter(
        read_buckets(make([float(one) for one in given_values]).positive_buckets())
    )
