"""How numbers, names and findings are worded."""

from __future__ import annotations

import math
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from reports import CAUSE, GIL, HEALTHY, HOSTILE, SLOW_PEER, STATES, THROTTLED

from perfkit.findings import BudgetRow, Report, Skip
from perfkit.report import words
from perfkit.report.escape import to_code, to_markdown, to_printable
from perfkit.units import to_text

QUANTITIES = [
    (0.0123, "seconds", "12.3 ms"),
    (1.1, "s", "1.10 s"),
    (0.9999, "seconds", "1.00 s"),
    (0.00000123, "seconds", "1.23 us"),
    (25.3, "ms", "25.3 ms"),
    (1234.5, "seconds", "1234 s"),
    (0, "ns", "0 s"),
    (0.212, "s/s", "212 ms/s"),
    (0.38, "ratio", "38 %"),
    (0.00012, "ratio", "0.012 %"),
    (0.00001, "ratio", "0 %"),
    (1.0, "ratio", "100 %"),
    (1.2e9, "bytes", "1.20 GB"),
    (999.9, "bytes", "1.00 kB"),
    (512, "bytes", "512 B"),
    (4.4e9, "hertz", "4.40 GHz"),
    (76, "count", "76"),
    (41820.5, "", "41800"),
    (1.08, "x", "x1.08"),
    (6.7, "CPUs", "6.70 CPUs"),
    (3, "polls", "3 polls"),
    (1e-6, "", "1.00e-06"),
    (None, "s", "not known"),
    (math.nan, "s", "not known"),
    (math.inf, "CPUs", "no limit"),
    (-math.inf, "CPUs", "not known"),
]


@pytest.mark.parametrize(("value", "unit", "expected"), QUANTITIES)
def test_quantity_is_worded_with_three_digits_and_its_unit(
    value: float | None, unit: str, expected: str
) -> None:
    """A number is written with three digits, an SI prefix and a space before its unit."""
    text = to_text(value, unit)

    assert text == expected


@given(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["seconds", "bytes", "ratio", "x", "s/s", "", "CPUs", "ms"]),
)
def test_quantity_never_fails_to_be_worded(value: float, unit: str) -> None:
    """Any number has a wording, and it is one line."""
    text = to_text(value, unit)

    assert text and "\n" not in text


@given(st.text())
def test_untrusted_text_becomes_one_line_of_ascii(text: str) -> None:
    """Whatever a host names itself, it prints as one line of printable ASCII."""
    safe = to_printable(text)

    assert all(" " <= char <= "~" for char in safe)


@given(st.text(), st.integers(min_value=3, max_value=50))
def test_untrusted_text_is_cut_to_its_limit(text: str, limit: int) -> None:
    """No name is longer than the room it has."""
    safe = to_printable(text, limit)

    assert len(safe) <= limit


@given(st.text())
def test_printable_text_is_printed_as_it_stands(text: str) -> None:
    """Escaping twice changes nothing, so that no layer has to know of the others."""
    once = to_printable(text)

    assert to_printable(once) == once


def test_hostile_text_is_named_not_obeyed() -> None:
    """Escapes, newlines and direction marks are shown as what they are."""
    safe = to_printable(HOSTILE)

    assert safe.startswith(r"\x1b[31mred\x1b]0;title\x07\r\nSaved    forged\u202e\u2066")


def test_markdown_of_hostile_text_holds_no_markup() -> None:
    """A name can put no link, mention, tag or table cell into a document."""
    text = to_markdown("|x| [a](http://e.example) <b> @all `c` _d_ *e* www.f.example")

    assert text == (
        r"\|x\| \[a\](http&#58;//e.example) &lt;b&gt; @<!-- -->all \`c\` \_d\_ \*e\* "
        "www&#46;f.example"
    )


def test_code_span_outlasts_backticks() -> None:
    """A code span ends where its text ends, whatever backticks are in it."""
    assert to_code("a``b") == "``` a``b ```"


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.94, "high 0.94"), (0.8, "high 0.80"), (0.6, "medium 0.60"), (0.41, "low 0.41")],
)
def test_confidence_is_a_word_and_a_number(confidence: float, expected: str) -> None:
    """Confidence is worded so that nobody has to know the scale."""
    assert words.word_confidence(confidence) == expected


def test_low_confidence_says_may() -> None:
    """A cause that is not sure is worded as a possibility."""
    assert words.word_title(GIL) == "May be: Thread indexer holds the GIL"


def test_tie_is_worded_as_tie() -> None:
    """What cannot be told apart is said to be so."""
    assert words.word_tie(SLOW_PEER, [SLOW_PEER]) == "cannot be told apart from network_latency"


