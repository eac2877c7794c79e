"""Files that are no shared histogram, or a damaged one: refused with a reason, never a signal."""

from __future__ import annotations

import fcntl
import math
import os
from pathlib import Path
from typing import Any

import pytest
from shared_files import (
    APART_AT,
    GENERATION_AT,
    HEAD_BYTES,
    HEADER_BYTES,
    LABELS_AT,
    MAX_AT,
    MIN_AT,
    NAME_AT,
    SEALS,
    SUM_AT,
    Change,
    like,
    read_file,
    sealed,
    write_bytes,
    write_number,
)

from perfkit.histogram import Histogram
from perfkit.shared_histograms import SharedHistogram, SharedHistogramReader

DAMAGES: dict[str, tuple[Change, str]] = {
    "magic": (write_bytes(0, b"HISTO"), "no shared histogram"),
    "byte order": (write_number(">I", 8, 0x01020304), "another byte order"),
    "no byte order": (write_number("<I", 8, 7), "damaged"),
    "version": (write_number("<H", 12, 2), "does not know"),
    "not begun": (write_number("<Q", GENERATION_AT, 0), "not ready"),
    "half written": (write_number("<Q", GENERATION_AT, 7), "not ready"),
    "checksum": (write_number("<I", 76, 1, is_signed=False), "damaged"),
    "header size": (write_number("<H", 14, 512), "damaged"),
    "more promised": (write_number("<Q", 16, 1 << 40), "damaged"),
    "scale": (write_number("<I", 56, 7), "damaged"),
    "slots": (write_number("<I", 60, 1 << 31), "damaged"),
    "shards": (write_number("<I", 64, 0xFFFFFFFF), "damaged"),
    "no shards": (write_number("<I", 64, 0), "damaged"),
    "stride": (write_number("<I", 68, 0), "damaged"),
    "range": (write_number("<i", 48, -(2**31)), "damaged"),
    "name": (write_bytes(NAME_AT, b"\x1b[2J"), "name, unit or labels"),
    "endless name": (write_bytes(NAME_AT, b"a" * 64), "name, unit or labels"),
    "unit": (write_bytes(NAME_AT + 64, b"\xff"), "name, unit or labels"),
    "labels": (write_bytes(LABELS_AT, b"x" * 768), "name, unit or labels"),
    "label twice": (write_bytes(LABELS_AT, b"a=1\0a=2\0"), "name, unit or labels"),
    "shorter": (lambda content: content.__delitem__(slice(5000, None)), "size"),
    "no shard": (lambda content: content.__delitem__(slice(HEADER_BYTES, None)), "size"),
    "half a header": (lambda content: content.__delitem__(slice(100, None)), "too short"),
    "nothing": (lambda content: content.clear(), "too short"),
    "longer": (lambda content: content.extend(bytes(8)), "size"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(damage: str) -> None:
    """Truncated, half-written, foreign and rewritten headers are ValueErrors that say so."""
    content = read_file(SharedHistogram("latency", labels={"a": "b"}))
    change, reason = DAMAGES[damage]
    change(content)

    with sealed(content) as path, pytest.raises(ValueError, match=reason):
        SharedHistogramReader(path)


def test_untouched_copy_is_read() -> None:
    """The damages above are what is refused: the same bytes without them are read."""
    shared = SharedHistogram("latency")
    shared.record(3)

    with sealed(read_file(shared)) as path:
        read = SharedHistogramReader(path).snapshot()

    assert read == like([3])


@pytest.mark.parametrize("kept", [0, fcntl.F_SEAL_SHRINK, SEALS - fcntl.F_SEAL_SHRINK])
def test_unsealed_files_are_refused(kept: int) -> None:
    """A file that could shrink while it is mapped is never mapped."""
    content = read_file(SharedHistogram("latency"))

    with sealed(content, kept) as path, pytest.raises(ValueError, match="not sealed"):
        SharedHistogramReader(path)


def test_files_on_file_systems_are_refused(tmp_path: Path) -> None:
    """What is no memfd is not opened: pipes, devices, folders, and ordinary files."""
    content = read_file(SharedHistogram("latency"))
    (tmp_path / "file").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "file", tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match="no memfd"):
            SharedHistogramReader(str(path))


@pytest.mark.parametrize("layout", ["<Q", "<d"])
@pytest.mark.parametrize("value", [0, 1, 2**62, 2**63 - 1, 2**64 - 1, math.nan, math.inf, -1e300])
@pytest.mark.parametrize(
    "at", [0, SUM_AT, MIN_AT, MAX_AT, APART_AT, APART_AT + 56, HEAD_BYTES + 800]
)
def test_hostile_counts_are_refused_or_read(layout: str, value: float, at: int) -> None:
    """Whatever stands among the counts, it is refused, or is a histogram like any other."""
    shared = SharedHistogram("latency", shard_count=2)
    shared.record(1000.0)
    content = read_file(shared)
    stride = (len(content) - HEADER_BYTES) // 3
    number: Any = float(value) if layout == "<d" else int(value) if math.isfinite(value) else 7
    if layout == "<Q":
        number %= 2**64
    for shard in range(3):
        write_number(layout, HEADER_BYTES + stride * shard + at, number)(content)

    with sealed(content) as path:
        try:
            read = SharedHistogramReader(path).snapshot()
        except ValueError as error:
            assert "2**63 - 1" in str(error)
            return

    assert Histogram.from_bytes(read.to_bytes()) == read
    assert read.min is None or read.max is None or read.min <= read.quantile(0.5) <= read.max


def test_header_that_is_written_over_is_refused() -> None:
    """A snapshot of a file that its owner makes anew says so."""
    with sealed(read_file(SharedHistogram("latency"))) as path:
        reader = SharedHistogramReader(path)
        with open(path, "r+b") as file:
            file.seek(GENERATION_AT)
            file.write(bytes(8))

        with pytest.raises(ValueError, match="written over"):
            reader.snapshot()


def test_counts_that_wrap_around_are_refused() -> None:
    """Counts of shards whose sum is a small number again, modulo 2^64, are too many."""
    content = read_file(SharedHistogram("latency", shard_count=4))
    stride = (len(content) - HEADER_BYTES) // 5
    for shard in range(1, 5):
        write_number("<Q", HEADER_BYTES + stride * shard, 1)(content)
        write_number("<Q", HEADER_BYTES + stride * shard + HEAD_BYTES, 2**62)(content)

    with sealed(content) as path, pytest.raises(ValueError, match="counts more than"):
        SharedHistogramReader(path).snapshot()
