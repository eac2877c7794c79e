"""Files, maps and names of others: symbols or a clear reason, in bounded time, and no harm."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from elf_programs import compile_program, list_functions, needs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfkit.errors import Unavailable
from perfkit.symbols import cache, demangle
from perfkit.symbols.elf import elf_of_bytes
from perfkit.symbols.files import open_regular
from perfkit.symbols.lines import parse_lines
from perfkit.symbols.sources import Places, read_table
from perfkit.symbols.symbolizer import Location, Settings, Symbolizer
from perfkit.symbols.table import find_row

LIBRARIES_OF_CPLUSPLUS = [
    path
    for place in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64")
    for name in ("libstdc++.so.6", "libz3.so.4")
    for path in Path(place).glob(name)
]
TRIES = settings(
    max_examples=150, deadline=5_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound program without debug sections, as bytes."""
    path = compile_program(tmp_path_factory.mktemp("image") / "program", "-g0")
    return path.read_bytes()


def try_to_name(raw: bytes) -> str:
    """What comes of a file: "symbols", or the reason why there are none."""
    try:
        found = read_table(elf_of_bytes(raw), "/x", Places(roots=())).table
        find_row(found, 0x1150)
        cache.parse_table(cache.to_bytes(found))
    except Unavailable as refused:
        return refused.reason
    return "symbols"


@TRIES
@given(st.floats(0, 1))
def test_truncated_file_gives_symbols_or_a_reason(image: bytes, share: float) -> None:
    """Wherever a file ends, nothing but Unavailable is raised."""
    assert try_to_name(image[: int(share * len(image))])


@TRIES
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=40))
def test_flipped_bytes_give_symbols_or_a_reason(
    image: bytes, changes: list[tuple[float, int]]
) -> None:
    """Whatever bytes a file holds anywhere, nothing but Unavailable is raised."""
    raw = bytearray(image)
    for share, value in changes:
        raw[int(share * (len(raw) - 1))] = value

    assert try_to_name(bytes(raw))


@TRIES
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1), st.integers(0, 255)), max_size=12))
def test_flipped_tables_give_symbols_or_a_reason(
    image: bytes, changes: list[tuple[int, float, int]]
) -> None:
    """The same where it hurts: in the header, the segments, the sections and the symbols."""
    raw = bytearray(image)
    sections = int.from_bytes(raw[40:48], "little")
    places = [(0, 64), (64, 700), (sections, 2_000), (0x300, 3_000), (len(raw) - 6_000, 6_000)]
    for place, share, value in changes:
        start, size_bytes = places[place]
        raw[min(start + int(share * size_bytes), len(raw) - 1)] = value

    assert try_to_name(bytes(raw))


@TRIES
@given(st.binary(max_size=200))
def test_symbol_file_is_sound_or_refused(raw: bytes) -> None:
    """No bytes behind the magic are taken for a table that does not hold."""
    with pytest.raises(Unavailable):
        cache.parse_table(cache.MAGIC + raw)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "nothing"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    """A FIFO does not hang, a device is not touched, and the reason names the path."""
    path = tmp_path / "place"
    makers = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "nothing": lambda: None,
    }
    makers[kind]()

    with pytest.raises(Unavailable, match="place"), open_regular(path):
        pass


