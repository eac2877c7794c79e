"""The plain twin of perfkit.Histogram: integers of any size, no table, no logarithm."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable

from perfkit.histogram import Histogram

LEAST_NORMAL = 2.0**-1022


def to_float(bits: int) -> float:
    """The double of a pattern."""
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    return float(value)


def to_bits(value: float) -> int:
    """The pattern of a double."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits)


def find_bound(scale: int, i: int) -> int:
    """The pattern of the largest double that is at most 2^(i/N), 0 <= i < N."""
    power = 1 << ((52 << scale) + i)
    for _ in range(scale):
        power = math.isqrt(power)
    return (1022 << 52) + power


def find_index(value: float, scale: int) -> int:
    """The i with 2^(i/N) < value <= 2^((i+1)/N), N = 2^scale; subnormal ones share the lowest.

    With value = m 2^e: m^N <= 2^(i + 1 - e N), and the least such power is told by bits.
    """
    mantissa, exponent = math.frexp(max(value, LEAST_NORMAL))
    power = int(mantissa * 2**53) ** (1 << scale)
    return (power - 1).bit_length() + ((exponent - 53) << scale) - 1


def count_buckets(values: Iterable[float], scale: int) -> tuple[Counter[int], Counter[int]]:
    """Index -> count of positive and of negative finite numbers."""
    finite = [value for value in values if math.isfinite(value)]
    positive = Counter(find_index(value, scale) for value in finite if value > 0)
    return positive, Counter(find_index(-value, scale) for value in finite if value < 0)


def read_buckets(buckets: tuple[int, list[int]]) -> Counter[int]:
    """What positive_buckets or negative_buckets give, without empty ones."""
    index, counts = buckets
    return Counter({index + i: count for i, count in enumerate(counts) if count})


def make(values: Iterable[float], **settings: int) -> Histogram:
    """A histogram of values."""
    histogram = Histogram(**settings)  # type: ignore[arg-type]
    histogram.record_many(values)
    return histogram
