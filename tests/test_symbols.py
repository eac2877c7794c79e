"""Names of real files are those that binutils gives, whatever was stripped from them."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from elf_programs import CPLUSPLUS, compile_program, list_functions, needs, run

from perfkit.symbols import cache
from perfkit.symbols.debuginfod import Servers
from perfkit.symbols.elf import Segment, open_elf, to_address
from perfkit.symbols.files import open_regular
from perfkit.symbols.sources import Places, read_table
from perfkit.symbols.symbolizer import Location, Settings, Symbolizer
from perfkit.symbols.table import Table, find_address

LIBRARIES = sorted(
    {
        str(path.resolve())
        for place in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")
        for name in ("libc.so.6", "libstdc++.so.6", "libpython3*.so.1.0", "libssl.so.3")
        for path in Path(place).glob(name)
    }
    | {str(path) for path in Path.home().glob(".pyenv/versions/3.11*/lib/libpython3.11.so.1.0")}
)


def load(path: Path, **places: object) -> Table:
    """The table of a file."""
    with open_regular(path) as descriptor:
        return read_table(open_elf(descriptor), str(path), Places(**places)).table


def build_id_of(path: Path) -> str:
    """The build-id of a file."""
    with open_regular(path) as descriptor:
        return open_elf(descriptor).build_id


def to_offset(path: Path, address: int) -> int:
    """The file offset of a virtual address."""
    with open_regular(path) as descriptor:
        segments = open_elf(descriptor).segments
    one = next(one for one in segments if one.address <= address < one.address + one.size_bytes)
    return address - one.address + one.offset


def locate(path: Path, function: str, into: int = 1, of: Path | None = None) -> Location:
    """A place inside of a function, as an agent would have recorded it."""
    offset = to_offset(of or path, list_functions(of or path)[function][0] + into)
    return Location("file", offset, str(path), build_id_of(path))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program with all its symbols."""
    return compile_program(tmp_path / "program")


@pytest.mark.parametrize("path", LIBRARIES)
def test_library_has_the_names_of_nm(path: str) -> None:
    """At random places of every sized function the name is one that nm has for that place."""
    needs("nm")
    dice = random.Random(23)
    table = load(Path(path), debug_folder=Path("/nowhere"))
    options = () if table.is_complete else ("-D",)
    rows = run("nm", "-S", "--defined-only", *options, path).splitlines()
    functions = [line.split() for line in rows]
    known: dict[int, set[str]] = {}
    places = {}
    for row in [row for row in functions if len(row) == 4 and row[2] in "tTwWi"]:
        start, size_bytes = int(row[0], 16), int(row[1], 16)
        known.setdefault(start, set()).add(row[3].partition("@")[0])
        places[start + dice.randrange(max(size_bytes, 1))] = start

    found = {place: find_address(table, place) for place in places}

    assert len(places) > 500
    assert [hex(place) for place, row in found.items() if row is None] == []
    assert [
        (hex(place), row)
        for place, row in found.items()
        if row is not None and row.name not in known.get(place - row.offset, set())
    ] == []


@pytest.mark.parametrize("option", ["-pie", "-no-pie", "-static", "-static-pie"])
def test_program_is_named_however_it_is_linked(tmp_path: Path, option: str) -> None:
    """Position-independent or not, static or not: a local function has its name."""
    path = compile_program(tmp_path / "program", option, *(["-fPIE"] if "pie" in option else []))

    found = Symbolizer().name(locate(path, "hidden_work", 2))

    assert (found.function, found.offset, found.source) == ("hidden_work", 2, "symtab")


def test_alias_and_bare_label_have_one_name(program: Path) -> None:
    """A global name goes before a weak one, and a label without a size reaches to the next one."""
    labels = {line.split()[2]: line.split()[0] for line in run("nm", program).splitlines()[1:]
              if len(line.split()) == 3}  # fmt: skip
    symbolizer = Symbolizer()
    bare = to_offset(program, int(labels["bare_label"], 16) + 1)

    weak = symbolizer.name(locate(program, "a_weak_name"))
    label = symbolizer.name(Location("file", bare, str(program)))

    picked = symbolizer.name(locate(program, "picked"))
    assert (weak.name, label.name, label.offset) == ("shown_work", "bare_label", 1)
    assert picked.name == "picked"


