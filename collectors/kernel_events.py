"""What the kernel said while we looked: kills for memory, links, hangs, faults of the hardware.

Only what comes after the start is read; a flood is skipped and counted.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Collector, Column, ColumnType, Item, Row, Rows, TableSchema, Target

RECORD_LIMIT_BYTES = 8192  # the kernel's own for one record, its fields included
READ_LIMIT = 256
EVENT_LIMIT = 1000
TEXT_LIMIT = 400
KERNEL_FACILITY = 0
KERNEL_EVENTS = TableSchema(
    "kernel_events",
    (
        Column("t_ns", "ns", help="when it was read, up to two seconds after it was said"),
        Column("kind", type=ColumnType.TEXT, help="oom, link, hang, hardware, nic, xid, disk"),
        Column("severity", help="0 emergency to 7 debug, as the kernel has it"),
        Column("text", type=ColumnType.TEXT, help="untrusted text, at most 400 characters"),
    ),
    source="/dev/kmsg, from the start of the window on; the kernel's own messages only",
    help="Messages of these kinds, at most 1000 a window; what was missed is counted as dropped.",
)
KINDS = {
    "xid": re.compile(r"NVRM: Xid"),
    "oom": re.compile(r"[Oo]ut of memory|oom-kill|oom_reaper|invoked oom-killer"),
    "hang": re.compile(
        r"blocked for more than \d+ seconds|soft lockup|hard LOCKUP|detected stall|"
        r"detected stalls|clocksource .* unstable"
    ),
    "hardware": re.compile(
        r"\[Hardware Error\]|[Mm]achine check|EDAC .*(CE|UE)|temperature above threshold|"
        r"AER: .*[Ee]rror|PCIe Bus Error"
    ),
    "nic": re.compile(
        r"NETDEV WATCHDOG|transmit queue \d+ timed out|[Rr]eset(ting)? (the )?adapter|"
        r"TX timeout|Detected Tx Unit Hang"
    ),
    "link": re.compile(
        r"[Ll]ink (is )?([Uu]p|[Dd]own|UP|DOWN)\b|link becomes ready|[Ll]ost carrier|"
        r"entered (disabled|forwarding) state"
    ),
    "disk": re.compile(
        r"I/O error|I/O timeout|task abort|EXT4-fs error|XFS .*([Cc]orrupt|[Ee]rror)"
    ),
}


class Message(Struct, frozen=True):
    """One record of the kernel's log."""

    facility: int
    severity: int
    sequence: int
    text: str


def parse_record(record: str) -> Message | None:
    """Reads a record of /dev/kmsg: `prefix,sequence,time,flags;text`; None for anything else."""
    head, separator, body = record.partition(";")
    fields = head.split(",")
    if not separator or len(fields) < 3 or not all(one.isdecimal() for one in fields[:2]):
        return None
    prefix, sequence = int(fields[0][:9]), int(fields[1][:19])
    text = body.partition("\n")[0][:TEXT_LIMIT]
    return Message(prefix >> 3, prefix & 7, sequence, text)


def find_kind(text: str) -> str:
    """The kind that a message is of; "" for those that are not kept."""
    return next((kind for kind, pattern in KINDS.items() if pattern.search(text)), "")


class _Session:
    """Reads on from the end that the log had at the start."""

    def __init__(self, host: Host, target: Target) -> None:
        del target
        self._host = host
        self._count = 0
        self._next = -1
        self._descriptor = open_log(host)

    def poll(self) -> Iterator[Item]:
        for _ in range(READ_LIMIT):
            try:
                record = os.read(self._descriptor, RECORD_LIMIT_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten: the next number tells how many
                    continue
                raise Unavailable(f"/dev/kmsg: {error.strerror}") from error
            if not record:
                return
            yield from self._take(parse_record(record.decode("utf-8", "backslashreplace")))
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def close(self) -> Iterator[Item]:
        os.close(self._descriptor)
        return iter(())

    def _take(self, message: Message | None) -> Iterator[Item]:
        if message is None:
            return
        missed = message.sequence - self._next if self._next >= 0 else 0
        self._next = message.sequence + 1
        if missed > 0:
            yield Rows(KERNEL_EVENTS.name, (), 0, missed)
        kind = find_kind(message.text) if message.facility == KERNEL_FACILITY else ""
        if not kind:
            return
        self._count += 1
        if self._count > EVENT_LIMIT:
            yield Rows(KERNEL_EVENTS.name, (), 0, 1)
        else:
            values = (self._host.now_ns(), kind, message.severity, message.text)
            yield Row(KERNEL_EVENTS.name, values)


def open_log(host: Host) -> int:
    """Opens the kernel's log at its end. Raises: `Unavailable` where it is absent or refused."""
    path = host.proc.parent / "dev" / "kmsg"
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES)
        grant = "root or CAP_SYSLOG (or sysctl kernel.dmesg_restrict=0)" if refused else ""
        words = (error.strerror or str(error)).lower()
        raise Unavailable(f"{path}: {words}", grant=grant) from error
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
    except OSError as error:  # no log, and no file either
        os.close(descriptor)
        raise Unavailable(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return descriptor


COLLECTOR = Collector(
    "kernel_events",
    metrics=(),
    tables=(KERNEL_EVENTS,),
    scope="host",
    interval_s=2.0,
    timeout_s=0.2,
    open=_Session,
)
