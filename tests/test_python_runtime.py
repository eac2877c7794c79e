"""The range of CPython's runtime, on every interpreter that this machine has."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import running

from perfkit.agent.target import resolve
from perfkit.collectors._elf import ElfError, read_image
from perfkit.collectors.python_runtime import COLLECTOR, parse_maps, parse_version
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Row

TELL_RUNTIME = """
import ctypes, sys, time
runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
print(runtime, "%d.%d.%d" % sys.version_info[:3])
sys.stdout.flush()
time.sleep(60)
"""
WAIT = "import sys, time\nsys.stdout.write('up\\n')\nsys.stdout.flush()\ntime.sleep(60)"


def _find_interpreters() -> list[str]:
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(str(path) for path in home.glob("versions/3.*/bin/python3"))
    return [*found, "/usr/bin/python3"] if Path("/usr/bin/python3").exists() else found


INTERPRETERS = _find_interpreters()
OLD = [path for path in INTERPRETERS if "/3.6." in path]
NEW = [path for path in INTERPRETERS if path not in OLD]


def read_rows(pid: int) -> list[Row]:
    """What the collector tells of one process."""
    session = COLLECTOR.open(Host(), resolve(Host(), pid, True))
    return [item for item in session.poll() if isinstance(item, Row)]


@pytest.mark.parametrize("interpreter", NEW)
def test_python_runtime_is_found_where_the_interpreter_says_it_is(interpreter: str) -> None:
    """The range begins at the address of _PyRuntime and bears the interpreter's version."""
    with running(interpreter, "-c", TELL_RUNTIME) as (pid, (address, version)):
        rows = read_rows(pid)

    assert [row.values[:2] for row in rows] == [(pid, int(address))]
    assert version.startswith(str(rows[0].values[3]))
    assert 100 < int(rows[0].values[2]) - int(rows[0].values[1]) < 1 << 20


@pytest.mark.parametrize("interpreter", OLD)
def test_python_runtime_says_so_where_python_is_too_old(interpreter: str) -> None:
    """An interpreter without _PyRuntime is no silence but a reason."""
    with running(interpreter, "-c", WAIT) as (pid, _), pytest.raises(Unavailable) as absent:
        read_rows(pid)

    assert "no symbol _PyRuntime" in absent.value.reason


@pytest.mark.usefixtures("needs_root")
def test_python_runtime_is_found_in_another_mount_namespace(tmp_path: Path) -> None:
    """The file is read as the target sees it, where our own path leads nowhere."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to make a mount namespace")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    script = (
        f"mount -t tmpfs none {hidden} && cp {os.path.realpath('/usr/bin/python3')} {hidden}/py "
        f'&& exec {hidden}/py -c "$0"'
    )
    with running("unshare", "-m", "sh", "-c", script, TELL_RUNTIME) as (pid, (address, _)):
        rows = read_rows(pid)

    assert [row.values[1] for row in rows] == [int(address)]
    assert list(hidden.iterdir()) == []


@pytest.mark.usefixtures("needs_root")
def test_python_runtime_is_found_in_a_deleted_file(tmp_path: Path) -> None:
    """An interpreter that was upgraded under a running process is still read."""
    program = tmp_path / "python3"
    shutil.copy(os.path.realpath("/usr/bin/python3"), program)
    with running(str(program), "-c", TELL_RUNTIME) as (pid, (address, _)):
        program.unlink()
        rows = read_rows(pid)

    assert [row.values[1] for row in rows] == [int(address)]


def test_python_runtime_is_silent_about_other_programs() -> None:
    """A process without Python has no row and no complaint."""
    with running("sh", "-c", "echo up; exec sleep 60") as (pid, _):
        rows = read_rows(pid)

    assert rows == []


@pytest.mark.parametrize(
    ("raw", "version"),
    [(b"\xf0\x07\x0b\x03", "3.11.7"), (b"\0\0\0\0", ""), (b"", ""), (b"\xff\xff\xff\xff", "")],
)
def test_python_runtime_version_is_read_or_empty(raw: bytes, version: str) -> None:
    """PY_VERSION_HEX becomes a version; anything else becomes none."""
    assert parse_version(raw) == version


@given(st.text(max_size=400), st.text(max_size=40))
def test_python_runtime_maps_never_raise(text: str, exe: str) -> None:
    """Any text in the place of maps gives files or none."""
    parse_maps(f"0-1 r-xp 00000000 08:01 1 /python\n{text}", exe)


@given(place=st.integers(0, 4096), junk=st.binary(min_size=1, max_size=64))
def test_elf_damage_is_refused_or_harmless(
    place: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Overwritten headers either raise ElfError or give an image, and nothing else."""
    raw = bytearray(make_elf())
    raw[place % len(raw) : place % len(raw) + len(junk)] = junk
    path = tmp_path_factory.mktemp("elf") / "damaged"
    path.write_bytes(raw)
    descriptor = os.open(path, os.O_RDONLY)

    try:
        outcome = read_image(descriptor, ("_PyRuntime",)).symbols.keys()
    except ElfError:
        outcome = set()
    finally:
        os.close(descriptor)

    assert outcome <= {"_PyRuntime"}


def make_elf() -> bytes:
    """A small ELF file with one segment, a dynamic symbol table and its strings."""
    names = b"\0_PyRuntime\0"
    symbols = struct.pack("<IBBHQQ", 1, 17, 0, 1, 0x2000, 64)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, 256, 0, 64, 56, 1,
                       64, 3, 0)  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 512, 512, 4096)
    body = (head + segment).ljust(160, b"\0") + symbols.ljust(48, b"\0") + names
    sections = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    sections += struct.pack("<IIQQQQIIQQ", 0, 11, 2, 0, 160, len(symbols), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 208, len(names), 0, 0, 1, 0)
    return body.ljust(256, b"\0") + sections