def test_cause_of_its_own_proof_is_only_as_large() -> None:
    """Two causes that are both proven are told apart; only their shares are alike."""
    finding = replace(SLOW_PEER, tie_with=("network_latency", "gil_contention"))

    assert words.word_tie(finding, [finding, GIL]) == (
        "cannot be told apart from network_latency, and is about as large as gil_contention"
    )


def test_what_no_cause_accounts_for_is_called_lost_or_unseen() -> None:
    """Time that the budget shows as some state is not called unexplained beside it."""
    notes = words.list_notes(CAUSE)

    assert notes == ["2 % of the time is lost or unseen, and charged to no cause."]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "62 % of the time of requests in flight (90 % interval 55 to 68 %)"),
        (
            {"share_ledger": "threads"},
            "62 % of the busy time of the serving threads (90 % interval 55 to 68 %)",
        ),
        ({"share_of": "excess"}, "62 % of the added time (90 % interval 55 to 68 %)"),
        (
            {"share": 0.062, "share_low": 0.055, "share_high": 0.07},
            "6.2 % of the time of requests in flight (90 % interval 5.5 to 7.0 %)",
        ),
    ],
)
def test_share_says_of_what(change: dict[str, object], expected: str) -> None:
    """A share is a part of something that is named, with its interval."""
    finding = replace(THROTTLED, **change)

    assert words.word_explained(finding) == expected


def test_skip_says_why_and_what_would_show_it() -> None:
    """What was not seen comes with the reason and the right that is missing."""
    text = words.word_skip(Skip("sockets", "refused", "CAP_NET_ADMIN"))

    assert text == "sockets: refused (needs CAP_NET_ADMIN)"


def test_choice_that_the_header_tells_is_not_repeated() -> None:
    """The count of processes stands in the line of the target, and costs no line of its own."""
    target = replace(CAUSE.target, chosen_by="named with --pid (3 processes)")

    assert words.word_choice(replace(CAUSE, target=target)) == ""


def test_states_are_summed_and_count_their_culprits() -> None:
    """A state that is spread over many says over how many; one that is mostly one says so.

    So nobody reads the share of all as that of the one who is named.
    """
    rows = (
        BudgetRow("waiting for a lock", "a", 1.0, 0.2),
        BudgetRow("waiting for a lock", "b", 1.0, 0.2),
        BudgetRow("waiting for a peer", "p", 2.0, 0.3),
        BudgetRow("waiting for a peer", "q", 0.1, 0.02),
        BudgetRow("throttled", "/a", 2.0, 0.1),
    )

    assert words.word_states(rows) == [
        "waiting for a lock (2 of them) 40 %",
        "waiting for a peer (mostly p) 32 %",
        "throttled /a 10 %",
    ]


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        ("perfkit diagnose . --pid 1", True),
        ("raise the limit", False),
        ("perfkit explain x\nperfkit diagnose .", False),
        ("move it\nperfkit runs delete last", False),
    ],
)
def test_advice_is_a_command_only_as_a_whole(advice: str, expected: bool) -> None:
    """A newline in a name cannot put a command before the reader."""
    assert words.is_command(advice) is expected


def test_file_with_spaces_is_quoted_in_the_next_command() -> None:
    """The command that is printed can be pasted, also for a file with an odd name."""
    commands = words.next_commands(replace(CAUSE, run="/tmp/my run; x.capture"))

    assert commands[-1] == "perfkit report '/tmp/my run; x.capture' --to markdown"


def test_run_that_was_not_saved_is_not_offered() -> None:
    """Nobody is sent to a run that does not exist."""
    commands = words.next_commands(replace(HEALTHY, run=""))

    assert commands == ["perfkit diagnose . --pid 4821"]


def test_schema_names_every_key_of_the_report() -> None:
    """The JSON Schema in the package and the structs that are printed name the same keys."""
    schema = msgspec.json.decode(files("perfkit.report").joinpath("schema.json").read_bytes())
    generated = msgspec.json.schema(Report)["$defs"]

    shapes = {**schema["$defs"], "Report": schema}
    named = {name: set(shapes[name]["properties"]) for name in generated}
    assert named == {name: set(shape["properties"]) for name, shape in generated.items()}


def test_reports_of_all_states_are_at_hand() -> None:
    """The tests of exporters see every state that a verdict can have."""
    states = {report.verdict.state for report in STATES.values()}

    assert states == {"cause", "healthy", "idle", "unexplained", "insufficient"}
