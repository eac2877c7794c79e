"""Every rule, by discovery: fires on its captures, is silent on near misses and healthy ones.

The captures in tests/captures/ are recorded from real runs (tests/record_captures.py).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from record_captures import SIZE_LIMIT_BYTES

from perfkit import codec, discover
from perfkit.analysis import analyse
from perfkit.findings import Report
from perfkit.model import Capture

FOLDER = Path(__file__).parent / "captures"
PACKAGE = "perfkit.analysis.rules"
RULES = discover.names(PACKAGE)
CAPTURES = sorted(path.stem for path in FOLDER.glob("*.perfkit"))
FIRING = [name for name in CAPTURES if ".fires." in name]
SILENT = [name for name in CAPTURES if ".fires." not in name]


@cache
def read(name: str) -> Capture:
    """A capture by its name."""
    return codec.decode((FOLDER / f"{name}.perfkit").read_bytes())


@cache
def diagnose(name: str) -> Report:
    """The report on a capture; captures do not change, so each is analysed once."""
    return analyse(read(name))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["fires", "near_miss"])
def test_every_rule_has_a_firing_and_a_near_miss_capture(rule: str, kind: str) -> None:
    """No rule without a real run that it fires on, and one that it must be silent on."""
    assert [name for name in CAPTURES if name.startswith(f"{rule}.{kind}.")]


@pytest.mark.parametrize("name", FIRING)
def test_rule_fires_first_on_its_capture(name: str) -> None:
    """The cause that was switched on is the first one."""
    report = diagnose(name)

    assert report.verdict.state == "cause", report.verdict
    assert report.causes[0].id == name.partition(".")[0]


@pytest.mark.parametrize("name", SILENT)
def test_no_rule_fires_on_near_misses_and_healthy_captures(name: str) -> None:
    """A mechanism without time is a footnote, and a healthy service is called healthy."""
    report = diagnose(name)

    assert (report.verdict.state, report.causes) == ("healthy", ()), report.verdict


@pytest.mark.parametrize("name", SILENT)
def test_every_silent_rule_says_by_which_number(name: str) -> None:
    """On a healthy service each rule is ruled out, or its source gave nothing in that run."""
    report, header = diagnose(name), read(name).header
    gave = {status.collector for status in header.statuses if status.state == "ok"}
    left = set(RULES) - {rejection.id for rejection in report.ruled_out}
    sources = {one: set(discover.load(PACKAGE, one, "RULE").sources) for one in left}

    assert left <= {skip.what for skip in report.not_checked}
    assert [one for one, wanted in sources.items() if wanted <= gave] == []


# Of these a number below its limit always rules out; of some others one above it may.
BY_LACK = {rule for rule in RULES if discover.load(PACKAGE, rule, "RULE").family == "cpu"}
BY_LACK = (BY_LACK - {"cpu_throttled"}) | {"downstream_slow", "hot_function"}


@pytest.mark.parametrize("name", [name for name in CAPTURES if "fd_exhausted" not in name])
def test_ruled_out_causes_show_a_number_that_rules_them_out(name: str) -> None:
    """No cause is ruled out by a share of 40 % where 15 % would do."""
    against = [one for one in diagnose(name).ruled_out if one.id in BY_LACK]

    assert [one for one in against if one.observed > one.limit] == []


@pytest.mark.parametrize("name", CAPTURES)
def test_captures_are_small_and_redacted(name: str) -> None:
    """No capture is large, and none tells which machine it was recorded on."""
    capture = read(name)

    assert (FOLDER / f"{name}.perfkit").stat().st_size <= SIZE_LIMIT_BYTES
    assert capture.header.host == "host-1"
    assert not [text for text in capture.strings if "site-packages" in text]
