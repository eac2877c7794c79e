"""Kernel functions by run-time address, from /proc/kallsyms of the very boot that was recorded."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.symbols.elf import find_build_id
from perfkit.symbols.files import open_regular, read_text, read_whole

KALLSYMS_LIMIT_BYTES = 1 << 27
SYMBOLS_MAX = 2_000_000
# kallsyms tells no sizes: this far at most a function reaches beyond its start.
FUNCTION_LIMIT_BYTES = 1 << 20
GRANT = "CAP_SYSLOG, or kernel.kptr_restrict=0"


class KernelSymbols(Struct, frozen=True):
    """Functions by ascending address; the names hold the module as kallsyms has it, tab and all."""

    starts: list[int]
    names: list[str]


def parse_kallsyms(text: str) -> KernelSymbols:
    """The functions of a kallsyms file.

    Of several names of one address global ones win, then short ones, then the first by text.
    Raises: Unavailable, if the kernel hides its addresses or lists nothing.
    """
    best: dict[int, tuple[bool, int, str]] = {}
    count = 0
    for line in text.splitlines()[:SYMBOLS_MAX]:
        fields = line.split(" ", 2)
        if len(fields) != 3 or fields[1] not in "tTwW":
            continue
        count += 1
        start = _parse_hex(fields[0])
        rival = (fields[1] not in "TW", len(fields[2]), fields[2])
        if start and (start not in best or rival < best[start]):
            best[start] = rival
    if not best:
        reason = "the kernel hides its addresses" if count else "the kernel lists no functions"
        raise Unavailable(f"/proc/kallsyms: {reason}", grant=GRANT)
    starts = sorted(best)
    return KernelSymbols(starts, [best[start][2] for start in starts])


def read_kernel(proc: Path) -> KernelSymbols:
    """The functions of the running kernel; some 100 ms."""
    return parse_kallsyms(read_text(proc / "kallsyms", KALLSYMS_LIMIT_BYTES))


def read_boot_id(proc: Path) -> str:
    """The identity of this boot: another one has the kernel's functions at other addresses."""
    return read_text(proc / "sys/kernel/random/boot_id", 128).strip()


def read_kernel_build_id(notes: Path) -> str:
    """The build-id of the running kernel, from /sys/kernel/notes; empty where it has none."""
    with open_regular(notes) as descriptor:
        return find_build_id(read_whole(descriptor, 1 << 16))


def find_kernel(symbols: KernelSymbols, address: int) -> tuple[str, str, int, int] | None:
    """Name, module ("" for the kernel itself), size and offset of the function at an address."""
    index = bisect_right(symbols.starts, address) - 1
    if index < 0:
        return None
    start = symbols.starts[index]
    following = symbols.starts[index + 1 : index + 2] or [start + FUNCTION_LIMIT_BYTES]
    size_bytes = min(following[0] - start, FUNCTION_LIMIT_BYTES)
    if address - start >= size_bytes:
        return None
    name, _, module = symbols.names[index].partition("\t")
    return name, module.strip("[]"), size_bytes, address - start


def _parse_hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
