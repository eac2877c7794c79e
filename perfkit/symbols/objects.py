"""The file behind a mapping, as its process sees it, if it is the one that was recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.symbols.elf import Elf, elf_of_bytes, open_elf
from perfkit.symbols.files import (
    DELETED,
    MAPS_LIMIT_BYTES,
    list_mappings,
    open_regular,
    read_text,
    without_deleted,
)

VDSO_LIMIT_BYTES = 1 << 16
MAPPINGS_MAX = 4


class Candidate(Struct, frozen=True):
    """A way to a file: a path, below another root if one is given."""

    path: Path
    root: Path | None = None


def list_candidates(proc: Path, path: str, pid: int | None) -> list[Candidate]:
    """The ways to a mapped file, the surest first: the mapping itself, its root, our own root.

    A file that is gone is not looked for by name: what bears its name now is another one, which
    only a recorded build-id could tell, and then the name is tried as well.
    """
    plain = Path(without_deleted(path))
    found: list[Candidate] = []
    if pid is not None:
        own = proc / str(pid)
        found += [Candidate(own / "map_files" / one) for one in _list_ranges(own, path)]
        if _read_link(own / "exe") == path:
            found.append(Candidate(own / "exe"))
        if plain.is_absolute():
            found.append(Candidate(plain, own / "root"))
    if plain.is_absolute():
        found.append(Candidate(plain))
    return found


@contextmanager
def open_object(
    candidates: list[Candidate], build_id: str, *, is_deleted: bool
) -> Iterator[tuple[int, Elf]]:
    """The first candidate that is the recorded file, open, with its tables.

    Raises: Unavailable, with why each candidate was refused.
    """
    reasons: list[str] = []
    for one in candidates:
        is_by_name = one.path.parts[-2:-1] != ("map_files",) and one.path.name != "exe"
        if is_deleted and is_by_name and not build_id:
            reasons.append("the file was deleted, and no build-id was recorded")
            continue
        try:
            with open_regular(one.path, one.root) as descriptor:
                elf = open_elf(descriptor)
                check_build_id(elf, build_id)
                yield descriptor, elf
                return
        except Unavailable as refused:
            reasons.append(refused.reason)
    mismatches = [reason for reason in reasons if "build-id" in reason]
    raise Unavailable((mismatches or reasons or ["no file is known"])[0])


def check_build_id(elf: Elf, build_id: str) -> None:
    """Refuses a file that is not the recorded one.

    Raises: Unavailable.
    """
    if build_id and elf.build_id != build_id:
        has = f"has build-id {elf.build_id}" if elf.build_id else "has no build-id"
        raise Unavailable(f"the file was replaced: it {has}, recorded was build-id {build_id}")


def read_vdso(proc: Path) -> Elf:
    """The kernel's own library in the memory of this process, the same for all of one kernel.

    Raises: Unavailable, if there is none.
    """
    maps = read_text(proc / "self/maps", MAPS_LIMIT_BYTES)
    found = re.search(r"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", maps, re.M)
    if not found:
        raise Unavailable("this process has no vdso")
    start, end = int(found[1], 16), int(found[2], 16)
    try:
        with open_regular(proc / "self/mem") as descriptor:
            image = os.pread(descriptor, min(end - start, VDSO_LIMIT_BYTES), start)
    except OSError as refused:
        raise Unavailable(f"cannot read the vdso: {refused.strerror}") from refused
    return elf_of_bytes(image)


def is_gone(path: str) -> bool:
    """Whether the kernel says that a mapped file is no longer there."""
    return path.endswith(DELETED)


def _list_ranges(own: Path, path: str) -> tuple[str, ...]:
    try:
        return list_mappings(read_text(own / "maps", MAPS_LIMIT_BYTES), path)[:MAPPINGS_MAX]
    except Unavailable:
        return ()


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
