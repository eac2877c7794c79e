"""The example servers of docs/shared-histograms.md run, and are read as the page says."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from programs import running
from source_tree import ROOT

from perfkit import find_shared, get_include
from perfkit.histogram import Histogram

PAGE = (ROOT / "docs" / "shared-histograms.md").read_text()
ANSWER_COUNT = 7
PATIENCE_S = 10.0


def take_example(language: str) -> str:
    """The first block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    assert found is not None
    return found[1]


def read_until(pid: int, count: int) -> Histogram:
    """What the one histogram of the page's servers has when it has counted so many."""
    (reader,) = find_shared("/proc", pid).readers
    assert (reader.name, reader.unit) == ("answer_duration", "s")
    assert reader.labels == {"stage": "answer"}
    deadline = time.monotonic() + PATIENCE_S
    while (read := reader.snapshot()).count < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return read


def test_server_in_python_is_read(tmp_path: Path) -> None:
    """The server in Python counts each of its answers."""
    (tmp_path / "server.py").write_text(take_example("python"))

    with running(sys.executable, str(tmp_path / "server.py")) as (pid, words):
        for _ in range(ANSWER_COUNT):
            urllib.request.urlopen(f"http://127.0.0.1:{words[0]}/", timeout=10).read()
        read = read_until(pid, ANSWER_COUNT)

    assert read.count == ANSWER_COUNT
    assert 0 < (read.min or 0) <= (read.max or 0) < 10


def test_server_in_cpp_is_read(tmp_path: Path) -> None:
    """The server in C++ is compiled as the page says, and counts each of its answers."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    (tmp_path / "server.cpp").write_text(take_example("cpp"))
    flags = ["-std=c++17", "-O2", "-pthread", "-Wall", "-Wextra", "-Werror", f"-I{get_include()}"]
    command = ["g++", *flags, "server.cpp", "-o", "server"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=100)

    with running(str(tmp_path / "server")) as (pid, words):
        for _ in range(ANSWER_COUNT):
            with socket.create_connection(("127.0.0.1", int(words[0])), 10) as client:
                assert client.recv(16) == b"done\n"
        read = read_until(pid, ANSWER_COUNT)

    assert read.count == ANSWER_COUNT
    assert 0 < (read.min or 0) <= (read.max or 0) < 10
