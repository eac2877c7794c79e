"""Every format, for every state of the verdict, and for a host that names everything hostilely."""

from __future__ import annotations

import io
import json
import math
import re
import shlex
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace
from reports import CAUSE, EVIL, GIL, HEALTHY, HOSTILE, RULED_OUT, STATES, THROTTLED

from perfkit import discover
from perfkit.cli.main import main
from perfkit.export._exporter import Exporter, Look
from perfkit.export._layout import wrap, wrap_items
from perfkit.findings import BudgetRow, Reference, Report
from perfkit.report.words import word_metric

GOLDEN = Path(__file__).parent / "golden"
FOUND: dict[str, Exporter] = discover.load_all("perfkit.export", "EXPORTER")
# Those of the profile are tested in test_flame.py.
EXPORTERS = {name: exporter for name, exporter in FOUND.items() if exporter.of == "report"}
SCHEMA = json.loads(files("perfkit.report").joinpath("schema.json").read_text())
WIDTHS = (60, 80, 120)
# A screen of 24 lines shows 23 and the prompt.
SCREEN_LINES = 23
# What acts on a terminal or reorders text; everything else is allowed nowhere either.
UNSAFE = re.compile(r"[^\x20-\x7e\n]")
CASES = [(state, width) for state in STATES for width in WIDTHS]

Golden = Callable[[Path, str], None]


def render(name: str, report: Report, **look: Any) -> str:
    """The report in a text format."""
    out = io.StringIO()
    EXPORTERS[name].write(report, out, Look(**look))
    return out.getvalue()


def find_commands(text: str) -> list[str]:
    """The perfkit commands that a report prints."""
    return re.findall(r"^.*?(perfkit (?:diagnose|explain|report|runs|record) .*?)`?$", text, re.M)


@pytest.mark.parametrize(("state", "width"), CASES)
def test_terminal_report_is_as_looked_at(state: str, width: int, golden: Golden) -> None:
    """The report of each state, at each width, is the text that was looked at."""
    text = render("terminal", STATES[state], width=width)

    golden(GOLDEN / f"terminal-{state}-{width}.txt", text)


@pytest.mark.parametrize(("state", "width"), CASES)
def test_terminal_report_is_never_wider_than_the_terminal(state: str, width: int) -> None:
    """No line is wider than the terminal."""
    lines = render("terminal", STATES[state], width=width).splitlines()

    assert [line for line in lines if len(line) > width] == []


@pytest.mark.parametrize("width", [40, 48, 60, 80])
def test_address_in_a_title_is_never_cut(width: int) -> None:
    """On the narrowest screen the peer is read whole, and how sure it is stands below."""
    text = render("terminal", STATES["tie"], width=width)

    assert re.search(r"^ CRIT  127\.0\.0\.1:40123", text, re.M)
    assert "confidence medium 0.60" in text
    prose = [line for line in text.splitlines() if "perfkit report" not in line]
    assert max(map(len, prose)) <= width


@pytest.mark.parametrize("state", STATES)
def test_terminal_report_fits_the_first_screen(state: str) -> None:
    """On 80 x 24 the whole report is seen at once."""
    lines = render("terminal", STATES[state], width=80).splitlines()

    assert len(lines) <= SCREEN_LINES


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_terminal_report_fits_the_first_screen_whatever_it_holds(width: int) -> None:
    """More findings, notes and names than fit are counted, not printed over the screen's edge."""
    report = replace(
        CAUSE,
        causes=(replace(THROTTLED, title="x" * 900, tie_with=("a", "b")), *(GIL,) * 30),
        footnotes=("A note that is long enough to be wrapped twice, if it may be." * 3,) * 20,
        ruled_out=RULED_OUT * 20,
        target=replace(CAUSE.target, chosen_by="chosen for a long reason " * 20),
    )

    lines = render("terminal", report, width=width).splitlines()

    assert len(lines) <= SCREEN_LINES


def test_share_is_not_cut_off_behind_a_long_name() -> None:
    """Where a state and whom it is charged to need more than the line, the share stays."""
    rows = (
        BudgetRow("waiting for a peer", "a socket that is not TCP", 9.0, 0.9),
        *(BudgetRow(f"state {number}", "", 0.2, 0.02) for number in range(5)),
    )
    report = replace(CAUSE, budget=replace(CAUSE.budget, requests=rows, threads=rows))

    text = render("terminal", report, width=60)

    assert "requests: waiting for a peer 90 %, " in " ".join(text.split())


