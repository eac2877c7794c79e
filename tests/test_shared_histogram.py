"""perfkit.SharedHistogram: what a server counts, and what others read of it without its help."""

from __future__ import annotations

import fcntl
import math
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from histogram_oracle import to_float
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_files import (
    APART_AT,
    GENERATION_AT,
    HEAD_BYTES,
    HEADER_BYTES,
    LABELS_AT,
    NAME_AT,
    SEALS,
    SUM_AT,
    Change,
    read_file,
    sealed,
    write_bytes,
    write_number,
)
from source_tree import ROOT
from test_histogram import list_typed

import perfkit
from perfkit.histogram import Histogram
from perfkit.shared_histograms import (
    LINK_START,
    SharedHistogram,
    SharedHistogramReader,
    find_shared,
    get_include,
)

NUMBERS = st.one_of(
    st.floats(min_value=0),
    st.floats(0.25, 2.0**45),
    st.integers(0x3FE << 52, 0x42C << 52).map(to_float),
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.0, 2.0**42, 1e308]),
)


def path_of(shared: SharedHistogram) -> str:
    """The path by which this process's file is opened."""
    return f"/proc/{os.getpid()}/fd/{shared.fileno()}"


def like(values: list[float]) -> Histogram:
    """A plain histogram with the range of a shared one in ns."""
    histogram = Histogram(min_value=1, max_value=2**42)
    histogram.record_many(values)
    return histogram


