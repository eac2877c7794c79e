"""Servers that are not ours: perfkit names the faults in and around them, and else is silent."""

from __future__ import annotations

import pytest
from foreign.lab import missing
from foreign.matrix import Run, execute, list_runs, what_lacks
from measuring import alone

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def check(run: Run) -> None:
    """Asserts that the first cause and its culprit are those injected, or that there is none."""
    lacks = missing(run.server) or what_lacks(run)
    if lacks:
        pytest.skip(lacks)
    with alone():
        ended = execute(run)

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("run", list_runs(), ids=str)
def test_foreign_server_is_judged_right(run: Run) -> None:
    """Each fault of each server is named first with its culprit; healthy servers get no alarm."""
    check(run)
