"""Profiles with native frames: CPU time, time off the CPUs, wall-clock time, the whole host."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from native_rows import KERNEL, LIBC, PYTHON, SERVER, Native, native_tables
from simulate import MS, RUNNING, Step, make_capture, make_table, simulate_rows

from perfkit.analysis.profile import Profile, ProfileFrame, ProfileStack, make_profile
from perfkit.errors import RunError
from perfkit.export import folded, svg, tree
from perfkit.export._exporter import Look
from perfkit.model import Capture

GOLDEN = Path(__file__).parent / "golden"
START_NS = 1_000_000_000
SECONDS = 4.0
NANOSLEEP = 35
EVAL = f"_PyEval_EvalFrameDefault@{PYTHON}"
Golden = Callable[[Path, str], None]


def capture_of(*sources: Native, python: str = "", busy_ms: int = 20) -> Capture:
    """A service of one thread that runs in 4 s half of them, its samples, one Python stretch."""
    strings: list[str] = []
    steps = [Step(RUNNING, busy_ms * MS), Step(NANOSLEEP, (40 - busy_ms) * MS)] * 100
    rows = simulate_rows(steps, tid=100, start_ns=START_NS)
    tables = {"thread_runs": make_table("thread_runs", rows, strings)}
    if python:
        functions = enumerate(python.split("<"))
        frames = [
            {"stack": 0, "depth": depth, "function": name, "file": f"/app/{name}.py"}
            for depth, name in functions
        ]
        stretch = {"begin_ns": START_NS, "end_ns": START_NS + 4000 * MS, "pid": 100, "tid": 100}
        stretches = [stretch | {"kind": "gil", "stack": 0, "run_ns": -1}]
        tables["stacks"] = make_table("stacks", frames, strings)
        tables["stack_samples"] = make_table("stack_samples", stretches, strings)
    tables |= native_tables(sources, strings)
    made = make_capture(tables, start_ns=START_NS, seconds=SECONDS, strings=tuple(strings))
    return made


def cpu_samples(*stacks: str, each: int = 25) -> Native:
    """So many CPU samples of each stack in turn, evenly over the window."""
    native = Native()
    count = each * len(stacks)
    for at in range(count):
        t_ns = START_NS + (at + 1) * int(SECONDS * 1e9) // (count + 1)
        native.add(stacks[at % len(stacks)], t_ns=t_ns, weight_ns=10 * MS)
    return native


def shares_of(profile: Profile) -> dict[str, float]:
    """Each stack's share of the profile, by the names of its frames behind the group's."""
    return {
        ";".join(frame.name for frame in one.frames[1:]): one.time_us / profile.time_us
        for one in profile.stacks
    }


def render(write: Callable[..., None], profile: Profile, look: Look | None = None) -> str:
    """The profile in a format."""
    out = io.StringIO()
    write(profile, out, look or Look())
    return out.getvalue()


def test_cpu_time_of_a_native_service_is_exact_and_shared_as_sampled() -> None:
    """The counters say how much there is, the samples who has it."""
    hot, cold = f"hot@{SERVER}<main@{SERVER}", f"cold@{SERVER}<main@{SERVER}"

    profile = make_profile(capture_of(cpu_samples(hot, hot, hot, cold)), "")

    assert profile.time_us / 1e6 == pytest.approx(2.0, abs=0.05)
    assert shares_of(profile) == {
        "main;hot": pytest.approx(0.75, abs=0.01),
        "main;cold": pytest.approx(0.25, abs=0.01),
    }


def test_python_service_has_its_native_leaves() -> None:
    """Below a Python function stands the native code that it called, marked as near."""
    native = cpu_samples(f"memcpy@{LIBC}<{EVAL}", EVAL)

    profile = make_profile(capture_of(native, python="copy<handle"), "")

    assert set(shares_of(profile)) == {"handle;copy", "handle;copy;memcpy"}
    assert [one.near_us for one in profile.stacks] == [one.time_us for one in profile.stacks]
    assert "Python frames 100 % near (~)" in profile.notes[0]


def test_python_stacks_stay_where_the_sampler_saw_too_little() -> None:
    """Three samples say less of a thread than its Python stacks do."""
    native = cpu_samples(f"memcpy@{LIBC}<{EVAL}", each=3)

    profile = make_profile(capture_of(native, python="copy<handle"), "")

    assert list(shares_of(profile)) == ["handle;copy"]


def test_samples_never_stand_for_more_than_the_threads_ran() -> None:
    """Few samples, which weigh more than the thread ran by the counters, are cut to that."""
    native = Native()
    for at in range(5):
        native.add(f"work@{SERVER}", t_ns=START_NS + (100 * at + 145) * MS, weight_ns=40 * MS)

    profile = make_profile(capture_of(native, busy_ms=1), "")

    assert profile.time_us / 1e6 == pytest.approx(0.1, abs=0.02)


def test_time_off_the_cpus_is_told_by_where_it_began() -> None:
    """Waits have their lengths, those without a stack too, and open ones are lower bounds."""
    native = Native()
    native.add(f"read@{LIBC}<load@{SERVER}", kind="off", weight_ns=600 * MS, is_open=1)
    native.add(f"spin@{SERVER}", kind="preempted", weight_ns=300 * MS)
    native.add("", kind="off", weight_ns=100 * MS)
    native.add(f"spin@{SERVER}", kind="cpu", weight_ns=900 * MS)
    native.add("burn@/bin/other", pid=7, tid=7, kind="off", weight_ns=900 * MS)

    profile = make_profile(capture_of(native), "", "off-cpu")

    assert shares_of(profile) == {
        "load;read": pytest.approx(0.6),
        "spin;(waits for a CPU)": pytest.approx(0.3),
        "(not sampled)": pytest.approx(0.1),
    }
    assert "1 waits were not over" in profile.notes[-1]


def test_wall_clock_time_has_exact_python_frames() -> None:
    """Frames that were read while the thread stood still are not marked."""
    native = Native("wall")
    native.add(f"read@{LIBC}<{EVAL}", python="load<handle", weight_ns=75 * MS)
    native.add("", weight_ns=25 * MS)

    profile = make_profile(capture_of(native), "", "wall")

    assert shares_of(profile) == {"handle;load;read": 0.75, "(on a CPU, or not read)": 0.25}
    assert [one.near_us for one in profile.stacks] == [0, 0]


def test_profile_of_the_host_has_all_processes() -> None:
    """Other processes than the service's have their part, under their numbers."""
    native = Native()
    native.add(f"work@{SERVER}", pid=100, weight_ns=30 * MS)
    native.add("burn@/bin/other", pid=7, tid=7, weight_ns=10 * MS)
    native.add(f"idle@{KERNEL}", pid=0, tid=0, weight_ns=10 * MS)

    profile = make_profile(capture_of(native), "", "host")

    groups = {one.frames[0].name: one.time_us for one in profile.stacks}
    assert groups == {"serve (100)": 30_000, "process (7)": 10_000, "kernel": 10_000}


