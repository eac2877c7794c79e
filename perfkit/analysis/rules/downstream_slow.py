"""One peer, named, answers late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.case import Case
from perfkit.analysis.compare import (
    APART_ERRORS_MIN,
    SHARE_GATE,
    STANDS_OUT_RATIO,
    PeerComparison,
    passes_gate,
)
from perfkit.analysis.intervals import Share
from perfkit.analysis.rules._rule import Rule, make_finding
from perfkit.analysis.states import State
from perfkit.findings import Culprit, Evidence, Finding, Rejection
from perfkit.units import to_percent

# A connect that takes this share of the peer's extra answer time says that the path is slow.
PATH_SLOW_RATIO = 0.3
LOSS_RATIO_MAX = 0.005
RECEIVE_LIMITED_RATIO_MAX = 0.2


@dataclass(frozen=True)
class _Path:
    """What is known of the way to a peer; None where it was not probed."""

    connect_ns: float | None
    loss_ratio: float
    rwnd_limited_ratio: float


def find(case: Case) -> Iterator[Finding | Rejection]:
    """Time: requests pending at one peer of several alike. Mechanism: its answers, not its path."""
    suspect = _suspect(case)
    if suspect is None:
        yield _reject(case)
        return
    path = _read_path(case, suspect)
    looks = list(_look_alikes(suspect, path))
    rejected = [one for one in looks if one.observed <= one.limit]
    yield from rejected
    tie_with = tuple(one.id for one in looks if one not in rejected)
    if path.connect_ns is None:
        tie_with = (*tie_with, "network_latency")
    if (
        "packet_loss" in tie_with
        or "receive_window" in tie_with
        or not _path_is_slow(suspect, path)
    ):
        yield _finding(case, suspect, path, tie_with)
    else:
        yield _reject_slow_path(suspect, path)


def _share(case: Case, compared: PeerComparison) -> Share:
    """The peer's share of the ledger beyond what its like take, or it took before."""
    if case.said_slow and not compared.stands_out:
        return _whole_share(case, compared)
    return case.share(State.PEER_WAIT, compared.peer.name, compared.excess_ratio)


def _suspect(case: Case) -> PeerComparison | None:
    standing = [one for one in case.peers if one.stands_out and passes_gate(_share(case, one))]
    if not standing and case.said_slow and case.largest_useful is State.PEER_WAIT:
        standing = [one for one in case.peers if passes_gate(_whole_share(case, one))]
        return max(standing, key=lambda one: _whole_share(case, one).value, default=None)
    return max(standing, key=lambda one: _share(case, one).value, default=None)


def _whole_share(case: Case, compared: PeerComparison) -> Share:
    """All that is waited for this peer: what counts when the user knows that it is slow."""
    return case.share(State.PEER_WAIT, compared.peer.name)


def _reject(case: Case) -> Rejection:
    first = next((one for one in case.peers if one.against != "none"), None)
    if first is None:
        share = case.ledger.share(State.PEER_WAIT)
        return Rejection(
            RULE.id,
            "share of time waiting for peers",
            share,
            1.0,
            "ratio",
            "TCP_INFO ages, threads in recv",
            "no peer has another like it to be compared with",
        )
    share, name = _share(case, first).value, first.peer.name
    usual = f"{first.wait_ns / 1e6:.3g} ms, usual are {first.reference_ns / 1e6:.3g} ms"
    if first.stands_out:
        metric = f"share of time that {name} takes beyond {_usual(first)}"
        return Rejection(RULE.id, metric, share, SHARE_GATE, "ratio", "TCP_INFO ages", usual)
    if first.ratio >= STANDS_OUT_RATIO:
        metric = f"standard errors by which {name} differs from {_usual(first)}"
        errors = max(first.errors_apart, 0.0)
        return Rejection(RULE.id, metric, errors, APART_ERRORS_MIN, "", "TCP_INFO ages", usual)
    metric = f"wait per answer of {name} against {_usual(first)}"
    why = f"{usual}; {to_percent(share)} of the time"
    return Rejection(RULE.id, metric, first.ratio, STANDS_OUT_RATIO, "x", "TCP_INFO ages", why)


def _read_path(case: Case, compared: PeerComparison) -> _Path:
    probes = case.aligned.table("probes")
    took = [
        connect_ns
        for peer, connect_ns in zip(
            probes.text("peer"), probes.integers("connect_ns").tolist(), strict=True
        )
        if peer == compared.peer.name and connect_ns >= 0
    ]
    peer = compared.peer
    lost = max(peer.retransmits, 0) + max(peer.out_of_order, 0)
    return _Path(
        connect_ns=float(np.median(took)) if took else None,
        loss_ratio=lost / max(peer.segment_count, 1),
        rwnd_limited_ratio=max(peer.rwnd_limited_us, 0) * 1000 / case.window_ns,
    )


def _path_is_slow(compared: PeerComparison, path: _Path) -> bool:
    extra_ns = compared.wait_ns - compared.reference_ns
    return path.connect_ns is not None and path.connect_ns > PATH_SLOW_RATIO * extra_ns


