"""The report as Markdown, for the postmortem: cause first, then how we know, then the gaps.

Whatever the host named itself stays text: no link, no mention, no markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any
from urllib.parse import quote

from perfkit.export._exporter import Exporter, Look
from perfkit.findings import BudgetRow, Finding, Report
from perfkit.report import words
from perfkit.report.escape import to_code, to_markdown
from perfkit.units import to_duration, to_percent, to_text


def write(report: Report, out: IO[Any], look: Look) -> None:
    """Writes one document in GitHub's Markdown."""
    picture = f"![flame graph]({quote(look.picture)})" if look.picture else ""
    blocks = [*_head(report), *_cause(report), picture, *_account(report), *_closing(report)]
    out.write("\n\n".join(block for block in blocks if block) + "\n")


def _head(report: Report) -> Iterable[str]:
    host, window = words.word_name(report.host), words.word_window(report.window)
    verdict = words.word_sentence(report.verdict.text)
    yield f"## {to_markdown(host)}: {to_markdown(verdict)} ({to_markdown(window)})"
    yield f"{to_markdown(words.word_target(report))}. {to_markdown(words.word_load(report))}."


def _cause(report: Report) -> Iterable[str]:
    if not report.causes:
        return
    first = report.causes[0]
    sure = words.word_confidence(first.confidence)
    yield (
        f"**Cause** (confidence {sure}): {to_markdown(words.word_title(first))}. "
        f"This explains {to_markdown(words.word_explained(first))}."
    )
    tie = words.word_tie(first, report.causes)
    if tie:
        yield f"It {to_markdown(tie)}."
    yield _evidence_table(first)
    if first.against:
        yield f"**Against it.** {_listed(words.word_evidence(one) for one in first.against)}."
    yield _advice("Fix", first.fix)
    yield _advice("Verify", first.verify)


def _evidence_table(finding: Finding) -> str:
    rows = ["| | observed | expected | source |", "|---|--:|--:|---|"]
    for one in finding.evidence:
        expected = "" if one.expected is None else to_text(one.expected, one.unit)
        cells = (words.word_metric(one.metric), to_text(one.observed, one.unit), expected)
        shown = [to_markdown(words.word_sentence(cell)) for cell in (*cells, one.source)]
        rows.append(f"| {' | '.join(shown)} |")
    return "\n".join(rows)


def _advice(label: str, text: str) -> str:
    if not text:
        return ""
    if words.is_command(text):
        return f"**{label}.** {to_code(words.word_sentence(text))}"
    return f"**{label}.** {to_markdown(words.word_sentence(text))}"


def _account(report: Report) -> Iterable[str]:
    budget = report.budget
    for title, rows in (("requests in flight", budget.requests), ("threads", budget.threads)):
        if rows:
            yield _time_table(title, rows)
    yield f"**Ruled out.** {_listed(words.word_rejection(one) for one in report.ruled_out)}."
    yield f"**Not checked.** {_listed(words.word_skip(one) for one in report.not_checked)}."
    notes = " ".join(words.list_notes(report))
    yield f"**Notes.** {to_markdown(notes)}" if notes else ""


def _time_table(title: str, rows: tuple[BudgetRow, ...]) -> str:
    lines = [f"| where the time of {title} goes | charged to | time | share |", "|---|---|--:|--:|"]
    for row in rows:
        cells = (to_markdown(words.word_name(row.state)), to_markdown(words.word_name(row.culprit)))
        lines.append(f"| {' | '.join((*cells, to_duration(row.seconds), to_percent(row.share)))} |")
    return "\n".join(lines)


def _listed(items: Iterable[str]) -> str:
    return "; ".join(to_markdown(item) for item in items) or "nothing"


def _closing(report: Report) -> Iterable[str]:
    lines = []
    for finding in report.causes[1:]:
        sure = words.word_confidence(finding.confidence)
        lines.append(
            f"- {finding.severity.upper()} {to_markdown(words.word_title(finding))} "
            f"(confidence {sure}): {to_markdown(words.word_explained(finding))}."
        )
    rates = ", ".join(
        f"{words.word_name(name)} {to_text(hertz, 'hertz')}"
        for name, hertz in sorted(report.cost.rates.items())
    )
    lines.append(
        f"- perfkit {to_markdown(report.perfkit_version)}, run {to_code(words.word_run(report))}, "
        f"{words.word_cost(report.cost)}" + (f", sampled {to_markdown(rates)}." if rates else ".")
    )
    summary = f"Other findings ({max(0, len(report.causes) - 1)}) and provenance"
    body = "\n".join(lines)
    yield f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


EXPORTER = Exporter("markdown", suffix=".md", binary=False, write=write)
