"""Folded stacks, one line each, as flame graph tools read them: frames, `;` between, a count.

The count is time in microseconds. The outermost frame comes first; a frame of the kernel ends in
`_[k]`, as flame graph tools colour it.
"""

from __future__ import annotations

from typing import IO, Any

from perfkit.analysis.profile import Profile, ProfileFrame
from perfkit.export._exporter import Exporter, Look
from perfkit.export._flame import to_words
from perfkit.report.escape import to_printable

NAME_LIMIT = 200
KERNEL_MARK = "_[k]"


def write(profile: Profile, out: IO[Any], look: Look) -> None:
    """Writes one line for each stack."""
    for stack in profile.stacks:
        frames = ";".join(_name(frame) for frame in stack.frames)
        out.write(f"{frames} {stack.time_us}\n")


def _name(frame: ProfileFrame) -> str:
    """A frame's name; the character that separates frames is none of it."""
    if frame.kind == "kernel":
        return to_printable(frame.name, NAME_LIMIT).replace(";", ":") + KERNEL_MARK
    return to_printable(to_words(frame), NAME_LIMIT).replace(";", ":")


EXPORTER = Exporter("folded", suffix=".folded", binary=False, write=write, of="profile")
