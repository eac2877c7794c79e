"""Shared histograms of several processes, threads and interpreters: found, and none of it lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from shared_files import sealed

from perfkit.shared_histograms import SharedHistogram, find_shared


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