def test_stubs_are_named_as_objdump_does(program: Path) -> None:
    """What calls into other libraries is `function@plt`, at the address that objdump gives."""
    needs("objdump")
    heads = [line for line in run("objdump", "-d", program).splitlines() if line.endswith("@plt>:")]
    wanted = {line.split()[1][1:-2]: int(line.split()[0], 16) for line in heads}
    table = load(program)

    found = {name: find_address(table, address + 3) for name, address in wanted.items()}

    assert {name: row and row.name for name, row in found.items()} == {one: one for one in wanted}
    assert "getpid@plt" in wanted


def test_stripped_program_says_so(program: Path, tmp_path: Path) -> None:
    """Without symbols an address is `object+0xoffset`, and the gap is told once with its count."""
    bare = tmp_path / "bare"
    run("strip", "-o", bare, program)
    place = locate(bare, "hidden_work", of=program)
    symbolizer = Symbolizer()

    found = symbolizer.names([place, place])

    assert {one.function for one in found} == {f"bare+{place.offset:#x}"}
    (gap,) = symbolizer.gaps()
    assert (gap.object, gap.count) == (str(bare), 2)
    assert gap.reason.startswith("stripped: ")


@pytest.mark.parametrize("is_sound", [True, False])
def test_debug_link_needs_its_checksum(program: Path, tmp_path: Path, is_sound: bool) -> None:
    """A debug file by link names functions, and one that was changed is refused and said."""
    bare, apart = tmp_path / "bare", tmp_path / "apart.debug"
    run("objcopy", "--only-keep-debug", program, apart)
    run("strip", "-o", bare, program)
    run("objcopy", f"--add-gnu-debuglink={apart}", bare)
    apart.write_bytes(apart.read_bytes() + b"x" * (not is_sound))

    found = Symbolizer().name(locate(bare, "hidden_work", of=program))

    assert (found.source, "CRC" in found.note) == (("debug", False) if is_sound else ("", True))


@pytest.mark.parametrize("is_sound", [True, False])
def test_debug_file_needs_the_build_id(program: Path, tmp_path: Path, is_sound: bool) -> None:
    """A debug file by build-id names functions, unless another one lies in its place."""
    bare, folder = tmp_path / "bare", tmp_path / "debug"
    run("strip", "-o", bare, program)
    build_id = build_id_of(program)
    other = compile_program(tmp_path / "other", "-DUNUSED", "-Wl,-z,now", "-O0")
    place = folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    place.parent.mkdir(parents=True)
    run("objcopy", "--only-keep-debug", program if is_sound else other, place)

    symbolizer = Symbolizer(Settings(debug_folder=folder))
    found = symbolizer.name(locate(bare, "hidden_work", of=program))

    assert (found.source, "refused" in found.note) == (("debug", False) if is_sound else ("", True))


def test_packed_symbols_are_read_beside_exported_ones(program: Path, tmp_path: Path) -> None:
    """.gnu_debugdata names what is not exported."""
    needs("xz")
    bare, mini = tmp_path / "bare", tmp_path / "mini"
    run("objcopy", "--only-keep-debug", program, mini)
    run("xz", "-k", mini)
    run("strip", "-o", bare, program)
    run("objcopy", f"--add-section=.gnu_debugdata={mini}.xz", bare)

    found = Symbolizer().name(locate(bare, "hidden_work", of=program))

    assert (found.function, found.source) == ("hidden_work", "debugdata")


def test_rebuilt_program_is_refused(program: Path) -> None:
    """A file with another build-id than the recorded one gives no name; the reason says both."""
    place = locate(program, "hidden_work")
    compile_program(program, "-O2", "-Wl,-z,now")

    found = Symbolizer().name(place)

    assert found.source == ""
    assert place.build_id in found.note and build_id_of(program) in found.note


