"""From findings to one answer: ranks causes, names ties, and gives the verdict its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from msgspec import structs

from perfkit.analysis.case import Case
from perfkit.analysis.intervals import Share
from perfkit.analysis.states import STATE_WORDS, WASTE_STATES, State
from perfkit.findings import Finding, Rejection, Skip, Verdict
from perfkit.model import Header
from perfkit.units import to_percent

WINDOW_MIN_S = 2.0
IDLE_IN_FLIGHT = 0.02
IDLE_BUSY_THREADS = 0.02
# Waste without a proven reason is a verdict of its own only where it is large; else a footnote.
UNEXPLAINED_SHARE = 0.35
UNEXPLAINED_LOW = 0.25
# And where it amounts to something: this many requests (or threads) waiting at any moment, or this
# much for each answer. Wake-ups on a virtual machine cost a quiet service tenths of a millisecond.
LOST_MIN = 0.05
LOST_PER_ANSWER_NS = 5e6
# Requests in so many connections that nobody reads, in so much of the window, are a symptom.
UNREAD_MIN = 1.0
UNREAD_BLOCKS_MIN = 0.6
# Above this share of its time not seen, or stopped, nothing else can be said of a service.
UNSEEN_SHARE = 0.5
STOPPED_SHARE = 0.5
# Of a peer that takes so much of the time, and was held against nothing but itself, it is said.
LONE_PEER_SHARE = 0.6
# Where so many threads are met that began in the window, and so many per answer, each answer has
# its own: of those that live for a few milliseconds most are never met.
BORN_MIN = 20
BORN_PER_ANSWER_MIN = 1 / 20
BORN_AFTER_NS = 200_000_000
# The causes of which any, once reported, accounts for a state.
_CPU_CAUSES = frozenset(
    {
        "busy_poll_thread",
        "context_switch_storm",
        "cpu_affinity",
        "cpu_contention_neighbour",
        "cpu_priority_low",
        "cpu_weight_low",
        "host_cpu_saturated",
        "load_saturation",
        "sibling_cpu",
        "thread_oversubscription",
    }
)
EXPLAINED_BY = {
    State.THROTTLED: frozenset({"cpu_throttled", "sibling_cpu", "busy_poll_thread"}),
    State.GIL_WAIT: frozenset(
        {
            "context_switch_storm",
            "gc_pause",
            "gil_contention",
            "hot_function",
            "load_saturation",
            "logging_overhead",
            "regex_backtracking",
        }
    ),
    State.LOCK_WAIT: frozenset({"context_switch_storm", "lock_contention", "logging_overhead"}),
    State.RUNNABLE: _CPU_CAUSES,
    State.QUEUE_WAIT: frozenset({"load_saturation", "thread_pool_exhausted"}),
}
# Of a service that is said to be slow: so many parts, each of at least this share.
COMPOSITION_LIMIT = 4
COMPOSITION_MIN = 0.05
_NOTHING = frozenset[str]()


class RuleLike(Protocol):
    """What correlate needs of a rule (perfkit.analysis.rules._rule.Rule)."""

    @property
    def id(self) -> str: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def absent(self) -> str: ...
    @property
    def find(self) -> Callable[[Case], Iterator[Finding | Rejection]]: ...


def run_rules(
    case: Case, rules: list[RuleLike]
) -> tuple[list[Finding], list[Rejection], list[Skip]]:
    """Asks every rule whose needs were recorded; the others are skipped, and said."""
    findings: list[Finding] = []
    rejections: dict[str, Rejection] = {}
    skips: list[Skip] = []
    for rule in rules:
        missing = [need for need in rule.needs if not case.aligned.has(need)]
        if missing and _answered(case, rule):
            rejections.setdefault(rule.id, _absent(rule))
            continue
        if missing:
            skips.append(Skip(rule.id, f"not recorded: {', '.join(missing)}"))
            continue
        for result in rule.find(case):
            if isinstance(result, Finding):
                findings.append(result)
            else:
                rejections.setdefault(result.id, result)
    found = {finding.id for finding in findings}
    return _rank(findings), [one for key, one in rejections.items() if key not in found], skips


def _answered(case: Case, rule: RuleLike) -> bool:
    """Whether all collectors of the rule's needs answered, so that an empty table is a fact."""
    states = {status.collector: status.state for status in case.aligned.header.statuses}
    return all(states.get(source) == "ok" for source in rule.sources)


def _absent(rule: RuleLike) -> Rejection:
    source = ", ".join(rule.sources)
    return Rejection(rule.id, rule.absent, 0, 1, "", source, f"there are no {rule.absent}")


def _rank(findings: list[Finding]) -> list[Finding]:
    """Best first by proven share; neighbours whose intervals overlap are named as ties."""
    ranked = sorted(findings, key=lambda one: (-one.share * one.confidence, one.id))
    return [structs.replace(one, tie_with=_ties(one, ranked)) for one in ranked]


