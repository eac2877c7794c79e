"""What native frames are told in: objects and stacks of the sampler and of blocked threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from perfkit import _native
from perfkit.collectors._descriptors import to_text
from perfkit.model import Column, ColumnType, Row

KINDS = ("file", "vdso", "kernel", "anonymous")
_TEXT = ColumnType.TEXT

OBJECT_COLUMNS = (
    Column("object", help="number in this capture"),
    Column("pid", help="a process that maps it; 0 of the kernel"),
    Column("kind", type=_TEXT, help="file, vdso, kernel, anonymous"),
    Column("path", type=_TEXT, help='untrusted text, as the process sees it; "" none'),
    Column("build_id", type=_TEXT, help='hexadecimal; "" none'),
)
FRAME_COLUMNS = (
    Column("stack", help="number of the stack in this capture"),
    Column("depth", help="0 is the leaf; frames of the kernel come first"),
    Column("object"),
    Column("offset", help="of the instruction that runs, in the file; else its address"),
    Column("flags", help="1 by frame pointers, 2 guessed, 4 read late, 8 a signal came here"),
)


def to_object_rows(
    table: str, objects: Iterable[_native.NativeObject], first: int
) -> Iterator[Row]:
    """The rows of objects that are numbered from `first` on."""
    for number, (pid, kind, path, build_id) in enumerate(objects, first):
        yield Row(table, (number, pid, KINDS[kind], to_text(os.fsdecode(path)), build_id))
