"""What an analysis comes to: findings, rejections, skips, and the Report that holds them.

A Report is a pure function of captures. Its JSON form is a contract (perfkit/report/schema.json,
additive only); these structs are that form, field by field. Shares are ratios 0..1.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Family = Literal["cpu", "python", "native", "memory", "disk", "network", "load", "gpu", "self"]
State = Literal["cause", "healthy", "idle", "unexplained", "insufficient"]
Severity = Literal["crit", "warn", "note"]


class Culprit(Struct, frozen=True):
    """Who is charged. `name` is untrusted text where it came from the host."""

    kind: Literal[
        "cgroup", "process", "thread", "peer", "device", "file", "function", "lock", "none"
    ]
    name: str = ""


class Evidence(Struct, frozen=True):
    """One number that proves or contradicts. `expected` is None where nothing is expected."""

    metric: str
    observed: float
    expected: float | None
    unit: str
    source: str


class Finding(Struct, frozen=True):
    """A cause with its two witnesses. `share` of the busy (or excess) time, with 90 % interval."""

    id: str
    family: Family
    title: str
    severity: Severity
    confidence: float
    share: float
    share_low: float
    share_high: float
    share_of: Literal["busy", "excess"]
    share_ledger: Literal["requests", "threads"]
    culprit: Culprit
    evidence: tuple[Evidence, ...]
    against: tuple[Evidence, ...] = ()
    tie_with: tuple[str, ...] = ()
    fix: str = ""
    verify: str = ""


class Rejection(Struct, frozen=True):
    """A cause that was looked for, and the number that rejects it."""

    id: str
    metric: str
    observed: float
    limit: float
    unit: str
    source: str
    why: str


class Skip(Struct, frozen=True):
    """Something that could not be seen, why, and what would show it ("" = nothing would)."""

    what: str
    why: str
    grant: str = ""


class BudgetRow(Struct, frozen=True):
    """One line of where the time went: a state and whom it is charged to."""

    state: str
    culprit: str
    seconds: float
    share: float


class Budget(Struct, frozen=True):
    """Where the service's time went, in every verdict state.

    `requests` rows sum to the time that requests were in flight, `threads` rows to the busy time of
    the serving threads. None means that it could not be counted.

    `in_flight_error_ratio` is half the 90 % interval of the mean in flight, and so of the latency,
    as a part of it: requests are met now and then. 0: every one of them is timed by the kernel.
    """

    requests: tuple[BudgetRow, ...] = ()
    threads: tuple[BudgetRow, ...] = ()
    in_flight_mean: float | None = None
    answers_per_second: float | None = None
    latency_mean_ms: float | None = None
    busy_threads_mean: float | None = None
    undetermined_share: float = 0.0
    in_flight_error_ratio: float | None = None


class Verdict(Struct, frozen=True):
    """The answer in one word and one sentence."""

    state: State
    text: str


class Window(Struct, frozen=True):
    """The time that was looked at; instants are RFC 3339 UTC with milliseconds."""

    start: str
    end: str
    seconds: float
    requested_s: float
    interrupted: str = ""


class TargetSummary(Struct, frozen=True):
    """What was looked at, in the words of the report.

    Missing: `ended_after_s` (seconds into the window) is None where the target lived on.
    `reached_as` is how a command names the host, "." for the one that recorded itself.
    """

    kind: str
    name: str
    pid: int
    pids: tuple[int, ...]
    listening: tuple[str, ...]
    chosen_by: str
    ended_after_s: float | None = None
    reached_as: str = "."


class Growth(Struct, frozen=True):
    """What a request takes longer for than in the reference; the interval is of the growth."""

    state: str
    culprit: str
    reference_ms: float
    observed_ms: float
    low_ms: float
    high_ms: float


class Reference(Struct, frozen=True):
    """What the window was held against: its own fast part (no name), or a saved run.

    `slow_share` is the part of the window that is compared. `is_load`: asked more, not slower.
    Where `is_usable` is False, `notes` say why, and no finding leans on it.
    """

    kind: Literal["window", "run"]
    name: str
    is_usable: bool
    notes: tuple[str, ...] = ()
    slow_share: float = 0.0
    latency_ms: float | None = None
    reference_latency_ms: float | None = None
    answers_per_second: float | None = None
    reference_answers_per_second: float | None = None
    is_load: bool = False
    grown: tuple[Growth, ...] = ()


class CostSummary(Struct, frozen=True):
    """What perfkit itself used, in percent of one core over the window."""

    cpu_percent_of_core: float
    startup_cpu_s: float
    memory_peak_mb: float
    ticks_missed_ratio: float
    rates: dict[str, float] = {}


class Report(Struct, frozen=True):
    """All that `perfkit diagnose` has to say about one capture."""

    schema: str
    perfkit_version: str
    run: str
    host: str
    target: TargetSummary
    window: Window
    verdict: Verdict
    causes: tuple[Finding, ...]
    unexplained_share: float
    footnotes: tuple[str, ...]
    ruled_out: tuple[Rejection, ...]
    not_checked: tuple[Skip, ...]
    budget: Budget
    cost: CostSummary
    references: tuple[Reference, ...] = ()


SCHEMA = "perfkit.diagnosis/1"
