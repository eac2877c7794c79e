"""The formats of the profile: folded stacks and the flame graph."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace
from reports import CAUSE

from perfkit import codec
from perfkit.analysis.profile import Profile, ProfileFrame, ProfileStack, to_frame
from perfkit.analysis.stacks import Function
from perfkit.cli._show import View, show
from perfkit.cli.main import main
from perfkit.export import folded, svg
from perfkit.export._exporter import Look
from perfkit.export._flame import lay_out

GOLDEN = Path(__file__).parent / "golden"
WITH_STACKS = Path(__file__).parent / "captures" / "cpu_throttled.fires.threads.perfkit"
SPACE = "{http://www.w3.org/2000/svg}"

SERVES = ProfileFrame("threads that serve requests", "", "group")
HANDLE = ProfileFrame("handle", "app.py", "application")
PARSE = ProfileFrame("loads", "__init__.py", "library")
RANK = ProfileFrame("rank", "model.py", "package")
TINY = ProfileFrame("tiny", "app.py", "application")
EVIL = ProfileFrame('</title><script>alert("1")</script>;\x1b[2J\u202e', "a;b.py", "application")

PROFILE = Profile(
    "20260101-000000-host-1",
    "host-1",
    "serve",
    10.0,
    (
        ProfileStack((SERVES, HANDLE), 200_000),
        ProfileStack((SERVES, HANDLE, PARSE), 700_000),
        ProfileStack((SERVES, HANDLE, TINY), 1_000),
        ProfileStack((SERVES, RANK), 1_099_000),
    ),
)
HOSTILE = Profile("", "<host>", "&", 1.0, (ProfileStack((SERVES, EVIL), 5_000),))

Golden = Callable[[Path, str], None]


def render(exporter: Callable[..., None], profile: Profile) -> str:
    """The profile in a format."""
    out = io.StringIO()
    exporter(profile, out, Look())
    return out.getvalue()


def boxes(text: str) -> list[tuple[str, float, float]]:
    """The tooltip, the left edge and the width of each frame of a flame graph."""
    found = []
    for group in ElementTree.fromstring(text).iter(f"{SPACE}g"):
        title, shape = group.find(f"{SPACE}title"), group.find(f"{SPACE}rect")
        assert title is not None and title.text is not None and shape is not None
        found.append((title.text, float(shape.attrib["x"]), float(shape.attrib["width"])))
    return found


@pytest.mark.parametrize("name", ["folded", "svg"])
def test_profile_is_as_looked_at(name: str, golden: Golden) -> None:
    """The text of each format is the one that was looked at."""
    write = {"folded": folded.write, "svg": svg.write}[name]

    golden(GOLDEN / f"profile.{name}", render(write, PROFILE))


def test_flame_graph_boxes_are_as_wide_as_their_time() -> None:
    """A function lies within its caller, and its width is its share of the whole."""
    found = {
        tip.partition(":")[0]: (left, width)
        for tip, left, width in boxes(render(svg.write, PROFILE))
    }

    whole = found["all"][1]
    assert found["handle (app.py)"][1] / whole == pytest.approx(0.4505, abs=0.002)
    assert found["loads (__init__.py)"][1] / whole == pytest.approx(0.35, abs=0.002)
    assert found["loads (__init__.py)"][0] == found["handle (app.py)"][0]


def test_flame_graph_leaves_out_what_is_too_narrow() -> None:
    """No frame is narrower than can be seen."""
    found = boxes(render(svg.write, PROFILE))

    assert [tip for tip, _, width in found if width < svg.LEAST_PX - 1 or "tiny" in tip] == []


def test_flame_graph_merges_equal_callers() -> None:
    """A frame stands once above its caller, whatever lies above it."""
    found = [box.frame for box in lay_out(PROFILE, 0)]

    assert sorted(frame.name for frame in found) == [
        "all", "handle", "loads", "rank", "threads that serve requests", "tiny",
    ]  # fmt: skip


def test_flame_graph_of_very_deep_stacks_is_cut() -> None:
    """A stack of thousands of frames is no reason to fail, or to draw them all."""
    frames = tuple(ProfileFrame(f"f{depth}", "", "application") for depth in range(5_000))

    found = lay_out(replace(PROFILE, stacks=(ProfileStack(frames, 10),)), 0)

    assert 100 < len(found) < 200


@pytest.mark.parametrize("write", [folded.write, svg.write])
def test_profile_of_hostile_names_is_plain_text(write: Callable[..., None]) -> None:
    """No control character, no mark of direction and no markup gets through."""
    text = render(write, HOSTILE)

    assert re.search(r"[^\x20-\x7e\n]", text) is None
    assert write is folded.write or "<script" not in text


def test_flame_graph_of_hostile_names_is_well_formed() -> None:
    """A name full of markup is one frame with that name."""
    (tip,) = [tip for tip, _, _ in boxes(render(svg.write, HOSTILE)) if "script" in tip]

    assert tip.startswith('</title><script>alert("1")</script>;\\x1b[2J\\u202e')


def test_flame_graph_has_no_script_and_loads_nothing() -> None:
    """The picture is a picture."""
    text = render(svg.write, PROFILE)

    assert re.findall(r"<script|href|@import|url\(|\son\w+=", text) == []


def test_folded_line_has_one_separator_for_each_frame() -> None:
    """A semicolon in a name is no border between frames."""
    assert render(folded.write, HOSTILE).count(";") == 1


@pytest.mark.parametrize(
    ("file", "origin"),
    [
        ("/srv/app.py", "application"),
        ("/usr/lib/python3.11/json/__init__.py", "library"),
        ("/venv/lib/python3.11/site-packages/flask/app.py", "package"),
        ("<frozen runpy>", "library"),
    ],
)
def test_frame_tells_where_its_function_comes_from(file: str, origin: str) -> None:
    """The service's own code, what it installed and Python's library are told apart."""
    assert to_frame(Function("f", file)).origin == origin


@pytest.mark.parametrize("name", ["folded", "svg"])
def test_run_without_stacks_says_so_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is drawn of nothing; the reason is given."""
    capture = codec.decode(WITH_STACKS.read_bytes())
    tables = {name: table for name, table in capture.tables.items() if "stack" not in name}
    run = tmp_path / "run.perfkit"
    run.write_bytes(codec.encode(replace(capture, tables=tables)))

    code = main(["report", str(run), "--to", name])

    said = capsys.readouterr()
    assert (code, said.out, "holds no Python stacks" in said.err) == (3, "", True)


@pytest.mark.parametrize(("run", "count"), [("20260101-000000-host-1", 1), ("another", 0)])
def test_markdown_links_the_flame_graph_of_its_own_run(
    tmp_path: Path, run: str, count: int
) -> None:
    """A picture beside the report is linked if it is of the same run, and only then."""
    (tmp_path / "report.svg").write_text(render(svg.write, PROFILE))

    show(replace(CAUSE, run=run), View("markdown", tmp_path / "report.md"))

    assert (tmp_path / "report.md").read_text().count("![flame graph](report.svg)") == count
