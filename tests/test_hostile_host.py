"""Files of /proc and /sys that are endless, huge, garbled or no files at all: all has an end."""

from __future__ import annotations

import os
import shutil
import struct
import time
from pathlib import Path

import pytest
from test_collectors import MAIN_PID, TREES

from perfkit.agent.machine import MACHINE_LIMIT_S, read_machine_aside
from perfkit.agent.target import resolve
from perfkit.collectors import _cgroup as cgroup
from perfkit.collectors import cpu, memory, network, pressure
from perfkit.collectors._elf import read_image
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Target


def test_endless_list_of_a_cgroup_is_cut_off(tmp_path: Path) -> None:
    """A target is resolved also where its cgroup lists processes without end."""
    shutil.copytree(TREES / "v2", tmp_path / "host", symlinks=True)
    listed = tmp_path / "host/sys/fs/cgroup/app.slice/web.service/cgroup.procs"
    listed.unlink()
    listed.symlink_to("/dev/zero")

    target = resolve(Host(tmp_path / "host/proc", tmp_path / "host/sys"), MAIN_PID, only_pid=False)

    assert target.siblings == ()


def test_wide_cgroups_are_walked_within_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many cgroups side by side so many are looked at as the limit allows."""
    for number in range(50):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr(cgroup, "ENTRY_LIMIT", 20)

    found = list(cgroup.walk(tmp_path, 1000))

    assert len(found) == 21


@pytest.mark.parametrize("line", ["cpu0 " + "9" * 5000, "ctxt", "ctxt x", "procs_running -1"])
def test_cpu_leaves_out_what_is_malformed(line: str) -> None:
    """Counters that are no numbers, or beyond any, give no reading and no error."""
    assert list(cpu.parse_stat(f"{line}\n")) == []


@pytest.mark.parametrize("text", ["", "\0", "\n", "x y", "nan", "inf 1", "-1", "9" * 5000, "²"])
def test_load_that_is_none_is_said_to_be_none(text: str) -> None:
    """What is no load average is unavailable, by the name of its file."""
    with pytest.raises(Unavailable, match="/proc/loadavg cannot be understood"):
        cpu.parse_load1(text)


@pytest.mark.parametrize("text", ["", "\n\n", "some", "some total=", f"some total={'9' * 30}"])
def test_pressure_without_a_total_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    """A pressure file that tells no total is unavailable, by its name."""
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/cpu").write_text(text)

    with pytest.raises(Unavailable, match="/proc/pressure/cpu cannot be understood"):
        list(pressure.read(Host(tmp_path, tmp_path), Target("host", 0, "", "")))


def test_numbers_beyond_any_counter_are_left_out() -> None:
    """Thousands of digits give no reading and no error, whichever file they stand in."""
    digits = "9" * 5000
    found = [
        *memory.parse_meminfo(f"MemTotal: {digits} kB\n"),
        *memory.parse_vmstat(f"pgfault {digits}\n"),
        *network.parse_sockets(f"TCP: inuse {digits} mem {digits}\n"),
        *network.parse_softnet("f" * 5000),
    ]

    assert found == []


def test_machine_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    """Where a program that serves /proc/meminfo hangs, the capture does without the machine."""
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name : X\n")
    os.mkfifo(tmp_path / "meminfo")

    begin_s = time.monotonic()
    machine = read_machine_aside(Host(tmp_path, tmp_path))
    took_s = time.monotonic() - begin_s
    os.close(os.open(tmp_path / "meminfo", os.O_WRONLY | os.O_NONBLOCK))

    assert (machine.cpu_model, machine.memory_bytes) == ("", 0)
    assert took_s < MACHINE_LIMIT_S + 1


def test_program_with_thousands_of_symbol_tables_is_read_soon(tmp_path: Path) -> None:
    """A crafted program keeps perfkit busy for no longer than a real one."""
    names, count, table_bytes = b"\0_PyRuntime\0" * 100_000, 8000, 4_800_000
    header = struct.Struct("<16sHHIQQQIHHHHHH")
    section = struct.Struct("<IIQQQQIIQQ")
    first = header.size + section.size * (count + 2)
    sections = section.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    sections += section.pack(0, 3, 0, 0, first, len(names), 0, 0, 1, 0)
    sections += section.pack(0, 2, 0, 0, first + len(names), table_bytes, 1, 0, 8, 24) * count
    identity = b"\x7fELF\x02\x01".ljust(16, b"\0")
    program = tmp_path / "python3"
    program.write_bytes(
        header.pack(identity, 2, 62, 1, 0, 0, header.size, 0, 64, 56, 0, 64, count + 2, 1)
        + sections
        + names
        + bytes(table_bytes)
    )

    begin_s = time.thread_time()
    with program.open("rb") as opened:
        image = read_image(opened.fileno(), ("_PyRuntime", "Py_Version"))
    took_s = time.thread_time() - begin_s

    assert image.symbols == {}
    assert took_s < 2