def _ties(finding: Finding, ranked: list[Finding]) -> tuple[str, ...]:
    """What else may explain it, by its rule, then what is found beside it and about as large."""
    overlapping = (
        other.id
        for other in ranked
        if other is not finding
        and (other.share_of, other.share_ledger) == (finding.share_of, finding.share_ledger)
        and other.share_low <= finding.share_high
        and finding.share_low <= other.share_high
    )
    return tuple(dict.fromkeys([*finding.tie_with, *overlapping]))


def unexplained_share(case: Case, findings: list[Finding]) -> float:
    """The share of the ledger that is waste or unknown, and charged to no reported cause."""
    reported = {finding.id for finding in findings}
    states = [*sorted(WASTE_STATES), State.QUEUE_WAIT, State.UNSEEN_WAIT, State.UNKNOWN]
    return sum(
        case.ledger.share(state)
        for state in states
        if not EXPLAINED_BY.get(state, _NOTHING) & reported
    )


def give_verdict(case: Case, findings: list[Finding]) -> Verdict:
    """The one answer, in one of five states."""
    lacking = _lacking(case) or ("" if findings else _unseen(case) or _too_brief(case))
    if lacking:
        return Verdict("insufficient", lacking)
    if findings:
        return Verdict("cause", f"{findings[0].title}{_word_ties(findings)}")
    symptom = _symptom(case)
    if symptom:
        return Verdict("unexplained", symptom)
    if _is_idle(case):
        return Verdict("idle", f"Idle: no requests, and its threads do nothing.{_ending(case)}")
    waste = _unexplained_waste(case) or _backlog(case)
    if waste:
        return Verdict("unexplained", waste)
    text = _composition(case) if case.said_slow else _nothing_unusual(case)
    return Verdict("unexplained" if case.said_slow else "healthy", f"{text}{_ending(case)}")


def _word_ties(findings: list[Finding]) -> str:
    """A tie is what cannot be told apart; what is proven too, and as large, is only said to be."""
    proven = {finding.id for finding in findings}
    tied = [name for name in findings[0].tie_with if name not in proven]
    alike = [name for name in findings[0].tie_with if name in proven]
    parts = [f"tied with {', '.join(tied)}"] if tied else []
    if alike:
        parts.append(f"{', '.join(alike)} {'is' if len(alike) == 1 else 'are'} about as large")
    return f" ({'; '.join(parts)})" if parts else ""


def _nothing_unusual(case: Case) -> str:
    """What may be said where nothing was found: less, where much of it was not seen."""
    seen = "Nothing unusual was seen, but"
    if case.hides_peers:
        return f"{seen} who is waited for is not known (see Not checked)."
    if case.requests.counted and not case.requests.timed:
        return f"{seen} its requests could not be counted (see Not checked)."
    unseen = case.ledger.share(State.UNSEEN_WAIT)
    if unseen >= UNSEEN_SHARE:
        return (
            f"{seen} requests spend {to_percent(unseen)} of their time in waits that are not seen "
            "from outside (timers, locks and queues of an event loop)."
        )
    lone = max(
        (one for one in case.peers if not one.has_like),
        key=lambda one: case.share(State.PEER_WAIT, one.peer.name).value,
        default=None,
    )
    share = case.share(State.PEER_WAIT, lone.peer.name).value if lone is not None else 0.0
    if lone is None or share < LONE_PEER_SHARE:
        return "Nothing unusual."
    return (
        f"Nothing unusual. {to_percent(share)} of the time waits for {lone.peer.name}, which has "
        "no like to be held against: --slow if that is too long, --against a run of better days."
    )


def _composition(case: Case) -> str:
    """What the time is made of, largest first: all that can be said of a service called slow."""
    ledger = case.ledger
    shares = sorted(((ledger.share(state), state) for state in STATE_WORDS), reverse=True)
    parts = []
    for share, state in shares[:COMPOSITION_LIMIT]:
        if share >= COMPOSITION_MIN:
            first = next(iter(ledger.by_culprit(state)), "")
            charged = f" (mostly {first})" if first else ""
            parts.append(f"{to_percent(share)} {STATE_WORDS[state]}{charged}")
    whole = "the time of requests" if case.counts_requests else "the busy time of its threads"
    return f"Nothing proves it abnormal; {whole} is {', '.join(parts) or 'nothing'}."


def _ending(case: Case) -> str:
    header = case.aligned.header
    after_s = ended_after_s(header)
    if after_s is not None:
        return f" But the target ended {after_s:.1f} s into the window."
    return f" But it was {header.interrupted}." if header.interrupted else ""


def ended_after_s(header: Header) -> float | None:
    """When the target ended, in seconds after the window's start; None: it did not."""
    gone_ns = header.target.gone_ns
    return None if gone_ns is None else (gone_ns - header.clock.start_ns) / 1e9