def test_links_stay_in_the_root_of_the_target(tmp_path: Path) -> None:
    """An absolute link below another root leads to that root's file, not to ours."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("inside")
    (tmp_path / "link").symlink_to("/etc/hostname")

    with open_regular(Path("/link"), tmp_path) as descriptor:
        found = os.read(descriptor, 100)

    assert found == b"inside"


@pytest.fixture
def running(tmp_path: Path):
    """A program that waits, and its first argument: how to start it is up to the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str | Path) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [str(one) for one in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        return child

    yield start
    for child in started:
        child.communicate(b"\n")


def locate_main(path: Path) -> tuple[int, str]:
    """The file offset of a place in `hidden_work`, and the build-id."""
    elf = elf_of_bytes(path.read_bytes())
    table = read_table(elf, str(path), Places()).table
    names = [table.strings[int(at) :].split(b"\0", 1)[0] for at in table.names]
    address = int(table.starts[names.index(b"hidden_work")])
    segment = next(one for one in elf.segments if 0 <= address - one.address < one.size_bytes)
    return address - segment.address + segment.offset + 1, elf.build_id


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize("is_recorded", [True, False])
def test_deleted_program_is_named(tmp_path: Path, running, is_recorded: bool) -> None:
    """The mapping itself is read, not what bears the name now."""
    path = compile_program(tmp_path / "program")
    offset, build_id = locate_main(path)
    child = running(path, "wait")
    path.unlink()
    path.write_text("another file")
    place = Location(
        "file", offset, f"{path} (deleted)", build_id if is_recorded else "", child.pid
    )

    found = Symbolizer().name(place)

    assert (found.function, found.object) == ("hidden_work", "program")


@pytest.mark.usefixtures("needs_root")
def test_program_of_another_mount_namespace_is_named(tmp_path: Path, running) -> None:
    """A file that only the target sees is opened through the target."""
    needs("unshare", "mount")
    path = compile_program(tmp_path / "program")
    offset, build_id = locate_main(path)
    inner = tmp_path / "inner"
    inner.mkdir()
    script = f"mount -t tmpfs none {inner} && cp {path} {inner}/p && exec {inner}/p wait"
    child = running("unshare", "-m", "sh", "-c", script)

    found = Symbolizer().name(Location("file", offset, f"{inner}/p", build_id, child.pid))

    assert (found.function, (inner / "p").exists()) == ("hidden_work", False)


def test_map_of_a_runtime_is_read_again_when_grown(running) -> None:
    """Functions that were made later are found later; untrusted rows do no harm."""
    child = running("/bin/sh", "-c", "echo; read wait")
    path = Path(f"/tmp/perf-{child.pid}.map")
    symbolizer = Symbolizer()
    place = Location("jit", 0x7F0000000010, pid=child.pid)
    try:
        path.write_text("zz 1 bad\n7f0000000100 20 early\x1b[31m one\n-5 5 x\n7f00 0 empty\n")
        first = symbolizer.name(place)
        with path.open("a") as out:
            out.write("7f0000000000 20 made later\n")
        second = symbolizer.name(place)
    finally:
        path.unlink()

    assert first.note == "not in the map that the runtime wrote"
    assert (second.function, second.offset, second.source) == ("made later", 16, "perf-map")


@pytest.mark.usefixtures("needs_root")
def test_map_of_a_stranger_is_refused(running) -> None:
    """Who may write to the temporary folder does not name the target's functions."""
    child = running("/bin/sh", "-c", "echo; read wait")
    path = Path(f"/tmp/perf-{child.pid}.map")
    path.write_text("7f0000000000 20 forged\n")
    os.chown(path, 65_534, 65_534)
    try:
        found = Symbolizer().name(Location("jit", 0x7F0000000010, pid=child.pid))
    finally:
        path.unlink()

    assert (found.source, "belongs to user 65534" in found.note) == ("", True)


def test_vdso_is_named_and_another_kernels_refused() -> None:
    """The kernel's own library is read from memory, under the rule of the build-id."""
    found = [
        Symbolizer().name(Location("vdso", offset, "[vdso]", build_id))
        for build_id in ("", "00" * 20)
        for offset in range(0, 0x2000, 16)
    ]

    assert any(one.function.endswith("clock_gettime") for one in found)
    assert "replaced" in found[-1].note


@pytest.mark.parametrize(
    ("kallsyms", "boot_id", "wanted"),
    [
        ("ffffffff81000010 T start_work\nffffffff81000040 t next\n", "", ("start_work", "kernel")),
        ("ffffffff81000000 t _x\nffffffff81000000 T shown\t[mod]\n", "", ("shown", "mod")),
        ("0000000000000000 T start_work\n", "", ("kernel+0xffffffff81000020", "kernel")),
        ("ffffffff81000010 T start_work\n", "other", ("kernel+0xffffffff81000020", "kernel")),
        ("junk\nxyz T q\n", "", ("kernel+0xffffffff81000020", "kernel")),
    ],
)
def test_kernel_functions(
    tmp_path: Path, kallsyms: str, boot_id: str, wanted: tuple[str, str]
) -> None:
    """Names of the very boot that was recorded; hidden addresses name nothing."""
    (tmp_path / "kallsyms").write_text(kallsyms)
    place = tmp_path / "sys/kernel/random"
    place.mkdir(parents=True)
    (place / "boot_id").write_text("this\n")

    symbolizer = Symbolizer(Settings(proc=tmp_path, boot_id=boot_id))
    found = symbolizer.name(Location("kernel", 0xFFFFFFFF81000020))

    assert (found.function, found.object) == wanted
    assert len(symbolizer.gaps()) == (found.source == "")


@pytest.mark.parametrize(
    ("mangled", "wanted"),
    [
        ("_ZN4shop4sellEi", "shop::sell(int)"),
        ("_ZN4shop4sellEi@plt", "shop::sell(int)@plt"),
        ("memcpy", "memcpy"),
        ("_Zjunk", "_Zjunk"),
        ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
        (
            "_ZN53_$LT$alloc..string..String$u20$as$u20$core..Debug$GT$3fmt17h0123456789abcdefE",
            "<alloc::string::String as core::Debug>::fmt",
        ),
        ("_RNvCs1234_7mycrate3foo", "_RNvCs1234_7mycrate3foo"),
        ("_Z1f" + "P" * 4_090 + "i", None),
        ("_Z1f\x1b[31m", "_Z1f\x1b[31m"),
    ],
)
def test_demangling(mangled: str, wanted: str | None) -> None:
    """C++ and Rust names are as written, and anything else stays what it is."""
    found = demangle.demangle([mangled])[mangled]

    assert found == wanted or (wanted is None and found)


def test_name_that_expands_without_end_stays_mangled() -> None:
    """A substitution bomb neither fills memory nor takes long, and other names are still told."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    places = [f"{a}{b}" for a in ("", "1", "2") for b in digits]
    bomb = "_Z1aPFvvE" + "".join(f"PFvS{one}_S{one}_E" for one in places[0:80:2])
    dense = "_Z1zSt4pairIiiE" + "S_IS0_S0_E" * 9
    began_s = time.monotonic()

    found = demangle.demangle([bomb, dense, "_ZN4shop4sellEi"])

    assert found[bomb] == bomb
    assert found[dense].startswith("z(std::pair<int, int>, std::pair<std::pair<int, int>, ")
    assert found["_ZN4shop4sellEi"] == "shop::sell(int)"
    assert time.monotonic() - began_s < 60


@pytest.mark.parametrize("path", LIBRARIES_OF_CPLUSPLUS)
def test_names_of_a_library_are_those_of_binutils(path: Path) -> None:
    """A thousand names of a real library are told as c++filt tells them, dense ones included."""
    needs("c++filt", "nm")
    mangled = sorted({one for one in list_functions(path, "-D") if one.startswith("_Z")})
    dense = [one for one in mangled if one.count("S") + one.count("T") > 24]
    names = [*mangled[:: max(1, len(mangled) // 1_000)], *dense[:200]]

    found = demangle.demangle(names)

    wanted = subprocess.run(
        ["c++filt", "-i"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [found[one] for one in names] == wanted


@pytest.mark.parametrize(
    ("name", "limit", "wanted"),
    [
        ("short", 30, "short"),
        ("f<a<b>, c>::g(int, long)", 20, "f<...>::g(int, long)"),
        ("f<a<b, b>, c>::g(int)", 20, "f<a<...>, c>::g(int)"),
        ("x::operator<< <int, long>(y)", 27, "x::operator<< <...>(y)"),
        ("a::operator()(int, int, int) const", 30, "a::operator()(...) const"),
        ("(anonymous namespace)::f(int, int)", 30, "(anonymous namespace)::f(...)"),
        ("k" * 40 + "l" * 40, 13, "kkkkk...lllll"),
        ("k" * 40 + "<" + "l" * 40, 50, "k" * 40 + "<..."),
        ("<<((>>" * 2, 11, "<...><...>"),
        (">>))" * 3, 30, ">>))>>))>>))"),
    ],
)
def test_long_names_become_readable(name: str, limit: int, wanted: str) -> None:
    """Template arguments go first, then parameters, then the middle; operators stay."""
    found = demangle.shorten(name, limit)

    assert found == wanted


def test_answers_of_the_line_tool_are_parsed() -> None:
    """Inlined functions come first, unknown places are none, and a wrong answer is no line."""
    text = "0x10\nf\n/a b/c.c:7 (discriminator 2)\ng\n/a/c.c:9:3\n0x20\n??\n??:0\n"

    found = parse_lines(text)

    assert [[(one.function, one.file, one.line) for one in row] for row in found] == [
        [("f", "/a b/c.c", 7), ("g", "/a/c.c", 9)],
        [],
    ]
