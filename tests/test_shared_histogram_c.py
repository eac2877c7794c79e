"""perfkit_histogram.h in real programs of C and C++: threads, forks, kills, sanitizers."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from programs import running
from source_tree import ROOT

from perfkit.histogram import Histogram
from perfkit.shared_histograms import SharedHistogramReader, find_shared

SOURCES = ROOT / "tests" / "native"
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-pedantic", "-pthread")
LANGUAGES = {"c11": ("gcc", "-std=c11"), "c++17": ("g++", "-std=c++17", "-x", "c++")}
SANITIZERS = ("none", "address,undefined", "thread")
KILL_COUNT = 200
Compile = Callable[..., str]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles a program that includes the header, once for each set of flags."""
    folder = tmp_path_factory.mktemp("programs")
    made: dict[tuple[str, ...], str] = {}

    def compile_once(name: str, language: str = "c11", sanitizer: str = "none") -> str:
        key = name, language, sanitizer
        compiler, *flags = LANGUAGES[language]
        if shutil.which(compiler) is None:
            pytest.skip(f"needs {compiler}")
        if key not in made:
            program = str(folder / "-".join(key).replace(",", "-"))
            if sanitizer != "none":
                flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g"]
            command = [compiler, *STRICT, *flags, f"-I{ROOT / 'native'}", "-O2", "-o", program]
            subprocess.run([*command, str(SOURCES / name)], check=True, timeout=100)
            made[key] = program
        return made[key]

    return compile_once


def read_all(pid: int) -> SharedHistogramReader:
    """The one shared histogram of a process."""
    (reader,) = find_shared("/proc", pid).readers
    return reader


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_threads_of_a_server_lose_nothing(make: Compile, language: str, sanitizer: str) -> None:
    """More threads than shards count at once; all of it is read from outside, bucket for bucket."""
    program = make("shared_plain.c", language, sanitizer)
    plain = Histogram("us", min_value=2**-10, max_value=2**32)
    plain.record_many(range(1, 20_001))

    with running(program, "8", "20000") as (pid, words):
        reader = read_all(pid)
        read = reader.snapshot()
        at_end = subprocess.run(
            [program, "1", "10"], input="", capture_output=True, text=True, check=False
        )

    plain = Histogram.merge_all([plain] * 8)
    plain.record(0.5)
    assert read == plain
    assert read.sum == pytest.approx(plain.sum)
    assert (reader.name, reader.labels) == (
        "request_duration",
        {"stage": "tokenize", "shard": "3"},
    )
    assert reader.path == f"/proc/{pid}/fd/{words[0]}"
    assert (at_end.returncode, at_end.stderr) == (0, "")


def test_common_shard_loses_nothing(make: Compile) -> None:
    """Threads that got no shard of their own add to one at the same time."""
    with running(make("shared_plain.c"), "12", "300000") as (pid, _):
        read = read_all(pid).snapshot()

    assert read.count == 12 * 300_000 + 1
    assert read.sum == 12 * 300_000 * 300_001 / 2 + 0.5


def test_table_of_the_header_is_that_of_the_extension() -> None:
    """Every bucket begins where an exact integer root says: the table is made anew."""
    text = (ROOT / "native" / "perfkit_histogram_record.h").read_text()
    bounds = [_root(i) for i in range(64)]

    expected = [_correct(part, bounds) for part in range(128)]

    assert [int(one, 16) for one in re.findall(r"(0x[0-9a-f]{16})ULL,", text)] == expected


def _root(i: int) -> int:
    """The mantissa of the largest double up to 2^(i/64)."""
    power = 1 << (52 * 64 + i)
    low, high = 1 << 52, 1 << 53
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**64 <= power else (low, middle)
    return low - (1 << 52)


def _correct(part: int, bounds: list[int]) -> int:
    """What takes every mantissa of a part to its bucket: tried at its ends and at its bound."""
    start, end = part << 45, (part + 1) << 45
    inside = [bound for bound in bounds if start <= bound < end - 1]
    if inside:
        return ((bounds.index(inside[0]) << 46) - inside[0] - 1) % 2**64
    below = sum(bound < start for bound in bounds)
    return ((below - 1 << 46) - start) % 2**64


def test_processes_and_threads_lose_nothing_while_read(make: Compile) -> None:
    """No count falls between snapshots, and none is missing at the end: of 3 processes times 4
    threads, of forked children, and of threads that come and go."""
    program = make("shared_crowd.c")
    snapshots: list[Histogram] = []

    with running(program, "3", "4", "60000") as (pid, _):
        reader = read_all(pid)
        while not snapshots or snapshots[-1].count < 3 * 4 * 60_000:
            snapshots.append(reader.snapshot())
            assert len(snapshots) < 100_000

    for earlier, later in itertools.pairwise(snapshots[:: max(1, len(snapshots) // 300)]):
        assert (later - earlier).count == later.count - earlier.count
    assert [one.count for one in snapshots] == sorted(one.count for one in snapshots)
    assert snapshots[-1].count == reader.snapshot().count == 3 * 4 * 60_000
    assert sum(snapshots[-1].positive_buckets()[1]) == 3 * 4 * 60_000


def test_killed_writers_leave_every_reader_consistent(make: Compile) -> None:
    """Writers die in the midst of records, 200 times; others take their shards over, and of all
    that they say to have counted at most the record in flight is not there."""
    program = make("shared_killed.c")
    before = Histogram("ns", min_value=1, max_value=2**42)

    with running(program, str(KILL_COUNT)) as (pid, _):
        reader = read_all(pid)
        while before.count == 0 or before.max != 2.0**41:
            now = reader.snapshot()
            assert (now - before).count >= 0
            assert now.min is None or now.min <= now.quantile(0.5) <= (now.max or 0)
            before = now
            time.sleep(0.001)

    counted = int((before.positive_buckets()[1])[-1])
    assert counted == 1
    assert before.zero_count == 0
    assert before.nan_count == 0


def test_shard_of_a_killed_process_is_taken_with_its_counts(make: Compile) -> None:
    """What killed writers said to have done, in memory of their parent, is what is read."""
    program = make("shared_killed.c")

    done = subprocess.run(
        [program, "40", "check"], input="", capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_writer_that_is_killed_can_be_read_by_who_has_it_open(make: Compile) -> None:
    """A reader that was there before still reads all of a server that was killed."""
    with running(make("shared_plain.c"), "2", "5000") as (pid, _):
        reader = read_all(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        assert reader.snapshot().count == 10_001


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_edges_of_the_header(make: Compile, sanitizer: str) -> None:
    """Options, limits, clones, descriptors that others closed, and every kind of number."""
    program = make("shared_edges.c", "c11", sanitizer)

    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=100)

    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-2000:]
