"""What /proc/PID tells of one process: pure parsers, and the bounded reads that feed them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host

KERNEL_THREAD_FLAG = 0x00200000
GONE_LETTERS = "ZXx"
TICKS_PER_SECOND = 100  # USER_HZ, fixed in the ABI of every Linux machine that perfkit runs on
NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND
STAT_LIMIT_BYTES = 4096
STATUS_LIMIT_BYTES = 16384
DESCRIPTOR_LIMIT = 65_536
DIGIT_LIMIT = 18  # what always fits the 64 bits of a column
COUNTER_DIGIT_LIMIT = 20
PID_DIGIT_LIMIT = 7  # 4,194,304, the largest pid_max there is
CPU_DIGIT_LIMIT = 6
# Thousands take 10 ms and more to list, which once in a window of 10 s is enough.
DESCRIPTORS_KEPT_NS_MAX = 15_000_000_000


class ProcStat(Struct, frozen=True):
    """The fields of /proc/PID/stat that perfkit uses; the name is untrusted text."""

    pid: int
    name: str
    state: str
    parent_pid: int
    flags: int
    minor_faults: int
    cpu_ticks: int
    nice: int
    thread_count: int
    start_ticks: int
    policy: int

    @property
    def is_gone(self) -> bool:
        """Whether nothing of the process runs any more (a zombie waits only to be reaped)."""
        return self.state in GONE_LETTERS

    @property
    def is_kernel(self) -> bool:
        """Whether it is a thread of the kernel, without user memory."""
        return bool(self.flags & KERNEL_THREAD_FLAG)


def is_count(word: str) -> bool:
    """Whether a word is a whole number that a counter of the kernel can hold."""
    return word.isdecimal() and len(word) <= COUNTER_DIGIT_LIMIT


def parse_number(word: str, absent: int = -1) -> int:
    """Reads a whole number of at most DIGIT_LIMIT digits; `absent` for anything else."""
    return int(word) if word.isdecimal() and len(word) <= DIGIT_LIMIT else absent


def _to_int(word: str) -> int:
    """Reads a field of stat. Raises: ValueError where it is none that fits a column."""
    if len(word) > DIGIT_LIMIT + 1:
        raise ValueError("too many digits")
    return int(word)


def parse_stat(text: str) -> ProcStat:
    """Reads the text of /proc/PID/stat. Raises: `Unavailable` where it is cut or malformed."""
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition("(")
    fields = tail.split()
    try:
        return ProcStat(
            pid=_to_int(pid.strip()),
            name=name,
            state=fields[0],
            parent_pid=_to_int(fields[1]),
            flags=_to_int(fields[6]),
            minor_faults=_to_int(fields[7]),
            cpu_ticks=_to_int(fields[11]) + _to_int(fields[12]),
            nice=_to_int(fields[16]),
            thread_count=_to_int(fields[17]),
            start_ticks=_to_int(fields[19]),
            policy=_to_int(fields[38]) if len(fields) > 38 else -1,
        )
    except (ValueError, IndexError) as error:
        raise Unavailable(f"/proc/{pid.strip()[:16]}/stat cannot be understood") from error


def parse_status(text: str) -> dict[str, str]:
    """Reads the `Key: value` lines of /proc/PID/status; the first of each key holds."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            found.setdefault(key, value.strip())
    return found


def parse_fields(text: str, *names: str) -> dict[str, str]:
    """Reads the named `Key: value` lines only; a small part of what `parse_status` costs.

    Missing: keys without a line are left out, and so is the first line (the process's name).
    """
    found: dict[str, str] = {}
    for name in names:
        _, separator, rest = text.partition(f"\n{name}:")
        if separator:
            found[name] = rest.partition("\n")[0].strip()
    return found


def parse_cpu_list(text: str) -> frozenset[int]:
    """Reads a list of CPUs such as "0-3,8"; parts that are no numbers are left out."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal() and len(part) <= CPU_DIGIT_LIMIT * 2:
            found.update(range(int(first), min(int(last or first), int(first) + 8191) + 1))
    return frozenset(found)


def read_stat(host: Host, pid: int) -> ProcStat:
    """Reads one process's stat. Raises: `Unavailable` where it is gone or refused."""
    return parse_stat(host.read_proc(f"{pid}/stat", STAT_LIMIT_BYTES))


def read_status(host: Host, pid: int) -> dict[str, str]:
    """Reads one process's status; empty where it is gone or refused."""
    try:
        return parse_status(host.read_proc(f"{pid}/status", STATUS_LIMIT_BYTES))
    except Unavailable:
        return {}


def read_fields(host: Host, pid: int, *names: str) -> dict[str, str]:
    """Reads the named lines of one process's status; empty where it is gone or refused."""
    try:
        return parse_fields(host.read_proc(f"{pid}/status", STATUS_LIMIT_BYTES), *names)
    except Unavailable:
        return {}


def read_link(host: Host, relative: str) -> str:
    """Reads a link under /proc, undecodable bytes escaped; "" where it is gone or refused."""
    try:
        link = host.link_proc(relative)
        return link.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except Unavailable:
        return ""


def list_pids(host: Host) -> list[int]:
    """The ids of all processes, ascending; in a recording as they were a moment ago."""
    return host.share("pids", lambda: _list_pids(host))


def _list_pids(host: Host) -> list[int]:
    names = (name for name in host.list_proc() if len(name) <= PID_DIGIT_LIMIT)
    return sorted(int(name) for name in names if name.isdecimal())


def list_descriptors(host: Host, pid: int, limit: int = DESCRIPTOR_LIMIT) -> list[tuple[int, str]]:
    """A process's descriptors with what they point to, in a recording as they were a moment ago.

    Shape: as the kernel lists them, at most `limit`. Raises: OSError where it is gone
    (ProcessLookupError, FileNotFoundError) or refuses (PermissionError).
    """
    return host.share(
        ("fd", pid, limit),
        lambda: list_descriptors_now(host, pid, limit),
        DESCRIPTORS_KEPT_NS_MAX,
    )


def list_descriptors_now(
    host: Host, pid: int, limit: int = DESCRIPTOR_LIMIT
) -> list[tuple[int, str]]:
    """The same as they are at this moment, whoever has listed them a moment ago."""
    from perfkit import _native  # not at the top: without it `record` must say what is missing

    return _native.list_fds(os.fspath(host.proc), pid, limit)


def read_cpu_ns(host: Host, pid: int) -> int:
    """The CPU time of all threads of a process, also of those that exited; -1 where unknown.

    Source: the process's CPU clock where /proc is our own, else utime + stime (10 ms steps).
    """
    if host.proc == Path("/proc"):
        try:
            return time.clock_gettime_ns((~pid << 3) | 2)  # CPUCLOCK_SCHED of another process
        except OSError:
            return -1
    try:
        return read_stat(host, pid).cpu_ticks * NS_PER_TICK
    except Unavailable:
        return -1
