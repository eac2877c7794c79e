"""When a function has grown so much in slow requests that this proves it: for two rules.

It is `hot_function` then, and the waits for the interpreter's lock behind it are no cause.
"""

from __future__ import annotations

from perfkit.analysis._hot import Hot, find_grown
from perfkit.analysis.case import Case
from perfkit.analysis.compare import passes_gate
from perfkit.analysis.halts import read_halts

GROWTH_MIN = 2.0
# The function must have grown beyond everything else, or it is only load.
AGAINST_REST_MIN = 1.5
# A machine that others slow down makes all code dearer, 2.3 times in one run of a healthy service
# of which one function was 95 %: without a rest to hold it against, it must have grown by more.
REST_PART_MIN = 0.1
ALONE_GROWTH_MIN = 4.0
LATENCY_GROWTH_MIN = 1.3
# Requests that are slow because nothing runs (stopped, throttled) are not slow by a function.
GROWN_SHARE_MIN = 0.3
HALTED_RATIO_MAX = 0.05


def find_proven(case: Case) -> Hot | None:
    """The function that has; None: none has, or the window's parts cannot be held together."""
    hot = find_grown(case)
    return hot if hot is not None and has_grown(hot) and not was_halted(case) else None


def was_halted(case: Case) -> bool:
    """Whether it stood still for a part of the window: then its seconds are not alike."""
    axis = case.aligned.axis
    halts = read_halts(case.aligned, case.timeline)
    return any(halt.window_ratio(axis) >= HALTED_RATIO_MAX for halt in halts)


def least_growth(hot: Hot) -> float:
    """What its cost per request must have grown by: more where there is little beside it."""
    return GROWTH_MIN if hot.rest_part >= REST_PART_MIN else ALONE_GROWTH_MIN


def has_grown(hot: Hot) -> bool:
    """Whether it grew, more than all else did, and requests are slower for it."""
    return (
        passes_gate(hot.share)
        and hot.ratio >= least_growth(hot)
        and hot.ratio >= AGAINST_REST_MIN * hot.rest_ratio
        and hot.grown_share >= GROWN_SHARE_MIN
        and hot.latency_ratio >= LATENCY_GROWTH_MIN
    )