def _look_alikes(compared: PeerComparison, path: _Path) -> Iterator[Rejection]:
    extra_ns = compared.wait_ns - compared.reference_ns
    if path.connect_ns is not None:
        yield Rejection(
            "network_latency",
            f"connect time to {compared.peer.name}",
            path.connect_ns / 1e6,
            PATH_SLOW_RATIO * extra_ns / 1e6,
            "ms",
            "connect() probe after the window",
            "its kernel answers at once, its program does not",
        )
    yield Rejection(
        "packet_loss",
        f"segments resent or out of order, {compared.peer.name}",
        path.loss_ratio,
        LOSS_RATIO_MAX,
        "ratio",
        f"TCP_INFO of its sockets, {compared.peer.segment_count} segments",
        "its segments arrive, once and in order",
    )
    yield Rejection(
        "receive_window",
        f"time limited by the receive window of {compared.peer.name}",
        path.rwnd_limited_ratio,
        RECEIVE_LIMITED_RATIO_MAX,
        "ratio",
        "TCP_INFO rwnd_limited",
        "it takes what is sent to it",
    )


def _reject_slow_path(compared: PeerComparison, path: _Path) -> Rejection:
    return Rejection(
        RULE.id,
        f"connect time to {compared.peer.name}",
        (path.connect_ns or 0.0) / 1e6,
        PATH_SLOW_RATIO * (compared.wait_ns - compared.reference_ns) / 1e6,
        "ms",
        "connect() probe after the window",
        "the path to it is slow, which explains the late answers",
    )


def _reference_words(compared: PeerComparison) -> str:
    if compared.stands_out and compared.against == "past":
        return "its own fast seconds of this window"
    if compared.stands_out and compared.against == "run":
        return "what it took in the run it is held against"
    if compared.stands_out:
        return f"the median of {compared.like_count} like peers"
    return "nothing: it is the largest part of a request, which is said to be slow"


def _usual(compared: PeerComparison) -> str:
    return "its like" if compared.against == "like" else "what it took before"


def _title(case: Case, compared: PeerComparison) -> str:
    name = compared.peer.name
    if compared.stands_out:
        return f"{name} answers late, x{compared.ratio:.1f} of {_usual(compared)}"
    mine = _whole_share(case, compared)
    shares = [(_whole_share(case, one), one) for one in case.peers if one is not compared]
    alike = [one.peer.name for share, one in shares if share.high >= mine.low]
    others = f", and {', '.join(alike)} about as much" if alike else ""
    return f"{name} is what requests wait for most{others}"


def _finding(
    case: Case, compared: PeerComparison, path: _Path, tie_with: tuple[str, ...]
) -> Finding:
    peer = compared.peer
    evidence = [
        Evidence(
            "mean wait for an answer",
            compared.wait_ns / 1e6,
            compared.reference_ns / 1e6 if compared.stands_out else None,
            "ms",
            f"TCP_INFO ages, against {_reference_words(compared)}",
        ),
        Evidence("answers in the window", peer.answer_count, None, "", "TCP_INFO segments"),
    ]
    if path.connect_ns is not None:
        evidence.append(
            Evidence(
                "connect time",
                path.connect_ns / 1e6,
                None,
                "ms",
                "connect() probe after the window",
            )
        )
    confidence = 0.9 if path.connect_ns is not None and not tie_with else 0.6
    return make_finding(
        case,
        RULE,
        title=_title(case, compared),
        share=_share(case, compared),
        confidence=confidence,
        culprit=Culprit("peer", peer.name),
        evidence=tuple(evidence),
        tie_with=tie_with,
        fix=f"look at {peer.name}: run perfkit diagnose on the host that serves it",
    )


RULE = Rule(
    id="downstream_slow",
    family="network",
    parent="",
    cell=("network", "saturation"),
    state=State.PEER_WAIT,
    needs=("socket_runs.last_received_ms", "sockets.peer"),
    sources=("sockets",),
    absent="TCP connections of the service",
    excludes=("network_latency", "packet_loss", "receive_window"),
    summary="One peer answers late.",
    meaning=(
        "The service has asked a peer (a shard, a cache, a database) and its requests wait for\n"
        "the answer. One peer takes much longer than others that are asked alike."
    ),
    detection=(
        "Time: requests in flight while an outgoing socket waits for its answer (TCP_INFO: last\n"
        "data sent is younger than last data received), or a thread is blocked receiving from it.\n"
        "Mechanism: its mean wait per answer is at least twice the median of its like, while\n"
        "a connect() to it is fast (its kernel answers at once) and its segments are not lost.\n"
        "Not this: a slow connect is network_latency, resent segments are packet_loss. Where the\n"
        "probe could not be made the report names a tie."
    ),
    fix="look at the named peer: run perfkit diagnose on the host that serves it",
    verify="its wait per answer falls to that of its like",
    find=find,
)
