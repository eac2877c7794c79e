"""Every collector against everything that may stand in the place of each file that it reads.

Which files those are is found out by watching a healthy session on a fixture tree, so that a new
collector, or a new file of an old one, is attacked without being listed here.
"""

from __future__ import annotations

import queue
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import pytest
from attacks import (
    ATTACKS,
    HEAVY,
    MAIN_PID,
    Outcome,
    attacked,
    copy_links,
    find_target,
    list_opened,
    plant,
    run_measured,
    run_session,
)

from perfkit import discover
from perfkit.agent.target import resolve
from perfkit.collectors import python_stacks
from perfkit.errors import TargetError
from perfkit.host import Host
from perfkit.model import Collector, Target

COLLECTORS: dict[str, Collector] = discover.load_all("perfkit.collectors", "COLLECTOR")
TREE_NAMES = ("v2", "v1", "hybrid")
# A session that sleeps more than it works is run on several trees at once.
SLEEPY_S = 0.02
TREE_COUNT = 8
SLACK_S = 0.2
MEMORY_BYTES = 64 << 20
Case = tuple[str, str]


def attack_all(
    collector: Collector, host: Host, target: Target, cases: list[Case]
) -> dict[Case, Outcome]:
    """How a collector fares in each case, one after the other or, where it sleeps, side by side."""
    root = host.proc.parent
    begin_s = time.monotonic()
    run_session(collector, host, target)
    count = TREE_COUNT if time.monotonic() - begin_s > SLEEPY_S else 1
    hosts: queue.SimpleQueue[Host] = queue.SimpleQueue()
    for place in range(count):
        hosts.put(copy_links(host, root.with_name(f"{root.name}-{place}")))

    def attack(case: Case) -> Outcome:
        path, name = case
        mine = hosts.get()
        try:
            with attacked(mine.proc.parent / path, name):
                return run_session(collector, mine, target)
        finally:
            hosts.put(mine)

    heavy = [case for case in cases if case[1] in HEAVY]
    outcomes = {}
    for path, name in heavy:
        with attacked(root / path, name):
            outcomes[path, name] = run_measured(collector, host, target)
    light = [case for case in cases if case not in outcomes]
    with ThreadPoolExecutor(count) as pool:
        return outcomes | dict(zip(light, pool.map(attack, light), strict=True))


def find_faults(collector: Collector, outcomes: dict[Case, Outcome]) -> list[str]:
    """What a user would be shown without saying which file it is, or would wait for."""
    limit_s = 2 * collector.timeout_s + SLACK_S
    faults = []
    for (path, name), outcome in outcomes.items():
        reason = outcome.problem.reason if outcome.problem is not None else ""
        if outcome.state == "failed" and Path(path).name not in reason:
            faults.append(f"{path}, {name}: {reason[:100]}")
        if outcome.cpu_s > limit_s:
            faults.append(f"{path}, {name}: {outcome.cpu_s:.2f} s")
        if outcome.memory_bytes > MEMORY_BYTES:
            faults.append(f"{path}, {name}: {outcome.memory_bytes >> 20} MiB")
    return faults


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is busy in a fixture tree, so the busiest need not be watched for."""
    monkeypatch.setattr(python_stacks, "CHOICE_S", 0.0)
    monkeypatch.setattr(python_stacks, "SETTLE_S", 0.0)


@pytest.mark.parametrize("name", sorted(COLLECTORS))
def test_collector_survives_whatever_its_files_hold(name: str, tmp_path: Path) -> None:
    """It ends as ok, unavailable, or failed by a file that it names; in time, within memory."""
    collector, known = COLLECTORS[name], set[str]()

    faults, opened_count = [], 0
    for tree_name in TREE_NAMES:
        host, target = plant(tree_name, tmp_path / tree_name), find_target(tree_name)
        kinds = list_opened(partial(run_session, collector, host, target), host.proc.parent)
        cases = [
            (kinds[kind], attack) for kind in kinds.keys() - known for attack in (*ATTACKS, *HEAVY)
        ]
        known |= kinds.keys()
        opened_count += len(kinds)
        if cases:
            faults += find_faults(collector, attack_all(collector, host, target, sorted(cases)))

    assert opened_count >= 1
    assert faults == []


def test_target_is_resolved_or_refused_whatever_the_files_hold(tmp_path: Path) -> None:
    """Choosing a target ends with one that fits a capture, or with a line that says why not."""
    host = plant("v2", tmp_path / "v2")
    root = host.proc.parent
    paths = list_opened(lambda: resolve(host, MAIN_PID, only_pid=False), root).values()

    faults: list[str] = []
    for path in paths:
        for name in (*ATTACKS, *HEAVY):
            with attacked(root / path, name):
                faults += try_to_resolve(host, f"{path}, {name}")

    assert faults == []


def try_to_resolve(host: Host, case: str) -> list[str]:
    """What went wrong otherwise than with a clear line."""
    try:
        msgspec.msgpack.encode(resolve(host, MAIN_PID, only_pid=False))
    except TargetError:
        pass
    except Exception as error:
        return [f"{case}: {type(error).__name__} {str(error)[:100]}"]
    return []
