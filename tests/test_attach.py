"""Names that are attached to a capture: found once, read ever after, and never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from capture_values import to_rows
from elf_programs import compile_program, list_functions, run
from native_rows import Native
from simulate import make_capture

from perfkit import codec
from perfkit.cli._names import name_frames
from perfkit.model import Capture
from perfkit.symbols.attach import LATE, NAME_LIMIT, Search, attach_names
from perfkit.symbols.elf import open_elf, to_address
from perfkit.symbols.files import open_regular

HERE = Search(is_here=True, limit_s=30.0)
ELSEWHERE = Search(is_here=False, limit_s=30.0)


def capture_of(*objects: tuple[str, str, str], offset: int = 16) -> Capture:
    """A capture with one frame in each object (kind, path, build-id)."""
    native = Native()
    native.add("<".join(f"f@{number}" for number in range(len(objects))))
    for row, (kind, path, build_id) in zip(native.objects, objects, strict=True):
        row |= {"kind": kind, "path": path, "build_id": build_id, "pid": os.getpid()}
    for row in native.stacks:
        row["offset"] = offset
    strings: list[str] = []
    tables = native.tables(strings)
    return make_capture(tables, start_ns=0, seconds=1.0, strings=tuple(strings))


def names_of(capture: Capture) -> list[tuple[object, object]]:
    """Function and note of each place."""
    return [(row["function"], row["note"]) for row in to_rows(capture, "native_names")]


@pytest.fixture(name="program")
def _program(tmp_path: Path) -> Path:
    return compile_program(tmp_path / "program")


def offset_in(program: Path, function: str, into: int) -> int:
    """The file offset of a place in a function."""
    address = list_functions(program)[function][0] + into
    with open_regular(program) as descriptor:
        segments = open_elf(descriptor).segments
    one = next(one for one in segments if one.address <= address < one.address + one.size_bytes)
    assert to_address(segments, address - one.address + one.offset) == address
    return address - one.address + one.offset


def build_id_of(program: Path) -> str:
    """The build-id that a program has."""
    with open_regular(program) as descriptor:
        return open_elf(descriptor).build_id


@pytest.mark.parametrize("search", [HERE, ELSEWHERE])
def test_frame_has_the_name_of_its_function(program: Path, search: Search) -> None:
    """A file with the recorded build-id names a frame, on this host and for another one."""
    offset = offset_in(program, "hidden_work", 3)
    capture = capture_of(("file", str(program), build_id_of(program)), offset=offset)

    (row,) = to_rows(attach_names(capture, search), "native_names")

    assert row == {
        "source": "native",
        "object": 0,
        "offset": offset,
        "function": "hidden_work",
        "start": offset - 3,
        "note": "",
    }


@pytest.mark.parametrize("kind", ["kernel", "anonymous", "file", "vdso"])
def test_nothing_of_another_host_is_guessed(program: Path, kind: str) -> None:
    """Without a build-id, a file of this host says nothing of the other one's, nor its kernel."""
    capture = capture_of((kind, str(program), ""), offset=offset_in(program, "hidden_work", 3))

    ((function, note),) = names_of(attach_names(capture, ELSEWHERE))

    assert ("+0x" in str(function), "another host" in str(note)) == (True, True)


def test_frame_of_a_file_that_was_replaced_has_no_name(program: Path) -> None:
    """Another build under the same path is not taken for the one that ran."""
    capture = capture_of(("file", str(program), "ab" * 20))

    ((function, note),) = names_of(attach_names(capture, HERE))

    assert (function, "was replaced" in str(note)) == ("program+0x10", True)


def test_capture_that_has_names_keeps_them(program: Path) -> None:
    """Who reads a run that was recorded elsewhere reads the names that were found there."""
    capture = capture_of(("file", str(program), build_id_of(program)))
    named = attach_names(capture, HERE)
    program.unlink()

    again = attach_names(codec.decode(codec.encode(named)), ELSEWHERE)

    assert again == named


def test_capture_without_native_frames_is_left_alone() -> None:
    """Nothing is added to a capture that has nothing to name."""
    capture = make_capture({}, start_ns=0, seconds=1.0)

    assert attach_names(capture, HERE) is capture


