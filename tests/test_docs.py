"""What exists is documented, and what is documented exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from source_tree import ROOT

from perfkit import discover
from perfkit.cli.main import main

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
THINGS = [
    *(("causes.md", name) for name in discover.load_all("perfkit.analysis.rules", "RULE")),
    *(("collectors.md", name) for name in discover.load_all("perfkit.collectors", "COLLECTOR")),
    *(("formats.md", name) for name in discover.load_all("perfkit.export", "EXPORTER")),
    *(("cli.md", f"perfkit {name}") for name in discover.load_all("perfkit.cli", "COMMAND")),
]
EXAMPLES = sorted(
    {
        line.split("#")[0].split("|")[0].strip()
        for page in PAGES
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.M | re.S)
        for line in block.splitlines()
        if re.match(r"perfkit [a-z]", line) and "COMMAND" not in line
    }
)


@pytest.mark.parametrize(("page", "name"), THINGS)
def test_thing_is_documented(page: str, name: str) -> None:
    """Every cause, collector, format and command has its row or section."""
    text = (DOCS / page).read_text()

    assert re.search(rf"^(## {name}\b|\| `{name}` \|)", text, re.M)


@pytest.mark.parametrize(("page", "name"), THINGS)
def test_readme_leads_to_every_page(page: str, name: str) -> None:
    """A reader who starts at the README finds the page."""
    assert f"(docs/{page})" in (ROOT / "README.md").read_text()


def test_readme_names_every_cause() -> None:
    """The README lists what perfkit looks for, all of it."""
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.M))

    assert listed == set(discover.load_all("perfkit.analysis.rules", "RULE"))


def test_causes_page_has_no_cause_that_is_not_checked() -> None:
    """Nobody reads of a cause that this version does not look for."""
    told = set(re.findall(r"^## (\w+)$", (DOCS / "causes.md").read_text(), re.M))

    assert told == set(discover.load_all("perfkit.analysis.rules", "RULE"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_one_that_perfkit_has(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every perfkit command in the documentation is parsed by the command line."""
    arguments = shlex.split(example)[1:]

    code = main([*arguments, "--help"])

    assert (code, capsys.readouterr().err) == (0, "")


def test_documentation_has_examples() -> None:
    """The check above has something to check."""
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_leads_somewhere(page: Path) -> None:
    """Every relative link of the documentation leads to a file."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "path", sorted((DOCS / "decisions").glob("*.md")), ids=lambda path: path.stem
)
def test_decision_has_number_and_cost(path: Path) -> None:
    """A decision says its number, what led to it, what was decided and what it costs."""
    text = path.read_text()

    assert text.startswith(f"# {path.name[:4]}: ")
    assert [
        part for part in ("Context", "Decision", "Cost") if part.lower() not in text.lower()
    ] == []


def test_decisions_have_numbers_of_their_own() -> None:
    """No two decisions share a number."""
    numbers = [path.name[:4] for path in (DOCS / "decisions").glob("*.md")]

    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_has_one_sentence_a_line(page: Path) -> None:
    """A changed sentence is a changed line."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    prose = [line for line in text.splitlines() if not re.match(r"[|#]|- |\d+\. ", line)]

    assert [line for line in prose if re.search(r"[a-z)`]\. [A-Z]", line)] == []