def test_other_processes_are_none_of_the_services() -> None:
    """What a sampler of the whole host saw of others is not in the service's profile."""
    native = cpu_samples(f"work@{SERVER}")
    native.add("burn@/bin/other", pid=7, tid=7, weight_ns=900 * MS)

    assert list(shares_of(make_profile(capture_of(native), ""))) == ["work"]


@pytest.mark.parametrize("of", ["cpu", "off-cpu", "wall", "host"])
def test_capture_without_such_stacks_says_so(of: str) -> None:
    """Nothing is drawn of nothing."""
    with pytest.raises(RunError, match=r"holds no .*they were not recorded"):
        make_profile(capture_of(), "", of)  # type: ignore[arg-type]


SERVES = ProfileFrame("threads that serve requests", "", "group")
HANDLE = ProfileFrame("handle", "app.py", "application")
SORT = ProfileFrame("sort_rows", "_arrays.so", "package", "native")
COPY = ProfileFrame("memcpy", "libc.so.6", "library", "native")
FAULT = ProfileFrame("exc_page_fault", "[kernel]", "kernel", "kernel")
LONG = ProfileFrame("shop::Basket<std::string>::put(" + "int, " * 30 + "int)", "server", "package")
EVIL = ProfileFrame("</title>;\x1b[2J\u202e" * 9, "a;b.so", "application", "native")

