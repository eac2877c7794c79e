"""Many hosts, once or again and again: who is sampled when, and what came of it.

Rounds stand on the wall clock (every 15 minutes means :00, :15, :30, :45), so that the runs of
different hosts, and of different people who sample them, fall together. Only the first is at once,
so that a host that gives nothing is known now. A host begins a little late, by chance, so that a
thousand of them do not knock on one jump host in the same instant.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime

from msgspec import Struct

from perfkit.errors import PerfkitError, UsageError

CONCURRENCY_LIMIT = 32
HOST_LIMIT = 10_000
JITTER_RATIO = 0.05
JITTER_LIMIT_S = 5.0
EVERY_LIMIT_S = 7 * 86_400.0
# What a round takes beyond its window: connecting, probing, sending.
MARGIN_S = 5.0
CHECK_INTERVAL_S = 0.2
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


class Outcome(Struct, frozen=True):
    """What one host gave in one round: the id of a run, or the error in its place."""

    target: str
    run: str = ""
    error: PerfkitError | None = None


def parse_every(text: str, seconds: float) -> float:
    """The length of `90s`, `15m`, `2h`, `1d` in seconds. Raises: `UsageError`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"--every {text!r} is no time", fix="--every 15m (s, m, h or d)")
    every_s = float(found[1]) * _UNITS_S[found[2]]
    if not seconds + MARGIN_S <= every_s <= EVERY_LIMIT_S:
        raise UsageError(
            f"--every {text} is not between {seconds + MARGIN_S:g} s, which a round of "
            f"{seconds:g} s takes, and 7 days",
            fix="--every 15m",
        )
    return every_s


def next_round_s(now_s: float, every_s: float, seconds: float) -> float:
    """The next instant on the wall clock's grid; at least one window away, as UTC seconds."""
    return (int((now_s + seconds) / every_s) + 1) * every_s


def jitter_limit_s(every_s: float) -> float:
    """By how much a host's beginning may lag behind its round."""
    return min(JITTER_RATIO * every_s, JITTER_LIMIT_S)


def run_rounds(
    sample: Callable[[], Iterator[Outcome]],
    schedule: tuple[float, float],
    count: int | None,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> Iterator[Outcome]:
    """Carries out `count` rounds, or rounds until `stop`; the round that runs is finished.

    Unit: `schedule` is the distance of rounds and the length of a window, in seconds.
    """
    every_s, seconds = schedule
    done = 0
    planned_s = time.time()
    while True:
        done += 1
        tell(f"round {done}{f' of {count}' if count else ''} at {to_clock(planned_s)}")
        yield from sample()
        if stop.is_set() or done == count:
            return
        due_s = next_round_s(planned_s, every_s, seconds)
        if due_s < time.time():
            late_s = due_s
            due_s = next_round_s(time.time(), every_s, 0.0)
            missed = round((due_s - late_s) / every_s)
            rounds = "a round" if missed == 1 else f"{missed} rounds"
            tell(f"{rounds} left out: the one before took longer than {every_s:g} s")
        # The wall clock may be set; waiting in small steps follows it.
        while (left_s := due_s - time.time()) > 0 and not stop.is_set():
            stop.wait(min(left_s, CHECK_INTERVAL_S))
        if stop.is_set():
            return
        planned_s = due_s


def sample_all(
    targets: Sequence[str],
    sample: Callable[[str], str],
    jitter_s: float,
    stop: threading.Event,
) -> Iterator[Outcome]:
    """Samples every target, some at a time, and gives each outcome as it comes.

    `sample` gives the id of the run that it kept; targets not begun when `stop` is set are left.
    """
    with ThreadPoolExecutor(min(len(targets), CONCURRENCY_LIMIT)) as pool:
        waiting: set[Future[Outcome | None]] = {
            pool.submit(_sample, target, sample, jitter_s, stop) for target in targets
        }
        while waiting:
            done, waiting = wait(waiting, CHECK_INTERVAL_S, FIRST_COMPLETED)
            yield from (one for one in (future.result() for future in done) if one is not None)


def to_clock(instant_s: float) -> str:
    """A time of day, in UTC."""
    return f"{datetime.fromtimestamp(instant_s, UTC):%H:%M:%S}Z"


def _sample(
    target: str, sample: Callable[[str], str], jitter_s: float, stop: threading.Event
) -> Outcome | None:
    if jitter_s:
        stop.wait(random.uniform(0.0, jitter_s))
    if stop.is_set():
        return None
    try:
        return Outcome(target, run=sample(target))
    except PerfkitError as error:
        return Outcome(target, error=error)
    except KeyboardInterrupt:
        return None