def test_answer_to_against_stands_first_and_whole() -> None:
    """What was asked for with --against is not cut off behind other notes."""
    notes = ("Not the same service", "another CPU model, so times are not alike")
    reference = Reference("run", "20261123-031240-shard-7-4821", is_usable=False, notes=notes)
    lost = "threads: 747 of 1026 ticks missed, 27 Hz instead of 100."

    text = render("terminal", replace(CAUSE, references=(reference,), footnotes=(lost,)), width=80)

    words = " ".join(text.split())
    assert f"Notes Not compared with run {reference.name}: {notes[0]}; {notes[1]}." in words


@pytest.mark.parametrize("state", STATES)
def test_terminal_report_ends_with_verdict_saved_and_next(state: str) -> None:
    """The last lines, which a terminal shows, are the verdict, the run and the next command."""
    labels = [line.split(" ")[0] for line in render("terminal", STATES[state]).splitlines()]

    order = [label for label in labels if label in ("Verdict", "Saved", "Next")]
    assert order == ["Verdict", "Saved", "Next"]
    assert set(labels[labels.index("Next") + 1 :]) <= {""}


@pytest.mark.parametrize("state", STATES)
def test_terminal_report_says_where_the_time_goes(state: str) -> None:
    """A healthy or unexplained report says where the time goes too."""
    text = render("terminal", STATES[state])

    assert "\nTime goes to  " in text


@pytest.mark.parametrize("state", STATES)
def test_terminal_report_names_each_rejection_with_its_number(state: str) -> None:
    """Each cause that was ruled out stands there with the number that does so."""
    text = " ".join(render("terminal", STATES[state], verbose=True).split())

    missing = [
        one.id for one in STATES[state].ruled_out if not re.search(rf"{one.id} \(.*?\d.*?\)", text)
    ]
    assert missing == []


def test_verbose_report_leaves_nothing_out() -> None:
    """With -v every finding is opened and nothing is counted instead of shown."""
    text = render("terminal", CAUSE, verbose=True)

    assert "(-v)" not in text
    assert text.count("  fix  ") == len(CAUSE.causes)


def test_colour_only_adds_to_the_words() -> None:
    """Without its escape codes the coloured report is the plain one."""
    coloured = render("terminal", CAUSE, colour=True)
    plain = render("terminal", CAUSE)

    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert coloured != plain
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("name", sorted(EXPORTERS))
@pytest.mark.parametrize("state", STATES)
def test_format_is_ascii(name: str, state: str) -> None:
    """No format needs more than ASCII, so that tickets and consoles show it right."""
    text = render(name, STATES[state])

    assert UNSAFE.findall(text) == []


@pytest.mark.parametrize("name", sorted(EXPORTERS))
def test_hostile_names_are_escaped_in_every_format(name: str) -> None:
    """No control character, escape sequence or direction mark of the host gets through."""
    text = render(name, EVIL)

    assert UNSAFE.findall(text) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_names_cannot_forge_a_line(width: int) -> None:
    """A newline in a name begins no line of the report."""
    lines = render("terminal", EVIL, width=width, verbose=True).splitlines()

    assert [line for line in lines if line.startswith("Saved    forged")] == []
    assert len([line for line in lines if line.startswith("Saved")]) == 1


def test_hostile_names_hold_no_markup_in_markdown() -> None:
    """A name can put no link, tag, mention or heading into the document."""
    outside_code = re.sub(r"(`+) .*? \1", "", render("markdown", EVIL))

    assert "](http" not in outside_code.replace("\\]", "")
    assert "<b>" not in outside_code
    assert "@all" not in outside_code
    assert [line for line in outside_code.splitlines() if line.startswith("# ")] == []


def test_hostile_names_break_no_table_in_markdown() -> None:
    """Every row of a table has the cells of its head."""
    rows = [line for line in render("markdown", EVIL).splitlines() if line.startswith("|")]

    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert counts == {5}


