"""Every boundary of every bucket, against integers of any size."""

from __future__ import annotations

import numpy as np
import pytest
from histogram_oracle import find_bound, find_index, to_bits, to_float
from source_tree import ROOT

from perfkit.histogram import Histogram

SCALES = range(1, 9)
OFFSETS = range(-2, 3)
# Exponents whose neighbours are normal as well.
EXPONENTS = np.arange(-1021, 1023)


def has_vector() -> bool:
    """Whether this CPU has the vector kernel."""
    try:
        Histogram().record_many([], "avx512")
    except ValueError:
        return False
    return True


KERNELS = ["scalar", *(["avx512"] if has_vector() else [])]


def near_boundaries(scale: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Doubles `offset` units above each boundary, for every exponent, and their indices."""
    ones = [find_bound(scale, i) + offset for i in range(1 << scale)]
    indices = np.array([find_index(to_float(bits), scale) for bits in ones])
    patterns = np.array(ones)[:, None] + (EXPONENTS << 52)[None, :]
    expected = indices[:, None] + (EXPONENTS << scale)[None, :]
    return patterns.astype(np.uint64).view(np.float64).ravel(), expected.ravel()


def count_wrong(histogram: Histogram, expected: np.ndarray) -> int:
    """By how many counts the buckets differ from those of the expected indices."""
    index, counts = histogram.positive_buckets()
    low = min(index, int(expected.min()))
    wanted = np.bincount(expected - low)
    found = np.zeros(max(len(wanted), index - low + len(counts)), np.int64)
    found[index - low : index - low + len(counts)] = counts
    found[: len(wanted)] -= wanted
    return int(np.abs(found).sum())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_boundary_is_where_integers_put_it(scale: int, kernel: str) -> None:
    """No number within two units of any boundary, of any exponent, is in a wrong bucket."""
    wrong = {}

    for offset in OFFSETS:
        values, expected = near_boundaries(scale, offset)
        histogram = Histogram(scale=scale)
        histogram.record_many(values, kernel)  # type: ignore[arg-type]
        wrong[offset] = count_wrong(histogram, expected)

    assert wrong == dict.fromkeys(OFFSETS, 0)


@pytest.mark.parametrize("scale", SCALES)
def test_single_records_find_the_same_buckets(scale: int) -> None:
    """A number counted by itself is in the bucket where integers put it."""
    values = [to_float(find_bound(scale, i) + k) for i in range(1 << scale) for k in OFFSETS]
    wrong = []

    for value in values:
        histogram = Histogram(scale=scale)
        histogram.record(value)
        wrong += [value] if histogram.positive_buckets() != (find_index(value, scale), [1]) else []

    assert wrong == []


@pytest.mark.parametrize("scale", [0, *SCALES])
def test_power_of_two_is_the_upper_bound_of_its_bucket(scale: int) -> None:
    """All 2046 normal powers of two belong to the bucket below them."""
    values = np.ldexp(1.0, np.arange(-1022, 1024))
    histogram = Histogram(scale=scale)

    histogram.record_many(values)

    expected = (np.arange(-1022, 1024) << scale) - 1
    assert count_wrong(histogram, expected) == 0


@pytest.mark.parametrize("scale", [0, *SCALES])
def test_ends_of_the_doubles_have_the_buckets_that_opentelemetry_gives(scale: int) -> None:
    """Subnormal numbers share the lowest bucket, and the largest double has the highest."""
    histogram = Histogram(scale=scale)

    histogram.record_many([5e-324, 2.0**-1022, 1.7976931348623157e308, float("inf")])

    index, counts = histogram.positive_buckets()
    assert (index, counts[0], counts[-1]) == ((-1022 << scale) - 1, 2, 1)
    assert (index + len(counts) - 1, sum(counts)) == ((1024 << scale) - 1, 3)
    assert (histogram.subnormal_count, histogram.positive_infinity_count) == (1, 1)


def test_boundaries_in_the_source_are_integer_roots() -> None:
    """The constants of pk_bounds.c are floor(2^52 (2^(i/256) - 1))."""
    text = (ROOT / "native" / "pk_bounds.c").read_text().partition("{")[2].partition("}")[0]

    written = [int(word, 16) for word in text.replace(",", " ").split()]

    assert written == [find_bound(8, i) - to_bits(1.0) for i in range(256)]
