"""Case: everything that a rule may look at, computed once from one capture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from perfkit.analysis.align import Aligned, align
from perfkit.analysis.blame import (
    CpuOwner,
    charge_gil,
    charge_handoffs,
    cpu_owners,
    cpu_seconds,
)
from perfkit.analysis.brief_calls import name_brief_peers
from perfkit.analysis.columns import Masks, Reals
from perfkit.analysis.compare import PeerComparison, compare_peers
from perfkit.analysis.contention import CpuHolder, charge_cpu
from perfkit.analysis.endpoints import read_endpoints
from perfkit.analysis.futexes import resolve_futexes
from perfkit.analysis.intervals import Share, share_of_blocks
from perfkit.analysis.ledger import Ledger, idle_ratio, thread_ledger
from perfkit.analysis.native import CPU, Samples, read_samples
from perfkit.analysis.request_ledger import request_ledger
from perfkit.analysis.requests import Requests, read_requests
from perfkit.analysis.serving import serving_threads
from perfkit.analysis.states import UNKNOWN_PEER, State, thread_names
from perfkit.analysis.throttling import Throttling, read_throttling
from perfkit.analysis.timeline import Timeline, build_timeline
from perfkit.model import Capture

UNDETERMINED_SHARE_MAX = 0.3
IN_FLIGHT_MIN = 0.02
# Less time than this at peers that nothing names hides no cause.
UNKNOWN_SHARE_MIN = 0.1
USEFUL_STATES = (State.ON_CPU, State.PEER_WAIT, State.DISK_WAIT, State.TIMER_WAIT, State.SEND_WAIT)


@dataclass(frozen=True)
class Case:
    """One capture, accounted for.

    `timeline` has every thread of the service, waits charged to their holders; `threads` and
    `requests_ledger` are the two ledgers. `ledger` is the one to judge by.
    """

    aligned: Aligned
    timeline: Timeline
    throttling: Throttling
    requests: Requests
    threads: Ledger
    requests_ledger: Ledger
    serving: frozenset[tuple[int, int]]
    owners: tuple[CpuOwner, ...]
    holders: tuple[CpuHolder, ...]
    peers: tuple[PeerComparison, ...]
    thread_names: dict[tuple[int, int], str]
    thread_cpu_seconds: Reals
    said_slow: bool = False

    @property
    def largest_useful(self) -> State:
        """The state that may be useful work in which the ledger to judge by has most time."""
        return max(USEFUL_STATES, key=lambda state: (self.ledger.share(state), -state))

    @property
    def counts_requests(self) -> bool:
        """Whether requests in flight could be counted well enough to judge by them."""
        return (
            self.requests.counted
            and self.requests.undetermined_share <= UNDETERMINED_SHARE_MAX
            and self.requests_ledger.total_ns() > IN_FLIGHT_MIN * self.window_ns
        )

    @property
    def ledger(self) -> Ledger:
        """The ledger to judge by: requests where they are counted, else threads."""
        return self.requests_ledger if self.counts_requests else self.threads

    @property
    def window_ns(self) -> float:
        """The length of the window."""
        return float(self.aligned.axis.end_ns - self.aligned.axis.start_ns)

    @property
    def working_ns(self) -> float:
        """The booked time of the serving threads less timed waits, which may be mere pauses."""
        paused = self.threads.ns[self.threads.rows_where(State.TIMER_WAIT)].sum()
        return self.threads.total_ns() - float(paused)

    @cached_property
    def whole_blocks(self) -> Reals:
        """All booked time of the ledger to judge by, per block."""
        return self.ledger.block_ns()

    @cached_property
    def counted_blocks(self) -> Reals:
        """The same per block as it was counted: which block is slow must not come from the threads.

        Requests in flight are evened out against the threads for the ledger (request_ledger.py).
        """
        if not self.counts_requests:
            return self.whole_blocks
        return self.aligned.axis.sum_blocks(self.requests.in_flight * self.aligned.axis.slot_ns)

    @cached_property
    def native_samples(self) -> Samples:
        """What the on-CPU sampler saw, merged with Python's frames."""
        return read_samples(self.aligned, CPU)

    @property
    def hides_peers(self) -> bool:
        """Whether waits for peers that nothing names may hide a cause: none is ruled out then.

        They do where they are most of the waits for peers, or where those that are named have no
        like to be held against, which the unnamed ones may well be.
        """
        unknown = self.share(State.PEER_WAIT, UNKNOWN_PEER).value
        is_most = unknown > self.share(State.PEER_WAIT).value / 2
        is_alone = all(one.against == "none" for one in self.peers)
        return unknown > UNKNOWN_SHARE_MIN and (is_most or is_alone)

    def share(self, state: State, culprit: str | None = None, factor: float = 1.0) -> Share:
        """The share of a state (and culprit) in the ledger to judge by, times `factor`."""
        return self.share_of(self.ledger.rows_where(state, culprit), factor)

    def share_of(self, rows: Masks, factor: float = 1.0) -> Share:
        """The share of some rows of the ledger to judge by, times `factor`."""
        return share_of_blocks(self.ledger.block_ns(rows) * factor, self.whole_blocks)


def build_case(capture: Capture, *, said_slow: bool = False) -> Case:
    """Accounts for a capture: states, requests, ledgers, blame.

    `said_slow`: the user knows that it is slow, so the largest useful part may be a finding.
    """
    aligned = align(capture)
    endpoints = read_endpoints(aligned)
    throttling = read_throttling(aligned)
    requests = read_requests(aligned)
    names = thread_names(aligned)
    raw = name_brief_peers(build_timeline(aligned, endpoints, throttling), requests.calls)
    resolved = resolve_futexes(charge_gil(raw, names), requests)
    answer_count = requests.answer_count if requests.counted else None
    serving = serving_threads(resolved, aligned, answer_count)
    resolved, holders = charge_cpu(resolved, aligned, serving, names)
    threads = thread_ledger(resolved, serving)
    charged = thread_ledger(charge_handoffs(resolved), serving)
    return Case(
        aligned=aligned,
        timeline=resolved,
        throttling=throttling,
        requests=requests,
        threads=charged,
        requests_ledger=request_ledger(threads, requests, idle_ratio(resolved, serving)),
        serving=frozenset(_chosen(resolved, serving)),
        owners=cpu_owners(aligned),
        holders=holders,
        peers=compare_peers(requests.peers, aligned.axis),
        thread_names=names,
        thread_cpu_seconds=cpu_seconds(resolved),
        said_slow=said_slow,
    )


def _chosen(timeline: Timeline, serving: Masks) -> list[tuple[int, int]]:
    return [thread for thread, chosen in zip(timeline.threads, serving, strict=True) if chosen]
