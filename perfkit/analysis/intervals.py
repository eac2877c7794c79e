"""How sure a share is: 90 % intervals by resampling the window's blocks.

Blocks of 250 ms are drawn with replacement; within a block time is correlated, between blocks it is
taken as independent. The generator's seed is fixed: the same capture gives the same interval.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from perfkit.analysis.columns import Reals

RESAMPLE_COUNT = 200
_SEED = 1
_LOW, _HIGH = 5.0, 95.0
# A 90 % interval of what is normal reaches so many standard deviations to either side.
NORMAL_90 = 1.645


class Share(Struct, frozen=True):
    """A ratio 0..1 with its 90 % interval."""

    value: float
    low: float
    high: float


def share_of_blocks(part: Reals, whole: Reals) -> Share:
    """The share sum(part) / sum(whole) over the blocks; 0 where the whole is nothing."""
    total = float(whole.sum())
    if total <= 0:
        return Share(0.0, 0.0, 0.0)
    drawn = np.random.default_rng(_SEED).integers(0, len(whole), (RESAMPLE_COUNT, len(whole)))
    sums = np.maximum(whole[drawn].sum(axis=1), 1.0)
    ratios = part[drawn].sum(axis=1) / sums
    low, high = np.percentile(ratios, [_LOW, _HIGH])
    value = float(part.sum()) / total
    return Share(value, min(float(low), value), min(1.0, max(float(high), value)))