@given(st.lists(NUMBERS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_shared_and_plain_histograms_count_alike(values: list[float]) -> None:
    """The same numbers are in the same buckets, with the same counts beside, min, max and sum."""
    shared = SharedHistogram("latency")

    for value in values:
        shared.record(value)

    read, plain = SharedHistogramReader(path_of(shared)).snapshot(), like(values)
    assert read == plain == shared.snapshot()
    assert read.sum == pytest.approx(plain.sum)


def test_bounds_of_all_buckets_are_exact() -> None:
    """The number at each bound, and its neighbours, are where the plain histogram has them."""
    edges = [math.ldexp(2 ** (i / 64), e) for i in range(64) for e in (-0, 7, 41)]
    values = [near for one in edges for near in (one, math.nextafter(one, 0), one * (1 + 2**-52))]
    shared = SharedHistogram("latency")

    for value in values:
        shared.record(value)

    assert shared.snapshot() == like(values)


def test_negative_values_are_counted_without_buckets() -> None:
    """A clock that went back is seen: in negative_count, min and sum."""
    shared = SharedHistogram("latency")

    for value in (-5.0, -1e-310, 7.0, -math.inf):
        shared.record(value)

    read = shared.snapshot()
    assert (read.negative_count, read.subnormal_count, read.count) == (2, 1, 4)
    assert (read.min, read.max, read.sum) == (-math.inf, 7.0, 2.0)
    assert Histogram.from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize(
    ("unit", "low", "high"), [("us", 2**-10, 2**32), ("s", 2**-30, 2**12), ("bytes", 1, 2**42)]
)
def test_range_follows_the_unit(unit: str, low: float, high: float) -> None:
    """Times have buckets from 1 ns to 73 minutes in every unit, other values from 1 to 2^42."""
    shared = SharedHistogram("latency", unit)

    for value in (low, high, low / 2, high * 2):
        shared.record(value)

    read = shared.snapshot()
    assert (sum(read.positive_buckets()[1]), read.under_count, read.over_count) == (2, 1, 1)
    assert (read.unit, shared.unit, shared.name) == (unit, unit, "latency")


def test_header_says_what_is_counted() -> None:
    """Name, unit and labels travel with the file; so does who made it."""
    labels = {"stage": "tokenize", "model": "größe=7 b", "empty": ""}
    shared = SharedHistogram("queue.wait:p-1", "ms", labels=labels, min_value=0.5, max_value=8)

    reader = SharedHistogramReader(path_of(shared))

    assert (reader.name, reader.unit, reader.labels) == ("queue.wait:p-1", "ms", labels)
    assert (reader.creator_pid, reader.path, shared.labels) == (os.getpid(), path_of(shared), labels)
    assert reader.inode == os.fstat(shared.fileno()).st_ino
    assert reader.generation > 0
    assert reader.generation % 2 == 0


def test_file_is_sealed_and_named() -> None:
    """Nobody can take the file from under its writer, and its link says that it is ours."""
    shared = SharedHistogram("latency")

    with pytest.raises(PermissionError):
        os.ftruncate(shared.fileno(), 0)

    assert fcntl.fcntl(shared.fileno(), fcntl.F_GET_SEALS) & SEALS == SEALS
    assert os.readlink(path_of(shared)).startswith(LINK_START)
    assert not os.get_inheritable(shared.fileno())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: SharedHistogram(), TypeError),
        (lambda: SharedHistogram(""), ValueError),
        (lambda: SharedHistogram("x" * 64), ValueError),
        (lambda: SharedHistogram("a/b"), ValueError),
        (lambda: SharedHistogram("a\0b"), ValueError),
        (lambda: SharedHistogram("größe"), ValueError),
        (lambda: SharedHistogram("a", "u" * 64), ValueError),
        (lambda: SharedHistogram("a", "\n"), ValueError),
        (lambda: SharedHistogram("a", labels={"a=b": "c"}), ValueError),
        (lambda: SharedHistogram("a", labels={"": "c"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "b\0"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "\x1b"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "\ud800"}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": "x" * 766}), ValueError),
        (lambda: SharedHistogram("a", labels={f"a{i}": "" for i in range(17)}), ValueError),
        (lambda: SharedHistogram("a", labels={"a": 1}), TypeError),
        (lambda: SharedHistogram("a", labels=7), TypeError),
        (lambda: SharedHistogram("a", min_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=0, max_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=2, max_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=math.nan, max_value=1), ValueError),
        (lambda: SharedHistogram("a", min_value=1, max_value=2.0**128), ValueError),
        (lambda: SharedHistogram("a", min_value=1, max_value=math.inf), ValueError),
        (lambda: SharedHistogram("a", shard_count=0), ValueError),
        (lambda: SharedHistogram("a", shard_count=1025), ValueError),
        (lambda: SharedHistogram("a").record("1"), TypeError),
        (lambda: SharedHistogram("a").stop(2**62), ValueError),
        (lambda: SharedHistogram("a", "bytes").start(), ValueError),
        (lambda: SharedHistogram("a", "bytes").timer(), ValueError),
        (lambda: SharedHistogramReader("/proc/self/fd/987654"), FileNotFoundError),
        (lambda: SharedHistogramReader("/proc\0"), ValueError),
        (lambda: SharedHistogramReader(b"/proc"), TypeError),
    ],
)
def test_what_is_wrong_is_refused(call: Callable[[], object], error: type[Exception]) -> None:
    """A wrong argument raises the error that the types promise."""
    with pytest.raises(error):
        call()


def test_times_are_counted() -> None:
    """Blocks and intervals are counted, the unit being one of time."""
    shared = SharedHistogram("latency", "s")

    with shared.timer():
        shared.stop(shared.start())

    assert shared.snapshot().count == 2
    assert 0 < (shared.snapshot().max or 0) < 1


def test_types_say_what_the_extension_has() -> None:
    """_native.pyi lists the methods of both types, and each describes itself or is a property."""
    for type_ in (SharedHistogram, SharedHistogramReader):
        had = {name for name in vars(type_) if not name.startswith("_")}
        assert had == {name for name in list_typed()[type_.__name__] if not name.startswith("_")}


def test_package_has_them() -> None:
    """All that is public can be taken from the package."""
    assert perfkit.SharedHistogram is SharedHistogram
    assert perfkit.SharedHistogramReader is SharedHistogramReader
    assert perfkit.find_shared is find_shared


def test_headers_lie_where_the_package_says() -> None:
    """get_include() leads to the headers of the source tree."""
    names = {path.name for path in (ROOT / "native").glob("perfkit_histogram*.h")}

    found = {path.name: path.read_text() for path in Path(perfkit.get_include()).iterdir()}

    assert found == {name: (ROOT / "native" / name).read_text() for name in names}
    assert get_include() == perfkit.get_include()


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
@pytest.mark.parametrize("at", [0, SUM_AT, 16, 24, APART_AT, APART_AT + 56, HEAD_BYTES + 800])
def test_hostile_counts_are_refused_or_read(layout: str, value: float, at: int) -> None:
    """Whatever stands among the counts, the snapshot is refused or is a histogram like any other."""
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
            assert "2**63 - 1" in str(error)  # noqa: PT017 (either is right)
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


def test_reader_outlives_the_writer() -> None:
    """What was counted can be read after its process is gone."""
    shared = SharedHistogram("latency")
    shared.record(9)
    reader = SharedHistogramReader(path_of(shared))

    del shared

    assert reader.snapshot() == like([9])


def test_histograms_of_a_process_are_found() -> None:
    """All files of a process are listed once; what is none of ours, or damaged, stops nothing."""
    before = {one.inode for one in find_shared("/proc", os.getpid()).readers}
    shared = [SharedHistogram("first"), SharedHistogram("second", "s")]
    copied = os.dup(shared[0].fileno())

    with sealed(b"PKSHIST\nbut no more") as path:
        found = find_shared("/proc", os.getpid())
    os.close(copied)

    names = [one.name for one in found.readers if one.inode not in before]
    assert names == ["first", "second"]
    assert [(one.path.split("/")[-1], one.reason) for one in found.skipped] == [
        (path.split("/")[-1], "it is too short for a shared histogram")
    ]


def test_process_that_is_gone_has_none() -> None:
    """Of a process that cannot be looked at there is the reason."""
    found = find_shared("/proc", 2**30)

    assert (found.readers, len(found.skipped)) == ((), 1)
    assert found.skipped[0].reason == "No such file or directory"


def run(program: str) -> str:
    """What a Python program prints."""
    head = "import os, sys, resource, threading; import perfkit\n"
    done = subprocess.run(
        [sys.executable, "-c", head + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    ("limit", "value", "error"),
    [("FSIZE", 100_000, "EFBIG"), ("NOFILE", 3, "EMFILE"), ("AS", 1, "ENOMEM")],
)
def test_lack_of_room_is_an_error(limit: str, value: int, error: str) -> None:
    """At a limit of the process making one is an OSError, and nothing else happens."""
    told = run(
        "import errno, _ctypes\nfrom perfkit import SharedHistogram\n"
        f"resource.setrlimit(resource.RLIMIT_{limit}, ({value}, {value}))\n"
        "try: SharedHistogram('a')\n"
        "except OSError as error: os.write(1, errno.errorcode[error.errno].encode())\n"
    )

    assert told == error


def test_forked_children_count_in_shards_of_their_own() -> None:
    """Children that record at once, and their parent, lose no count, in one file."""
    told = run(
        "h = perfkit.SharedHistogram('a', shard_count=8); h.record(1)\n"
        "r, w = os.pipe()\n"
        "for i in range(4):\n"
        "    if os.fork() == 0:\n"
        "        os.close(w); os.read(r, 1)\n"
        "        for _ in range(20000): h.record(7)\n"
        "        os._exit(0)\n"
        "os.close(w)\n"
        "for _ in range(20000): h.record(7)\n"
        "for i in range(4): os.wait()\n"
        "print(h.snapshot().positive_buckets()[1][-1], h.snapshot().count)\n"
    )

    assert told == "100000 100001\n"


def test_children_beyond_the_shards_lose_nothing() -> None:
    """Who gets no shard shares one; a shard of a child that ended is taken, with its counts."""
    told = run(
        "h = perfkit.SharedHistogram('a', shard_count=2)\n"
        "for i in range(6):\n"
        "    if os.fork() == 0:\n"
        "        for value in (7, -1, 0, 1e300, float('nan'), 0.25) * 5000: h.record(value)\n"
        "        os._exit(0)\n"
        "for i in range(6): os.wait()\n"
        "for i in range(3):\n"
        "    if os.fork() == 0: h.record(7); os._exit(0)\n"
        "    os.wait()\n"
        "s = h.snapshot()\n"
        "print(s.count, s.nan_count, s.zero_count, s.negative_count, s.over_count, s.under_count)\n"
        "print(s.positive_buckets()[1], s.min, s.max)\n"
    )

    assert told == "150003 30000 30000 30000 60000 30000\n[30003] -1.0 1e+300\n"


def test_sub_interpreters_have_histograms_of_their_own() -> None:
    """An interpreter inside of the process counts in its own file."""
    told = run(
        "import _xxsubinterpreters as interpreters\n"
        "h = perfkit.SharedHistogram('outer'); h.record(1)\n"
        "interpreters.run_string(interpreters.create(), '''if True:\n"
        "    import perfkit, os\n"
        "    h = perfkit.SharedHistogram('inner'); h.record(2); h.record(3)\n"
        "    found = perfkit.find_shared('/proc', os.getpid()).readers\n"
        "    print(sorted((one.name, one.snapshot().count) for one in found), flush=True)''')\n"
        "h.record(4); print(h.snapshot().count)\n"
    )

    assert told == "[('inner', 2), ('outer', 1)]\n2\n"


def test_threads_of_python_lose_nothing() -> None:
    """All threads may record, while snapshots are taken whose counts never fall."""
    shared = SharedHistogram("latency")
    counts: list[int] = []

    def record() -> None:
        for value in range(1, 20_001):
            shared.record(value)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counts.append(shared.snapshot().count)
    for thread in threads:
        thread.join()

    assert counts == sorted(counts)
    assert shared.snapshot().count == 80_000


def test_nothing_leaks() -> None:
    """Memory and descriptors are flat, however many come and go."""

    def use_all() -> None:
        shared = SharedHistogram("latency", labels={"a": "b"}, shard_count=2)
        with shared.timer():
            shared.record(1)
        SharedHistogramReader(path_of(shared)).snapshot()
        for wrong in (lambda: SharedHistogram("a", labels={"a b": "c"}), lambda: shared.stop(-1)):
            with pytest.raises(ValueError, match="a"):
                wrong()

    for _ in range(50):
        use_all()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/fd"))

    for _ in range(400):
        use_all()

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[0] < 2000
    assert len(os.listdir("/proc/self/fd")) == before[1]
