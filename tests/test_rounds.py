"""When the rounds of a periodic job are, and what becomes of hosts that give nothing."""

from __future__ import annotations

import threading
import time

import pytest

from perfkit.cli._rounds import (
    CONCURRENCY_LIMIT,
    jitter_limit_s,
    next_round_s,
    parse_every,
    run_rounds,
    sample_all,
)
from perfkit.errors import FetchError, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("15m", 900.0), ("2h", 7200.0), ("1d", 86400.0), ("30", 30.0), ("1.5m", 90.0)],
)
def test_period_is_read(text: str, seconds: float) -> None:
    """Periods are written as people write them."""
    assert parse_every(text, 10.0) == seconds


@pytest.mark.parametrize("text", ["", "m", "15x", "-5m", "14s", "8d", "1e9", "nan", "1" * 400])
def test_period_without_sense_is_refused(text: str) -> None:
    """A round must fit into its period, and a period into a week."""
    with pytest.raises(UsageError):
        parse_every(text, 10.0)


@pytest.mark.parametrize(
    ("now_s", "due_s"),
    [(900.0, 1800.0), (901.0, 1800.0), (1785.0, 1800.0), (1795.0, 2700.0), (1800.0, 2700.0)],
)
def test_rounds_are_on_the_wall_clocks_grid(now_s: float, due_s: float) -> None:
    """Every 15 minutes is :00, :15, :30 and :45; one that would cut into this round is left."""
    assert next_round_s(now_s, 900.0, 10.0) == due_s


@pytest.mark.parametrize(("every_s", "limit_s"), [(20.0, 1.0), (900.0, 5.0), (86400.0, 5.0)])
def test_jitter_is_bounded(every_s: float, limit_s: float) -> None:
    """No host is sampled long after its round."""
    assert jitter_limit_s(every_s) == limit_s


def test_host_that_fails_does_not_stop_the_others() -> None:
    """Each target has its outcome, a run or an error."""

    def sample(target: str) -> str:
        if target == "b":
            raise FetchError("no answer from b")
        return f"run-{target}"

    outcomes = {
        one.target: one for one in sample_all(["a", "b", "c"], sample, 0.0, threading.Event())
    }

    assert {name: one.run for name, one in outcomes.items()} == {
        "a": "run-a",
        "b": "",
        "c": "run-c",
    }
    assert isinstance(outcomes["b"].error, FetchError)


def test_number_of_hosts_at_a_time_is_bounded() -> None:
    """However many hosts there are, only so many are sampled at once."""
    lock, running, most = threading.Lock(), [0], [0]

    def sample(target: str) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return target

    names = [f"host-{number}" for number in range(100)]
    outcomes = list(sample_all(names, sample, 0.0, threading.Event()))

    assert len(outcomes) == 100
    assert most[0] <= CONCURRENCY_LIMIT


def test_targets_not_begun_are_left_when_it_is_enough() -> None:
    """Whoever stops is not kept waiting for hosts that nobody has asked yet."""
    stop = threading.Event()
    stop.set()

    assert list(sample_all(["a", "b"], str, 0.0, stop)) == []


def test_round_that_takes_too_long_costs_the_next_and_says_so() -> None:
    """Rounds never pile up."""
    said: list[str] = []
    stop = threading.Event()

    def sample_round() -> list[object]:
        time.sleep(0.7)
        return []

    list(run_rounds(sample_round, (0.3, 0.0), 2, stop, said.append))  # type: ignore[arg-type]

    assert [line.split()[1] for line in said if line.startswith("round")] == ["1", "2"]
    assert any("left out" in line for line in said)
