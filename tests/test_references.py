"""References: the fast part of a window, and saved runs; both must keep silence where they can."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from test_rules import FOLDER, SILENT, diagnose, read

from perfkit.analysis import analyse
from perfkit.analysis.columns import Integers
from perfkit.analysis.growth import Spans, asked_more, find_growth, merge_strangers, split_fast
from perfkit.analysis.states import State
from perfkit.findings import Report
from perfkit.report.words import word_reference

CPU, PEER = (State.ON_CPU, ""), (State.PEER_WAIT, "10.0.0.1:80")
COUNT = 20


def _spans(*, slow_every: int = 0, answers: float = 20.0, seed: int = 1) -> Spans:
    """Spans of requests of some 10 ms with noise; every so many spans the peer takes 40 ms more."""
    chance = np.random.default_rng(seed)
    peer_ns = 4e6 * chance.gamma(20, 1 / 20, COUNT)
    if slow_every:
        peer_ns[::slow_every] += 40e6
    cpu_ns = 6e6 * chance.gamma(20, 1 / 20, COUNT)
    asked = np.full(COUNT, answers)
    return Spans((CPU, PEER), np.stack([cpu_ns, peer_ns]) * asked, asked, cpu_ns * asked, 5e8)


def _order(spans: Spans, order: Integers) -> Spans:
    return replace(
        spans, ns=spans.ns[:, order], answers=spans.answers[order], cpu_ns=spans.cpu_ns[order]
    )


def test_slow_part_is_found_and_what_it_has_is_named() -> None:
    """A peer that is slow in every fourth span is what slow requests have and fast ones lack."""
    parts = split_fast(_spans(slow_every=4))

    assert parts is not None
    (grown,) = find_growth(parts[1], parts[0])
    assert (grown.key, len(parts[1].answers)) == (PEER, COUNT // 4)
    assert grown.more_ns == pytest.approx(40e6, rel=0.1)
    assert grown.low_ns <= grown.more_ns <= grown.high_ns


@pytest.mark.parametrize("seed", range(20))
def test_noise_has_no_slow_part(seed: int) -> None:
    """Response times of one kind are not cut in two."""
    assert split_fast(_spans(seed=seed)) is None


def test_too_few_spans_have_no_parts() -> None:
    """Less than 8 spans say nothing, however different they are."""
    spans = _spans(slow_every=2)

    assert split_fast(spans.take(np.arange(COUNT) < 7)) is None


def test_order_of_spans_plays_no_part() -> None:
    """A fault that comes and goes is found as one that came and stayed."""
    spans = _spans(slow_every=3)
    mixed = _order(spans, np.random.default_rng(3).permutation(COUNT))

    parts, again = split_fast(spans), split_fast(mixed)

    assert parts is not None
    assert again is not None
    assert again[1].latency_ns == pytest.approx(parts[1].latency_ns)
    assert [one.key for one in find_growth(again[1], again[0])] == [PEER]


def test_scale_of_times_plays_no_part() -> None:
    """All times ten times longer: the same parts, and growth ten times larger."""
    spans = _spans(slow_every=4)
    longer = replace(spans, ns=spans.ns * 10, cpu_ns=spans.cpu_ns * 10)

    parts, again = split_fast(spans), split_fast(longer)

    assert parts is not None
    assert again is not None
    grown, more = (find_growth(slow, fast)[0] for fast, slow in (parts, again))
    assert more.more_ns == pytest.approx(10 * grown.more_ns)


def test_more_load_at_the_same_cost_is_no_slowness() -> None:
    """Three times the requests, each as costly as before: asked more, not slower."""
    spans, loaded = _spans(), _spans(answers=60.0)
    costly = replace(loaded, cpu_ns=loaded.cpu_ns * 2)

    assert (asked_more(loaded, spans), asked_more(costly, spans)) == (True, False)


def test_states_without_a_common_culprit_are_compared_whole() -> None:
    """Ports differ from run to run; the wait for a peer is still the wait for a peer."""
    spans = _spans()
    other = replace(_spans(slow_every=1), keys=(CPU, (State.PEER_WAIT, "10.0.0.9:4711")))

    now, then = merge_strangers(other, spans)

    assert [one.key for one in find_growth(now, then)] == [(State.PEER_WAIT, "")]


@pytest.mark.parametrize("name", SILENT)
def test_nothing_grows_against_itself(name: str) -> None:
    """A run held against the same run has grown in nothing."""
    capture = read(name)

    report = analyse(capture, (("itself", capture),))

    assert [one.grown for one in report.references] == [()] * len(report.references)
    assert (report.verdict.state, report.causes) == ("healthy", ())


@pytest.mark.parametrize("name", SILENT)
def test_healthy_windows_have_no_slow_part(name: str) -> None:
    """A line about the slow part stands only where there is one."""
    assert not [one for one in diagnose(name).references if one.kind == "window"]


def _against(name: str, reference: str, **changes: object) -> Report:
    past = read(reference)
    past = structs.replace(past, header=structs.replace(past.header, **changes))
    return analyse(read(name), (("past", past),))


def test_growth_since_a_run_is_said() -> None:
    """A peer that became slow since the saved run is in the report with by how much."""
    report = _against("downstream_slow.fires.threads", "healthy.threads")

    (run,) = (one for one in report.references if one.kind == "run")
    assert run.is_usable
    assert run.grown[0].state == "waiting for a peer"
    assert "against run past" in word_reference(run)


def test_a_run_that_was_not_healthy_is_called_so() -> None:
    """What was slow already then is no measure, and the report says what it was."""
    report = _against("downstream_slow.fires.threads", "cpu_throttled.fires.threads")

    assert "it was not healthy itself (cpu_throttled)" in report.references[0].notes


def test_a_run_of_another_service_is_refused() -> None:
    """Nothing is compared with the run of something else."""
    target = structs.replace(read("healthy.threads").header.target, name="another")

    report = _against("downstream_slow.fires.threads", "healthy.threads", target=target)

    run = report.references[0]
    assert (run.is_usable, run.grown, run.latency_ms) == (False, (), None)
    assert word_reference(run).startswith("Not compared with run past: it is of another service")


def test_a_run_of_another_host_is_a_poorer_reference() -> None:
    """It is compared, and the report says that it is another host."""
    report = _against("downstream_slow.fires.threads", "healthy.threads", host="host-2")

    assert "it is of another host (host-2)" in report.references[0].notes


def test_a_run_under_another_load_carries_no_finding() -> None:
    """Ten times the requests: said, and not leaned on."""
    report = _against("load_saturation.fires.threads", "healthy.threads")

    run = report.references[0]
    assert not run.is_usable
    assert any("the load is not comparable" in note for note in run.notes)


def test_said_slow_and_nothing_found_names_the_parts() -> None:
    """Where nothing else is left to say, the parts of the time are named, none called abnormal."""
    report = analyse(read("process_stopped.near_miss.threads"), said_slow=True)

    words = report.verdict.text
    assert report.causes or words.startswith("Nothing proves it abnormal"), words


def test_report_takes_a_run_to_hold_it_against() -> None:
    """`perfkit report RUN --against RUN2` says which run was used, in JSON too."""
    names = ("downstream_slow.fires.threads", "healthy.threads")
    wanted, past = (str(FOLDER / f"{name}.perfkit") for name in names)
    command = [sys.executable, "-m", "perfkit", "report", wanted, "--against", past, "--to", "json"]

    done = subprocess.run(command, capture_output=True, check=True, timeout=60)

    references = json.loads(done.stdout)["references"]
    assert [one["name"] for one in references if one["kind"] == "run"] == [past]