@pytest.mark.parametrize("state", STATES)
def test_markdown_report_is_as_looked_at(state: str, golden: Golden) -> None:
    """The Markdown of each state is the text that was looked at."""
    golden(GOLDEN / f"markdown-{state}.md", render("markdown", STATES[state]))


@pytest.mark.parametrize("state", STATES)
def test_json_report_keeps_the_contract(state: str) -> None:
    """The JSON of each state is valid by the schema in the package."""
    document = json.loads(render("json", STATES[state]))

    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_json_schema_is_a_schema() -> None:
    """The schema in the package is one that a validator accepts."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_json_report_is_as_agreed(golden: Golden) -> None:
    """Keys, their order and their nesting are those of the contract."""
    golden(GOLDEN / "json-cause.json", render("json", CAUSE))


def test_json_keeps_hostile_names_as_facts() -> None:
    """Escaping loses nothing: a program reads the very name that the host gave."""
    document = json.loads(render("json", EVIL))

    assert document["host"] == HOSTILE


def test_json_has_null_for_numbers_that_are_none() -> None:
    """A number that could not be computed is null, which every JSON reader takes."""
    broken = replace(THROTTLED.evidence[0], observed=math.nan, expected=math.inf)
    report = replace(CAUSE, causes=(replace(THROTTLED, evidence=(broken,)),))

    document = json.loads(render("json", report))

    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert document["causes"][0]["evidence"][0]["observed"] is None


@pytest.mark.parametrize("state", ["healthy", "idle", "unexplained", "insufficient"])
def test_json_has_causes_only_where_one_was_found(state: str) -> None:
    """Causes are empty unless the verdict is a cause; the budget is there in any case."""
    document = json.loads(render("json", STATES[state]))

    assert document["causes"] == []
    assert document["budget"]["threads"] is not None


COMMANDS = sorted(
    {
        command
        for path in GOLDEN.glob("*.*")
        if path.suffix in (".txt", ".md")
        for command in find_commands(path.read_text())
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_printed_command_is_one_that_perfkit_has(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every perfkit command that a report prints is parsed by the command line, options and all."""
    arguments = shlex.split(command)[1:]

    code = main([*arguments, "--help"])

    assert code == 0
    assert f"Usage: perfkit {arguments[0]}" in capsys.readouterr().out


def test_reports_print_commands() -> None:
    """The check above has something to check."""
    assert {command.split()[1] for command in COMMANDS} == {"diagnose", "explain", "report"}


def test_command_that_is_too_long_is_not_broken() -> None:
    """A command wider than the terminal stands alone on a line, whole, so that it can be pasted."""
    long = "/srv/" + "x" * 100 + ".capture"

    lines = render("terminal", replace(HEALTHY, run=long), width=60).splitlines()

    assert f"perfkit report {long} --to markdown" in lines


def test_wrapping_keeps_number_and_unit_together() -> None:
    """A number is not torn from its unit at the end of a line."""
    lines = wrap("aaaa bbbb 12.5 % cccc", 15)

    assert lines == ["aaaa bbbb", "12.5 % cccc"]


def test_list_counts_what_does_not_fit() -> None:
    """What is left out is counted, so that nobody takes a part for the whole."""
    lines = wrap_items(["first", "second", "third", "fourth"], 25, 1)

    assert lines == ["first, and 3 more (-v)"]


def test_list_of_one_long_entry_counts_the_rest() -> None:
    """An entry that does not fit is cut, and the others are still counted."""
    lines = wrap_items(["an entry of many words", "second", "third"], 30, 1)

    assert lines == ["an entry ..., and 2 more (-v)"]


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("gil_wait_seconds", "gil wait seconds"),
        ("CPU of a.b_c now", "CPU of a.b_c now"),
    ],
)
def test_metric_keeps_the_names_that_it_quotes(metric: str, words: str) -> None:
    """A metric's own name is spelled out; a function's name within a wording is left as it is."""
    assert word_metric(metric) == words


def test_wrapping_counts_columns_not_characters() -> None:
    """Characters that take two columns wrap in time, also in a word longer than the line."""
    lines = wrap("推薦 推薦推薦推薦推薦推薦 ok", 10)

    assert lines == ["推薦", "推薦推薦推", "薦推薦推薦", "ok"]
