"""Histograms that a server counts and others read: in C, C++ (perfkit_histogram.h) and Python."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from perfkit import _native
from perfkit._native import SharedHistogram, SharedHistogramReader

__all__ = [
    "FoundHistograms",
    "SharedHistogram",
    "SharedHistogramReader",
    "Skipped",
    "find_shared",
    "get_include",
]

# What /proc says of their files.
LINK_START = "/memfd:perfkit-histogram"
DESCRIPTOR_LIMIT = 65_536
FILE_LIMIT = 256


class Skipped(Struct, frozen=True):
    """A file or process that could not be read, and why."""

    path: str
    reason: str


class FoundHistograms(Struct, frozen=True):
    """The shared histograms of a process.

    Shape: readers in the order of their descriptors, each file once. `skipped` is what may be one
    and cannot be read, or the process itself.
    """

    readers: tuple[SharedHistogramReader, ...]
    skipped: tuple[Skipped, ...]


def find_shared(proc_root: str, pid: int) -> FoundHistograms:
    """Opens all shared histograms that a process has open; it is neither asked nor stopped.

    Processes that were forked from each other have the same files: those of equal `inode` and
    `generation`. At most 256 files, among 65,536 descriptors, are looked at, and raised is nothing:
    one bad file or process is no reason to read none.
    Source: /proc/PID/fd, which takes the same user or CAP_SYS_PTRACE.
    """
    folder = f"{proc_root}/{pid}/fd"
    try:
        links = sorted(_native.list_fds(proc_root, pid, DESCRIPTOR_LIMIT))
    except (OSError, ValueError) as error:
        return FoundHistograms((), (Skipped(folder, _word(error)),))
    paths = [f"{folder}/{number}" for number, link in links if link.startswith(LINK_START)]
    readers: dict[tuple[int, int], SharedHistogramReader] = {}
    skipped: list[Skipped] = []
    for path in paths[:FILE_LIMIT]:
        try:
            reader = SharedHistogramReader(path)
        except (OSError, ValueError) as error:
            skipped.append(Skipped(path, _word(error)))
        else:
            readers.setdefault((reader.inode, reader.generation), reader)
    if len(paths) > FILE_LIMIT:
        skipped.append(Skipped(folder, f"{len(paths) - FILE_LIMIT} more files were not looked at"))
    return FoundHistograms(tuple(readers.values()), tuple(skipped))


def _word(error: OSError | ValueError) -> str:
    """The reason by itself, without the path."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).rpartition(": ")[2]


def get_include() -> str:
    """The folder of perfkit_histogram.h, for the compiler of a server in C or C++."""
    return str(Path(_native.__file__).parent / "include")
