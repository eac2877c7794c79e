"""One address has one name: aliases, functions in functions, labels; and tables that lie."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import zstandard
from elf_programs import needs, run

from perfkit.errors import Unavailable
from perfkit.symbols import cache
from perfkit.symbols.elf import elf_of_bytes
from perfkit.symbols.sources import Places, read_table
from perfkit.symbols.table import Table, find_address

ASSEMBLY = """
.macro function name, at, size, binding=globl
.\\binding \\name
.type \\name, @function
.set \\name, start + \\at
.size \\name, \\size
.endm
.text
start: .fill 256, 1, 0x90
function outer, 16, 100
function inner, 32, 8
function zz_global, 128, 4
function weak_longer, 128, 16, weak
function aa_local, 128, 32, local
function _hidden, 160, 8
function plain, 160, 8
function long_name, 176, 8
function name_b, 176, 8
function name_a, 176, 8
.set label_inside, start + 60
.set label_outside, start + 200
.globl label_inside
.globl label_outside
"""


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """The table of a library whose functions lie in and on one another, from `start` on."""
    needs("gcc")
    (tmp_path / "code.s").write_text(ASSEMBLY)
    run("gcc", "-shared", "-nostdlib", "-Wl,--build-id", "-o", tmp_path / "code.so",
        tmp_path / "code.s")  # fmt: skip
    raw = (tmp_path / "code.so").read_bytes()
    return read_table(elf_of_bytes(raw), "", Places(roots=())).table


@pytest.mark.parametrize(
    ("into", "wanted"),
    [
        (0, ("start", 0)),
        (15, ("start", 15)),
        (16, ("outer", 0)),
        (35, ("inner", 3)),
        (40, ("outer", 24)),
        (61, ("outer", 45)),
        (116, None),
        (131, ("zz_global", 3)),
        (133, None),
        (161, ("plain", 1)),
        (177, ("name_a", 1)),
        (190, None),
        (255, ("label_outside", 55)),
        (256, None),
    ],
)
def test_address_has_one_name(table: Table, into: int, wanted: tuple[str, int] | None) -> None:
    """Holes have no name, the innermost function wins, and of aliases the one that people know."""
    start = int(table.starts[0])

    row = find_address(table, start + into)

    assert (row and (row.name, row.offset)) == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"starts": np.array([5, 5], "<u8").tobytes()},
        {"starts": np.array([5, 1 << 63], "<u8").tobytes()},
        {"starts": b"\0" * 15},
        {"sizes": np.array([1, 0], "<u4").tobytes()},
        {"names": np.array([0, 5], "<u4").tobytes()},
        {"origins": b"\0\x09"},
        {"segments": [[-1, 0, 64, True]]},
        {"segments": "all"},
        {"strings": ""},
    ],
)
def test_table_that_does_not_hold_is_refused(change: dict[str, object]) -> None:
    """A sound frame around numbers that cannot be is no symbol file, and a sound one is."""
    sound = {
        "build_id": "0123",
        "is_complete": True,
        "segments": [[0, 0, 64, True]],
        "starts": np.array([5, 9], "<u8").tobytes(),
        "sizes": np.array([1, 1], "<u4").tobytes(),
        "names": np.array([0, 2], "<u4").tobytes(),
        "origins": b"\0\0",
        "strings": b"a\0b\0",
    }
    files = [
        cache.MAGIC + zstandard.compress(msgspec.msgpack.encode(one))
        for one in (sound, sound | change)
    ]

    row = find_address(cache.parse_table(files[0]), 9)

    assert row is not None and row.name == "b"
    with pytest.raises(Unavailable, match="damaged"):
        cache.parse_table(files[1])