def _unseen(case: Case) -> str:
    """The threads' states were refused: silence would not be health."""
    share = case.share(State.UNKNOWN).value
    if share < UNSEEN_SHARE:
        return ""
    return (
        f"{to_percent(share)} of the service's time could not be seen: what was refused, and who "
        "may read it, stands under Not checked."
    )


def _too_brief(case: Case) -> str:
    """Threads that live for one request are seldom met: what requests wait for is not seen."""
    share = case.ledger.share(State.UNSEEN_WAIT)
    first_ns = case.aligned.table("threads").integers("first_seen_ns")
    born = int((first_ns > case.aligned.header.clock.start_ns + BORN_AFTER_NS).sum())
    least = max(BORN_MIN, BORN_PER_ANSWER_MIN * case.requests.answer_count)
    if share < UNSEEN_SHARE or born < least:
        return ""
    return (
        f"{to_percent(share)} of the time of requests could not be seen: they have threads of "
        f"their own ({born} were met), which end before what they wait for is sampled."
    )


def _lacking(case: Case) -> str:
    header = case.aligned.header
    if header.target.kind == "host":
        chosen_by = header.target.chosen_by
        return f"There is no service to judge: {chosen_by or 'none was found on this host'}."
    if not len(case.timeline.ns):
        return "No thread of the target could be sampled."
    if observed_s(header) < WINDOW_MIN_S:
        return f"Only {observed_s(header):.1f} s were observed; {WINDOW_MIN_S:.0f} s is the least."
    return ""


def observed_s(header: Header) -> float:
    """How long the target was observed: the window, less when it ended before."""
    after_s = ended_after_s(header)
    return (header.clock.end_ns - header.clock.start_ns) / 1e9 if after_s is None else after_s


def _symptom(case: Case) -> str:
    """Stopped, or requests are there and none is answered: that is never health."""
    stopped = float(case.timeline.ns[case.timeline.states() == State.STOPPED].sum())
    stopped_share = stopped / max(float(case.timeline.ns.sum()), 1.0)
    if stopped_share >= STOPPED_SHARE:
        return (
            f"The process was stopped for {to_percent(stopped_share)} of the window (SIGSTOP or a "
            f"debugger): kill -CONT {case.aligned.header.target.main_pid} lets it go on."
        )
    requests = case.requests
    waiting = {
        "requests in flight": float(requests.in_flight.mean()),
        "sockets with unread bytes": float(requests.unread.mean()),
        "connections in the accept queue": float(requests.accept_queue.mean()),
    }
    present = [f"{mean:.1f} {what}" for what, mean in waiting.items() if mean >= 0.05]
    if present and requests.answer_count < 1:
        return f"No answer left the service in the window, with {' and '.join(present)}."
    return ""


def _is_idle(case: Case) -> bool:
    requests = case.requests
    busy = case.working_ns
    quiet = requests.answer_count < 1 and requests.in_flight.mean() < IDLE_IN_FLIGHT
    return bool(quiet and busy < IDLE_BUSY_THREADS * case.window_ns)


def _unexplained_waste(case: Case) -> str:
    loud = [
        (state, share)
        for state, share in waste_shares(case)
        if share.value > UNEXPLAINED_SHARE
        and share.low > UNEXPLAINED_LOW
        and not is_slight(case, share)
    ]
    if not loud:
        return ""
    state, share = loud[0]
    spent = f"{to_percent(share.value)} of the time is spent {STATE_WORDS[state]}"
    return f"No cause found: {spent}, reason not proven."


def _backlog(case: Case) -> str:
    """Requests that nobody has read, nearly all of the time: that is never health."""
    axis, unread = case.aligned.axis, case.requests.unread
    blocks = axis.sum_blocks(unread)
    present = float((blocks > 0).mean()) if len(blocks) else 0.0
    if float(unread.mean()) < UNREAD_MIN or present < UNREAD_BLOCKS_MIN:
        return ""
    return (
        f"No cause found: requests lie unread in {unread.mean():.1f} connections on average, in "
        f"{to_percent(present)} of the window."
    )


def is_slight(case: Case, share: Share) -> bool:
    """Whether a large share of nearly nothing: little at any moment, and little for each answer."""
    lost_ns = share.value * case.ledger.total_ns()
    per_answer_ns = lost_ns / max(case.requests.answer_count, 1.0)
    is_little_each = case.requests.answer_count < 1 or per_answer_ns < LOST_PER_ANSWER_NS
    return bool(lost_ns < LOST_MIN * case.window_ns and is_little_each)


def waste_shares(case: Case) -> list[tuple[State, Share]]:
    """The states that are never useful work, with their shares, largest first."""
    states = [*sorted(WASTE_STATES), State.QUEUE_WAIT]
    shares = [(state, case.share(state)) for state in states]
    return sorted(shares, key=lambda one: -one[1].value)