def test_one_process_that_lacks_a_file_does_not_speak_for_others(program: Path) -> None:
    """An object that could not be opened by one path is still named by another."""
    place = locate(program, "hidden_work")
    gone = Location("file", place.offset, "/nowhere/program", place.build_id)

    found = Symbolizer().names([gone, place, gone])

    assert [one.source for one in found] == ["", "symtab", ""]


def test_cache_outlives_the_file_and_damage(program: Path, tmp_path: Path) -> None:
    """What was named once is named without the file, and a damaged cache is as good as none."""
    place = locate(program, "hidden_work")
    settings = Settings(folder=tmp_path / "cache")
    first = Symbolizer(settings).name(place)
    program.unlink()
    (kept,) = settings.folder.iterdir() if settings.folder else ()

    second = Symbolizer(settings).name(place)
    raw = bytearray(kept.read_bytes())
    raw[len(raw) // 2] ^= 0x55
    kept.write_bytes(raw)
    third = Symbolizer(settings).name(place)

    assert (first.function, second) == ("hidden_work", first)
    assert (third.source, third.note) == ("", f"cannot open {program}: No such file or directory")


def test_cache_is_kept_under_its_size(tmp_path: Path) -> None:
    """The files used longest ago go first."""
    names = [tmp_path / f"{number}0{cache.SUFFIX}" for number in range(4)]
    _ = [path.write_bytes(b"x" * 100) for path in names]
    names[0].touch()

    cache.trim(tmp_path, 250)

    assert sorted(path.name for path in tmp_path.iterdir()) == [names[0].name, names[3].name]


def test_shipped_symbols_name_what_is_not_here(program: Path, tmp_path: Path) -> None:
    """A capture that brings its symbols is read without the files, and brings no others."""
    places = [locate(program, "hidden_work"), locate(program, "main", 3)]
    shipped = Symbolizer().export(places[:1])
    program.unlink()

    found = Symbolizer(Settings(shipped=shipped)).names(places)

    assert [one.function for one in found] == ["hidden_work", f"program+{places[1].offset:#x}"]
    assert sum(map(len, shipped.values())) < 1_000


def test_cplusplus_names_are_as_written(tmp_path: Path) -> None:
    """A mangled name is shown as its author wrote it, and kept as it was found."""
    path = compile_program(tmp_path / "shop", source=CPLUSPLUS)
    mangled = next(one for one in list_functions(path) if "Basket" in one)

    found = Symbolizer().name(locate(path, mangled))

    assert found.name == mangled
    assert found.function.startswith("shop::Basket<std::")
    assert found.function == run("c++filt", mangled).strip()


@pytest.mark.parametrize("is_apart", [False, True])
def test_lines_are_those_of_the_source(program: Path, tmp_path: Path, is_apart: bool) -> None:
    """On request an address has its file and line, also where the debug file lies apart."""
    needs("addr2line")
    place = locate(program, "hidden_work", 0)
    run("objcopy", "--only-keep-debug", program, tmp_path / "apart.debug")
    bare = tmp_path / "bare"
    run("strip", "-o", bare, program)
    run("objcopy", f"--add-gnu-debuglink={tmp_path}/apart.debug", bare)
    path = bare if is_apart else program

    found = Symbolizer().lines(Location("file", place.offset, str(path), place.build_id))

    assert [(one.function, Path(one.file).name, one.line) for one in found] == [
        ("hidden_work", "program.c", 4)
    ]


def test_executable_segment_goes_first() -> None:
    """Where two segments hold a file offset, code lies in the executable one."""
    segments = (Segment(0, 0x1000, 64, False), Segment(32, 0x9000, 64, True))

    found = [to_address(segments, one) for one in (0, 40, 96)]

    assert found == [0x1000, 0x9008, None]


def test_no_server_is_asked_unasked(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of other tools alone sends nothing anywhere."""
    monkeypatch.setenv("DEBUGINFOD_URLS", "http://127.0.0.1:9")
    subprocess.run(["strip", program], check=True)

    found = Symbolizer().name(Location("file", 0x1200, str(program), build_id_of(program)))

    assert "debuginfod" not in found.note
    assert Settings().servers == Servers()