def test_names_that_take_too_long_are_left_out(program: Path) -> None:
    """When the time is over, what is left keeps its address and says why."""
    capture = capture_of(("file", str(program), build_id_of(program)))

    found = names_of(attach_names(capture, Search(is_here=True, limit_s=0.0)))

    assert found in ([("program+0x10", LATE)], names_of(attach_names(capture, HERE)))


HOSTILE = (
    ("file", "/nowhere/gone.so (deleted)", ""),
    ("file", "/nowhere/gone.so", "ab" * 20),
    ("file", "a\0b", ""),
    ("file", "/dev/zero", ""),
    ("file", "/tmp", ""),
    ("file", "/proc/self/mem", ""),
    ("file", "", ""),
    ("file", "../\x1b[2J\n", "not a build-id"),
    ("file", "x" * 10_000, ""),
    ("vdso", "", "ab" * 20),
    ("anonymous", "", ""),
    ("nonsense", "/bin/sh", ""),
)


@pytest.mark.parametrize("search", [HERE, ELSEWHERE])
@pytest.mark.parametrize("offset", [0, -1, (1 << 63) - 1, -(1 << 63)])
def test_objects_that_are_gone_or_hostile_have_addresses(search: Search, offset: int) -> None:
    """Whatever the objects are, each frame has a text, a reason, and the capture stays readable."""
    named = attach_names(capture_of(*HOSTILE, offset=offset), search)

    found = names_of(codec.decode(codec.encode(named)))

    assert len(found) == len(HOSTILE)
    assert [one for one in found if "+0x" not in str(one[0]) or one[1] in ("", LATE)] == []


def test_file_that_trips_the_reader_costs_only_its_names(tmp_path: Path, program: Path) -> None:
    """Bytes that look like an ELF file up to somewhere are refused, and others are named."""
    broken = tmp_path / "broken"
    raw = program.read_bytes()
    broken.write_bytes(raw[:64] + os.urandom(len(raw) - 64))
    offset = offset_in(program, "hidden_work", 3)
    capture = capture_of(("file", str(broken), ""), ("file", str(program), ""), offset=offset)

    found = names_of(attach_names(capture, HERE))

    assert (found[0][0], found[1]) == (f"broken+{offset:#x}", ("hidden_work", ""))


def test_name_of_a_symbol_is_cut(tmp_path: Path) -> None:
    """A symbol of thousands of letters does not swell the capture."""
    long = "f" * 5_000
    source = f"void {long}(void) {{}} int main(void) {{ {long}(); return 0; }}"
    program = tmp_path / "long"
    text = tmp_path / "long.c"
    text.write_text(source)
    run("gcc", "-O0", "-o", program, text)
    capture = capture_of(("file", str(program), ""), offset=offset_in(program, long, 1))

    ((function, note),) = names_of(attach_names(capture, HERE))

    assert (str(function)[:3], len(str(function)) <= NAME_LIMIT, note) == ("fff", True, "")


def test_places_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that are too many to name are said to be so, and the most sampled are kept."""
    monkeypatch.setattr("perfkit.symbols.attach.NAMES_MAX", 2)

    table = attach_names(capture_of(*HOSTILE), HERE).tables["native_names"]

    assert (table.row_count, table.dropped_count) == (2, len(HOSTILE) - 2)


def test_what_is_kept_of_a_window_has_names(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that a command keeps hold the names, and the symbols are cached for the next."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    offset = offset_in(program, "hidden_work", 3)
    raw = codec.encode(capture_of(("file", str(program), build_id_of(program)), offset=offset))

    kept = name_frames(raw, is_here=True)

    assert names_of(codec.decode(kept)) == [("hidden_work", "")]
    assert len(list((tmp_path / "cache").rglob("*.pksym"))) == 1


def test_bytes_without_native_frames_are_kept_as_they_are() -> None:
    """A capture of a host without the sampler is not even packed anew."""
    raw = codec.encode(make_capture({}, start_ns=0, seconds=1.0), compression_level=1)

    assert name_frames(raw, is_here=True) is raw
