"""Hops 5 to 7: one capture (and references) to one Report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from perfkit import __version__, discover
from perfkit.analysis.budget import make_budget
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.compare import SHARE_GATE, hold_against, passes_gate
from perfkit.analysis.correlate import (
    EXPLAINED_BY,
    WINDOW_MIN_S,
    RuleLike,
    ended_after_s,
    give_verdict,
    is_slight,
    observed_s,
    run_rules,
    unexplained_share,
    waste_shares,
)
from perfkit.analysis.references import (
    REFERENCE_LIMIT,
    Past,
    compare_parts,
    compare_run,
    usual_waits,
)
from perfkit.analysis.states import STATE_WORDS, UNKNOWN_PEER, State
from perfkit.findings import (
    SCHEMA,
    CostSummary,
    Finding,
    Report,
    Skip,
    TargetSummary,
    Window,
)
from perfkit.losses import list_losses, to_skip
from perfkit.model import Capture, Header, word_place
from perfkit.units import to_percent

THROTTLED_FOOTNOTE_RATIO = 0.01
MISSED_FOOTNOTE_RATIO = 0.2
OWNERS_NAMED = 3
PORTS_NAMED = 5
_UNKNOWN_WHY = (
    "is spent waiting on sockets that come and go, as those opened for one call, before the "
    "service's connections are listed: whose answers are late is not known"
)
_SHARED_WHY = "other processes listen there too, so whose a connection was is not known"


def analyse(
    capture: Capture,
    references: tuple[tuple[str, Capture], ...] = (),
    *,
    said_slow: bool = False,
) -> Report:
    """Diagnoses a capture. Equal captures give equal reports.

    `references` are saved runs with their names; what grew since may be a finding.

    `said_slow` is the user's word that the service is slow: without any other cause, the largest
    part of a request that may be useful becomes one.
    """
    case = build_case(capture, said_slow=said_slow)
    rules = list(discover.load_all("perfkit.analysis.rules", "RULE").values())
    pasts = [_read_past(name, other, rules) for name, other in references[:REFERENCE_LIMIT]]
    runs = [compare_run(case, past) for past in pasts]
    for past, run in zip(pasts, runs, strict=True):
        if run.is_usable and not run.is_load:
            case = replace(case, peers=hold_against(case.peers, usual_waits(past)))
    parts = compare_parts(case)
    findings, rejections, skips = run_rules(case, rules)
    hidden = _unknown_peers(case, findings)
    # What could not be seen is not ruled out, neither by its number nor as not being there.
    rejections = [one for one in rejections if one.id not in [skip.what for skip in hidden]]
    skips = [*_refused(capture.header), *skips, *hidden]
    verdict = give_verdict(case, findings)
    header = capture.header
    if observed_s(header) < WINDOW_MIN_S:
        skips.append(Skip("every cause", f"only {observed_s(header):.1f} s were observed"))
        rejections = []
    return Report(
        schema=SCHEMA,
        perfkit_version=__version__,
        run="",
        host=header.host,
        target=_target(header),
        window=_window(header),
        verdict=verdict,
        causes=tuple(findings) if verdict.state == "cause" else (),
        unexplained_share=unexplained_share(case, findings),
        footnotes=tuple(_footnotes(case, {finding.id for finding in findings})),
        ruled_out=tuple(rejections),
        not_checked=tuple(skips),
        budget=make_budget(case),
        cost=_cost(header),
        references=(*runs, *(() if parts is None else (parts,))),
    )


def _read_past(name: str, capture: Capture, rules: list[RuleLike]) -> Past:
    case = build_case(capture)
    findings, _, _ = run_rules(case, rules)
    return Past(name, case, findings[0].id if findings else "")


def _refused(header: Header) -> list[Skip]:
    refused = [
        Skip(status.collector, status.reason, status.grant)
        for status in header.statuses
        if status.state != "ok"
    ]
    refused += [
        to_skip(rate.sampler, remark) for rate in header.rates for remark in list_losses(rate.note)
    ]
    if ports := header.target.shared_ports:
        named = ", ".join(map(str, ports[:PORTS_NAMED]))
        what = f"requests on short connections at port {named}"
        refused.append(Skip(what, _SHARED_WHY, "name the whole service: leave --only-pid out"))
    return refused


def _unknown_peers(case: Case, findings: list[Finding]) -> list[Skip]:
    """What `downstream_slow` could not compare, where it did not find a slow peer all the same."""
    share = case.share(State.PEER_WAIT, UNKNOWN_PEER)
    if not case.hides_peers or any(one.id == "downstream_slow" for one in findings):
        return []
    return [Skip("downstream_slow", f"{to_percent(share.value)} of the time {_UNKNOWN_WHY}")]


def _target(header: Header) -> TargetSummary:
    target = header.target
    pids = tuple(process.pid for process in target.processes)
    return TargetSummary(
        kind=target.kind,
        name=target.name,
        pid=target.main_pid,
        pids=pids,
        listening=target.listening,
        chosen_by=target.chosen_by,
        ended_after_s=ended_after_s(header),
        reached_as=word_place(header),
    )


def _window(header: Header) -> Window:
    clock = header.clock
    return Window(
        start=_instant(clock.start_utc_ns),
        end=_instant(clock.end_utc_ns),
        seconds=(clock.end_ns - clock.start_ns) / 1e9,
        requested_s=header.requested_s,
        interrupted=header.interrupted,
    )


def _instant(utc_ns: int) -> str:
    """RFC 3339 with milliseconds; an instant beyond the calendar's end reads as the epoch."""
    try:
        moment = datetime.fromtimestamp(utc_ns // 1_000_000 / 1e3, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cost(header: Header) -> CostSummary:
    window_ns = max(header.clock.end_ns - header.clock.start_ns, 1)
    used_ns = header.cost.cpu_ns + header.cost.children_cpu_ns
    ticks = sum(rate.tick_count for rate in header.rates)
    missed = sum(rate.missed_count for rate in header.rates)
    return CostSummary(
        cpu_percent_of_core=100 * used_ns / window_ns,
        startup_cpu_s=header.cost.startup_cpu_ns / 1e9,
        memory_peak_mb=header.cost.memory_peak_bytes / 1e6,
        ticks_missed_ratio=missed / (ticks + missed) if ticks + missed else 0.0,
        rates={rate.sampler: rate.achieved_hertz for rate in header.rates},
    )


def _waste_notes(case: Case, reported: set[str]) -> list[str]:
    """Waste that no reported cause explains; for a wait for a CPU, who else was on them."""
    notes = []
    for state, share in waste_shares(case):
        explained = bool(EXPLAINED_BY.get(state, frozenset()) & reported)
        if passes_gate(share) and not explained and not is_slight(case, share):
            note = f"{to_percent(share.value)} of the time is spent {STATE_WORDS[state]}."
            notes.append(note + (_other_owners(case) if state is State.RUNNABLE else ""))
    return notes


def _other_owners(case: Case) -> str:
    window_s = case.window_ns / 1e9
    others = [owner for owner in case.owners if owner.role != "service" and owner.pid > 0]
    named = ", ".join(
        f"{owner.name} ({owner.pid}) {to_percent(owner.seconds / window_s)}"
        for owner in others[:OWNERS_NAMED]
    )
    return f" Others on the CPUs, of one core: {named}." if named else ""


def _footnotes(case: Case, reported: set[str]) -> list[str]:
    """Mechanisms without time, and what limits the answer: said, never raised to a cause."""
    notes = []
    for quota in case.throttling.quotas:
        share = case.share(State.THROTTLED, quota.path)
        if quota.throttled_ratio >= THROTTLED_FOOTNOTE_RATIO and share.value <= SHARE_GATE:
            notes.append(
                f"{quota.path} was throttled in {quota.throttled_count} of {quota.period_count} "
                f"periods, which took {to_percent(share.value)} of the busy time."
            )
    notes += _waste_notes(case, reported)
    header = case.aligned.header
    after_s = ended_after_s(header)
    if after_s is not None:
        notes.append(f"The target ended {after_s:.1f} s into the window.")
    for rate in header.rates:
        if rate.missed_count > MISSED_FOOTNOTE_RATIO * (rate.tick_count + rate.missed_count):
            notes.append(
                f"{rate.sampler}: {rate.missed_count} of {rate.tick_count + rate.missed_count} "
                f"ticks missed, {rate.achieved_hertz:.0f} Hz instead of {rate.requested_hertz:.0f}."
            )
    if case.requests.one_way_count:
        notes.append(
            f"{case.requests.one_way_count} connections carry data one way only; they are not "
            "counted as requests."
        )
    if case.requests.counted and not case.counts_requests and case.requests.answer_count >= 1:
        notes.append("Requests in flight could not be counted well enough; threads are judged.")
    return notes
