"""How a report's values are worded, the same in every exporter that people read.

Every function gives printable ASCII of bounded length, whatever the host's names hold.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from perfkit.findings import (
    BudgetRow,
    CostSummary,
    Evidence,
    Finding,
    Growth,
    Reference,
    Rejection,
    Report,
    Skip,
    Window,
)
from perfkit.report.escape import to_printable
from perfkit.units import to_duration, to_number, to_percent, to_text

NAME_LIMIT = 64
NAME_BRIEF_LIMIT = 26
TITLE_LIMIT = 200
SENTENCE_LIMIT = 500
# Below this a cause is only a possibility, and its title says so.
CONFIDENCE_MAY = 0.5
CONFIDENCE_HIGH = 0.8
SHARE_SHOWN_MIN = 0.005
SHARE_ROUNDED_MIN = 0.095
# A state is charged to one culprit by name where that one has this part of it.
MOSTLY_RATIO = 0.8
# From this part of the time on that was not seen, rights are what lacks, not a longer window.
UNSEEN_SHARE = 0.5
# A number that chance leaves open by this much of it is shown with that.
ABOUT_RATIO = 0.1
# Advice that begins so is a command: it is set apart and never wrapped.
COMMAND_PREFIX = "perfkit "
_NAMED = re.compile(r"named with --pid( \(\d+ processes\))?")


def word_name(name: str) -> str:
    """A name from the host, short enough to stand inside a sentence."""
    return to_printable(name, NAME_LIMIT)


def word_sentence(text: str) -> str:
    """A sentence of ours that may quote the host."""
    return to_printable(" ".join(text.split()), SENTENCE_LIMIT)


def word_title(finding: Finding) -> str:
    """The title of a finding, as a mere possibility where confidence is low."""
    title = to_printable(finding.title, TITLE_LIMIT)
    return title if finding.confidence >= CONFIDENCE_MAY else f"May be: {title}"


def word_confidence(confidence: float) -> str:
    """Confidence as a word and a number."""
    high, medium = confidence >= CONFIDENCE_HIGH, confidence >= CONFIDENCE_MAY
    return f"{'high' if high else 'medium' if medium else 'low'} {confidence:.2f}"


def word_explained(finding: Finding) -> str:
    """Which part of which time the cause explains, with its interval."""
    if finding.share_of == "excess":
        whole = "the added time"
    elif finding.share_ledger == "requests":
        whole = "the time of requests in flight"
    else:
        whole = "the busy time of the serving threads"
    # As exact as the interval lets it be.
    digits = 0 if finding.share >= SHARE_ROUNDED_MIN else 1
    shares = (finding.share, finding.share_low, finding.share_high)
    share, low, high = (f"{100 * one:.{digits}f}" for one in shares)
    return f"{share} % of {whole} (90 % interval {low} to {high} %)"


def word_metric(metric: str) -> str:
    """What a number measures; of several words, names of the host among them stay as they are."""
    return to_printable(metric if " " in metric else metric.replace("_", " "), TITLE_LIMIT)


def word_evidence(evidence: Evidence) -> str:
    """A measured number with what was expected beside it."""
    name = word_metric(evidence.metric)
    unit = to_printable(evidence.unit, NAME_LIMIT)
    words = f"{name} {to_text(evidence.observed, unit)}"
    if evidence.expected is None:
        return words
    return f"{words} (expected {to_text(evidence.expected, unit)})"


def word_sources(evidence: Iterable[Evidence]) -> list[str]:
    """Where the numbers are from, each source once."""
    return list(dict.fromkeys(to_printable(one.source, TITLE_LIMIT) for one in evidence))


def word_tie(finding: Finding, causes: Iterable[Finding]) -> str:
    """What else may explain it, and what is proven beside it and as large; "" where neither is."""
    proven = {cause.id for cause in causes}
    rivals = [word_name(name) for name in finding.tie_with if name not in proven]
    equals = [word_name(name) for name in finding.tie_with if name in proven]
    parts = []
    if rivals:
        parts.append(f"cannot be told apart from {join_words(rivals)}")
    if equals:
        parts.append(f"is about as large as {join_words(equals)}")
    return ", and ".join(parts)


def word_rejection(rejection: Rejection, *, brief: bool = False) -> str:
    """A cause that was ruled out and the number that does so; at length also what that means."""
    number = to_text(rejection.observed, to_printable(rejection.unit, NAME_LIMIT))
    if brief and rejection.unit:
        return f"{word_name(rejection.id)} {number}"
    why = f": {word_sentence(rejection.why)}" if rejection.why else ""
    return f"{word_name(rejection.id)} ({word_metric(rejection.metric)} {number}{why})"


def word_skip(skip: Skip, *, brief: bool = False) -> str:
    """What could not be seen, why, and what would show it."""
    why = "" if brief else f": {word_sentence(skip.why)}"
    grant = f" (needs {word_sentence(skip.grant)})" if skip.grant else ""
    return f"{word_name(skip.what)}{why}{grant}"


def word_budget_row(row: BudgetRow) -> str:
    """One state, whom it is charged to, and its share."""
    words = [*to_printable(row.state, NAME_LIMIT).split(), *word_name(row.culprit).split()]
    # "waiting for a lock" of "lock 7f23" is a wait for a lock 7f23.
    said = [word for place, word in enumerate(words) if not place or word != words[place - 1]]
    return f"{' '.join(said)} {to_percent(row.share)}"


def word_budget(rows: tuple[BudgetRow, ...]) -> list[str]:
    """Where the time went, row by row, largest first."""
    ranked = sorted(rows, key=lambda row: -row.share)
    return [word_budget_row(row) for row in ranked if row.share >= SHARE_SHOWN_MIN]


def word_states(rows: tuple[BudgetRow, ...], *, brief: bool = False) -> list[str]:
    """Where the time went, state by state, largest first.

    A state names whom it is charged to where that is one, or mostly one, else how many they are;
    in brief it names nobody.
    """
    states: dict[str, list[BudgetRow]] = {}
    for row in rows:
        states.setdefault(row.state, []).append(row)
    summed = []
    for state, members in states.items():
        share = sum(row.share for row in members)
        culprit = "" if brief else _charge(members, share)
        summed.append(BudgetRow(state, culprit, 0.0, share))
    return word_budget(tuple(summed))


def _charge(members: list[BudgetRow], share: float) -> str:
    """Whom the rows of one state are charged to; the share beside it is that of them all."""
    first = max(members, key=lambda row: row.share)
    if first.share < MOSTLY_RATIO * share:
        return f"({len(members)} of them)"
    name = to_printable(first.culprit, NAME_BRIEF_LIMIT)
    is_all = not name or to_percent(first.share) == to_percent(share)
    return name if is_all else f"(mostly {name})"


def word_load(report: Report) -> str:
    """What the service was doing, in a few numbers; only those that were measured."""
    budget, places = report.budget, report.target.listening
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    words = []
    if budget.answers_per_second is not None:
        words.append(f"{to_number(budget.answers_per_second)} answers/s")
    error = budget.in_flight_error_ratio or 0.0
    about = "about " if error >= ABOUT_RATIO else ""
    if budget.in_flight_mean is not None:
        words.append(f"{about}{to_number(budget.in_flight_mean)} in flight")
    if budget.latency_mean_ms is not None:
        known = f" (+-{100 * error:.0f} %)" if about else ""
        words.append(f"{about}{to_duration(budget.latency_mean_ms / 1e3)} mean{known}")
    if budget.busy_threads_mean is not None and budget.in_flight_mean is None:
        most = "at most " if _is_unseen(report) else ""
        words.append(f"{most}{to_number(budget.busy_threads_mean)} busy threads")
    place = f"{word_name(places[0])}{more}: " if places else ""
    return place + ", ".join(words)


def _is_unseen(report: Report) -> bool:
    """Whether it is unknown, for most of the time, what the threads do."""
    rows = report.budget.threads
    return sum(row.share for row in rows if row.state == "unknown") >= UNSEEN_SHARE


def word_window(window: Window) -> str:
    """The window, and how much of it there is where it was cut short."""
    length = f"{window.seconds:.1f} s"
    if window.interrupted:
        length = f"based on {window.seconds:.1f} of {window.requested_s:g} s"
    instant = to_printable(window.start, NAME_LIMIT)
    return f"{length} from {instant[:10]} {instant[11:19]}Z"


def word_target(report: Report) -> str:
    """What was looked at."""
    target = report.target
    if target.kind == "host":
        return "the host, no service"
    count = len(target.pids)
    processes = f", {count} processes" if count > 1 else ""
    return f"{word_name(target.name)} (pid {target.pid}{processes})"


def word_choice(report: Report) -> str:
    """How the target was chosen; "" where the user named it and nothing else is to be said."""
    chosen_by = word_sentence(report.target.chosen_by)
    # How many processes it has stands in the line of the target.
    return "" if _NAMED.fullmatch(chosen_by) else chosen_by


def list_notes(report: Report) -> list[str]:
    """Everything that limits the answer, a note each; what the user asked to compare comes first.

    Each note is whole sentences, so that a list of them can be cut between two.
    """
    notes = [word_reference(one) for one in report.references]
    # Runs that were asked for stand before the window's own fast part.
    asked_count = sum(one.kind == "run" for one in report.references)
    notes += [word_sentence(note) for note in report.footnotes]
    if report.unexplained_share >= SHARE_SHOWN_MIN:
        share = to_percent(report.unexplained_share)
        notes.insert(
            asked_count, f"{share} of the time is lost or unseen, and charged to no cause."
        )
    return notes


def word_reference(reference: Reference) -> str:
    """What requests take longer for than in a reference, or why that cannot be said."""
    limits = "; ".join(word_sentence(note) for note in reference.notes)
    name = word_name(reference.name)
    if reference.latency_ms is None or reference.reference_latency_ms is None:
        return f"Not compared with run {name}: {limits}."
    now, then = (
        to_duration(one / 1e3) for one in (reference.latency_ms, reference.reference_latency_ms)
    )
    where = f"In the slow {to_percent(reference.slow_share)} of the window"
    beside = f"against run {name}" if reference.kind == "run" else where
    took = f"requests took {now} instead of {then}"
    head = f"{took}, {beside}" if reference.kind == "run" else f"{beside} {took}"
    more = join_words([word_growth(one) for one in reference.grown[:3]])
    sentences = [f"{head[:1].upper()}{head[1:]}: {more or 'nothing grew beyond noise'}."]
    if reference.is_load:
        sentences.append("It was asked more; each request costs what it did.")
    if limits:
        sentences.append(f"But {limits}.")
    return " ".join(sentences)


def word_growth(growth: Growth) -> str:
    """By how much one part of a request grew."""
    more = to_duration((growth.observed_ms - growth.reference_ms) / 1e3)
    charged = f" {word_name(growth.culprit)}" if growth.culprit else ""
    return f"{more} more {to_printable(growth.state, NAME_LIMIT)}{charged}"


def word_run(report: Report) -> str:
    """The name under which the run can be read again."""
    return to_printable(report.run, SENTENCE_LIMIT) or "not saved"


def word_cost(cost: CostSummary) -> str:
    """What perfkit itself used."""
    percent = to_percent(cost.cpu_percent_of_core / 100)
    return f"cost {percent} of one core, {to_text(cost.memory_peak_mb * 1e6, 'bytes')}"


def is_command(advice: str) -> bool:
    """Whether a fix or a check is one command; anything of several lines is prose.

    So no name from the host, whatever newlines it holds, can put a command before the reader.
    """
    return advice.startswith(COMMAND_PREFIX) and "\n" not in advice


def next_commands(report: Report) -> list[str]:
    """The commands that take the reader further, as they can be pasted."""
    commands = [f"perfkit explain {word_name(finding.id)}" for finding in report.causes[:1]]
    place = shlex.quote(report.target.reached_as)
    is_there = report.target.pid and report.target.ended_after_s is None
    pid = f" --pid {report.target.pid}" if is_there else ""
    is_refused = report.target.kind == "host" or _is_unseen(report)
    if report.verdict.state == "insufficient" and is_refused:
        commands.append(f"perfkit doctor {place}{pid}")
    elif report.verdict.state in ("unexplained", "insufficient"):
        commands.append(f"perfkit diagnose {place}{pid} --seconds 30")
    elif report.verdict.state != "cause":
        commands.append(f"perfkit diagnose {place}{pid}")
    if report.run:
        commands.append(f"perfkit report {shlex.quote(word_run(report))} --to markdown")
    return commands


def join_words(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