PROFILE = Profile(
    "20260101-000000-host-1",
    "host-1",
    "serve",
    10.0,
    (
        ProfileStack((SERVES, HANDLE), 300_000, 300_000),
        ProfileStack((SERVES, HANDLE, SORT, COPY), 900_000, 900_000),
        ProfileStack((SERVES, HANDLE, SORT, COPY, FAULT), 200_000, 200_000),
        ProfileStack((SERVES, LONG), 590_000),
        *(
            ProfileStack((SERVES, ProfileFrame(f"tiny{at}", "app.py", "application")), 4_000)
            for at in range(10)
        ),
    ),
    notes=("198 samples: Python frames 70 % near (~), 30 % native only.",),
)
HOSTILE = Profile("", "<host>", "&\x1b", 1.0, (ProfileStack((SERVES, EVIL, EVIL), 5_000, 5_000),))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tree_is_as_looked_at(width: int, golden: Golden) -> None:
    """The text of each width is the one that was looked at."""
    golden(GOLDEN / f"tree-{width}.txt", render(tree.write, PROFILE, Look(width)))


@pytest.mark.parametrize("width", [1, 60, 80, 120])
@pytest.mark.parametrize("profile", [PROFILE, HOSTILE])
def test_tree_is_no_wider_than_the_terminal(width: int, profile: Profile) -> None:
    """Only the command at its end may be wider, so that it can be pasted."""
    text = render(tree.write, profile, Look(width))

    lines = [line for line in text.splitlines() if not line.startswith("Next")]
    assert max(map(len, lines)) <= max(width, tree.WIDTH_MIN)


@pytest.mark.parametrize(("verbose", "count"), [(True, 10), (False, 0)])
def test_verbose_tree_shows_what_is_small(verbose: bool, count: int) -> None:
    """What is left out is there when asked for."""
    assert render(tree.write, PROFILE, Look(verbose=verbose)).count("tiny") == count


def test_tree_of_very_many_functions_is_cut() -> None:
    """A profile of thousands of equal functions is a screen or two, deep ones too."""
    wide = [
        ProfileStack((SERVES, ProfileFrame(f"f{at}", "", "application")), 10) for at in range(3_000)
    ]
    deep = tuple(ProfileFrame(f"g{at}", "", "application") for at in range(3_000))

    text = render(tree.write, replace(PROFILE, stacks=(*wide, ProfileStack(deep, 90_000))))

    assert 10 < len(text.splitlines()) < 60


@pytest.mark.parametrize("write", [folded.write, svg.write, tree.write])
def test_hostile_names_are_plain_text(write: Callable[..., None]) -> None:
    """No control character, no mark of direction gets through in any format."""
    text = render(write, HOSTILE)

    assert re.search(r"[^\x20-\x7e\n]", text) is None


def test_folded_marks_frames_of_the_kernel() -> None:
    """Flame graph tools colour the kernel's frames by the end of their names."""
    lines = render(folded.write, PROFILE).splitlines()

    assert [line.rpartition(";")[2] for line in lines if "fault" in line] == [
        "exc_page_fault_[k] 200000"
    ]


def test_picture_tells_kernel_and_libraries_apart() -> None:
    """A profile with native frames has a legend for them, and no word of Python alone."""
    text = render(svg.write, PROFILE)

    found = {word: word in text for word in (">kernel<", ">libraries<", "by Python function")}
    assert found == {">kernel<": True, ">libraries<": True, "by Python function": False}
