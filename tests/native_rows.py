"""Captures with native stacks, written by hand: rows of native_* and wall_* tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from simulate import make_table

from perfkit.model import Table

Row = dict[str, int | str | float]
SERVER, LIBC, PYTHON, KERNEL = "/srv/bin/server", "/lib/libc.so.6", "/usr/lib/libpython3.so", ""


@dataclass
class Native:
    """Stacks are "function@path<caller@path<...", leaf first; a path is given a number at need.

    `rows` are the tables so far; names are given for every frame unless it begins with "+0x".
    """

    source: str = "native"
    objects: list[Row] = field(default_factory=list)
    stacks: list[Row] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    names: list[Row] = field(default_factory=list)
    pythons: list[Row] = field(default_factory=list)
    _object_of: dict[str, int] = field(default_factory=dict)
    _place_of: dict[tuple[int, str], int] = field(default_factory=dict)
    _stack_of: dict[str, int] = field(default_factory=dict)
    _python_of: dict[str, int] = field(default_factory=dict)

    def add(self, stack: str, *, python: str = "", **values: int | str) -> None:
        """One sample: its stack, the Python frames read with it, and further columns."""
        row: Row = {"t_ns": 0, "pid": 100, "tid": 100, "stack": self.number(stack)}
        row |= {"weight_ns": 10_000_000, "end": 0}
        if self.source == "native":
            row |= {"cpu": 0, "kind": "cpu", "is_open": 0}
        else:
            row |= {"moved_ns": 0, "python_stack": self.python_number(python), "is_exact": 1}
        self.samples.append(row | values)

    def number(self, stack: str) -> int:
        """The number of a stack, of which the first use makes rows; -1 for none."""
        if not stack:
            return -1
        if stack not in self._stack_of:
            self._stack_of[stack] = len(self._stack_of)
            for depth, frame in enumerate(stack.split("<")):
                self._add_frame(self._stack_of[stack], depth, frame)
        return self._stack_of[stack]

    def python_number(self, stack: str) -> int:
        """The number of a Python stack "function<caller"; a frame entered from C ends in "!"."""
        if not stack:
            return -1
        if stack not in self._python_of:
            number = self._python_of[stack] = len(self._python_of)
            for depth, word in enumerate(stack.split("<")):
                entry = int(word.endswith("!")) if "!" in stack else -1
                name = word.rstrip("!")
                row: Row = {"stack": number, "depth": depth, "function": name}
                self.pythons.append(row | {"file": f"/app/{name}.py", "is_entry": entry})
        return self._python_of[stack]

    def tables(self, strings: list[str]) -> dict[str, Table]:
        """The tables of this source that have rows."""
        rows = {
            "objects": self.objects,
            "stacks": self.stacks,
            "samples": self.samples,
            "python_stacks": self.pythons,
        }
        return {
            f"{self.source}_{name}": make_table(f"{self.source}_{name}", found, strings)
            for name, found in rows.items()
            if found
        }

    def _add_frame(self, stack: int, depth: int, frame: str) -> None:
        function, _, path = frame.partition("@")
        number = self._object(path)
        is_new = (number, function) not in self._place_of
        unnamed = function.startswith("+0x")
        free = int(function[1:], 16) if unnamed else 0x1000 + 16 * len(self._place_of)
        offset = self._place_of.setdefault((number, function), free)
        self.stacks.append(
            {"stack": stack, "depth": depth, "object": number, "offset": offset, "flags": 0}
        )
        if is_new:
            label = path.rpartition("/")[2]
            self.names.append(
                {
                    "source": self.source,
                    "object": number,
                    "offset": offset,
                    "function": label + function if unnamed else function,
                    "start": -1 if unnamed else offset - 4,
                    "note": "stripped" if unnamed else "",
                }
            )

    def _object(self, path: str) -> int:
        if path not in self._object_of:
            number = self._object_of[path] = len(self._object_of)
            kind = {"": "kernel", "[anonymous]": "anonymous", "[vdso]": "vdso"}.get(path, "file")
            row: Row = {"object": number, "pid": 100, "kind": kind}
            self.objects.append(row | {"path": path if kind == "file" else "", "build_id": ""})
        return self._object_of[path]


def native_tables(sources: Iterable[Native], strings: list[str]) -> dict[str, Table]:
    """The tables of all sources, with one table of names."""
    found: dict[str, Table] = {}
    names: list[Row] = []
    for one in sources:
        found |= one.tables(strings)
        names += one.names
    if names:
        found["native_names"] = make_table("native_names", names, strings)
    return found
