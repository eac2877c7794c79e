"""The service's TCP sockets, in its own network namespace: who speaks, who waits, what is queued.

A thread in C asks the kernel's socket diagnosis (see native/pk_socket_sampler.h); this file tells
it which sockets the service holds, and gives the sockets their owners.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterable, Iterator

from perfkit import _native
from perfkit.allowance import Want
from perfkit.collectors._proc import list_descriptors, list_descriptors_now
from perfkit.collectors._service import ServiceTracker
from perfkit.collectors._socket_text import TextSession
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import (
    Collector,
    Column,
    ColumnType,
    Item,
    Rate,
    Row,
    Rows,
    Session,
    TableSchema,
    Target,
)

FIXTURE = "live"  # reads the kernel through netlink: proved on real sockets, not on fixture trees

POLL_INTERVAL_NS = 50_000_000
LISTING_INTERVAL_NS = 1_000_000_000
LISTED_RATIO = 0.8  # fewer listings than this, of those asked for, are worth a remark
WANT = Want(start_ratio=0.006, ratio_min=0.0035, ratio_max=0.012, weight=5)
# Looking through /proc/PID/fd may take this share of a core; large tables are read less often.
DESCRIPTOR_COST_RATIO = 0.002
FOLLOW_INTERVAL_NS = 2_000_000_000
OWNER_WAIT_POLLS = 2
SMALL_COUNT = 256  # fewer descriptors are listed anew, whoever has listed them a moment ago
# Telling so many sockets takes its time: it is done after the window.
LARGE_COUNT = 500
ROLES = ("", "listener", "accepted", "outgoing")

_COUNTERS = (
    Column("last_sent_ms", "ms", help="age of the last data sent, in jiffies of the kernel"),
    Column("last_received_ms", "ms", help="age of the last data received"),
    Column("last_ack_received_ms", "ms"),
    Column("bytes_sent", "bytes", help="retransmitted ones included; Linux 4.19"),
    Column("bytes_received", "bytes", help="the end of the stream (FIN) counts as one"),
    Column("data_segments_out", help="segments that carried data; Linux 4.6"),
    Column("data_segments_in"),
    Column("rtt_us", "us", help="smoothed; contains the peer's delay of acknowledgements"),
    Column("min_rtt_us", "us", help="minimum over minutes; -1 none yet"),
    Column("retransmits", help="segments sent again since the socket was opened"),
    Column("out_of_order", help="segments received out of order; Linux 5.4"),
    Column("rwnd_limited_us", "us", help="time limited by the peer's receive window; Linux 4.9"),
    Column("sndbuf_limited_us", "us"),
    Column("busy_us", "us", help="time with data unacknowledged"),
    Column("unacked", help="segments in flight; of a listener: its accept queue"),
    Column("send_window_bytes", "bytes", help="the peer's receive window; Linux 5.5"),
    Column("rcv_space_bytes", "bytes"),
    Column("delivery_rate", "bytes/s"),
)
_TEXT = ColumnType.TEXT
SOCKETS = TableSchema(
    "sockets",
    (
        Column("socket_index", help="stands for the kernel's cookie, never reused in a capture"),
        Column("family", type=_TEXT, help="tcp4 or tcp6; tcp6 sockets may have IPv4 addresses"),
        Column("inode", help="0: the service never accepted it"),
        Column("local", type=_TEXT, help="ip:port"),
        Column("peer", type=_TEXT, help="ip:port; of listeners port 0"),
        Column("role", type=_TEXT, help="listener, accepted or outgoing"),
        Column("pid", help="first process of the service found to hold it, -1 unknown"),
        Column("first_seen_ns", "ns"),
    ),
    source="NETLINK_SOCK_DIAG, in the target's network namespace; owners: /proc/PID/fd",
    help="TCP sockets of the service. A later row of the same socket_index replaces an earlier.",
)
SOCKET_RUNS = TableSchema(
    "socket_runs",
    (
        Column("socket_index"),
        Column("start_ns", "ns", help="first poll that saw these counters"),
        Column("end_ns", "ns", help="last poll that saw them"),
        Column("tick_count", help="polls in the row"),
        Column("state", help="number of the kernel's TCP state; 1 established, 10 listen"),
        Column("receive_queue_bytes", "bytes", help="of a listener: its accept queue"),
        Column("send_queue_bytes", "bytes", help="of a listener: the limit of its accept queue"),
        *_COUNTERS,
    ),
    source="struct tcp_info (INET_DIAG_INFO), idiag_rqueue, idiag_wqueue",
    help="A row per change of state, queues, bytes, segments, retransmits or out_of_order; ages "
    "and the rest are those of its first poll. start_ns and end_ns are t_ns of socket_polls.",
)
SOCKET_CLOSED = TableSchema(
    "socket_closed",
    (
        Column("t_ns", "ns", help="when the end was read, up to one poll late"),
        Column("family", type=_TEXT),
        Column("local", type=_TEXT),
        Column("peer", type=_TEXT),
        Column("role", type=_TEXT, help="accepted, or outgoing if it was known before"),
        Column("inode", help="-1: it lived between two polls"),
        *_COUNTERS,
        Column("socket_index", help="-1: it lived between two polls"),
    ),
    source="multicast group SKNLGRP_INET_TCP_DESTROY (Linux 4.9)",
    help="The last counters of each closed connection.",
)
SOCKET_POLLS = TableSchema(
    "socket_polls",
    (
        Column("t_ns", "ns"),
        Column("socket_count", help="sockets known, listeners included"),
        Column("polled_count", help="sockets read; fewer: a random sample that rotates"),
        Column("cpu_ns", "ns", help="CPU time, looking for new sockets included; of a listing 0"),
    ),
    source="CLOCK_MONOTONIC and the CPU clock of the sampler's thread",
    help="One row per poll; where polls read a sample, one too per listing that read all.",
)


class _Session:
    """The sampler at work."""

    def __init__(self, host: Host, sampler: _native.SocketSampler, owners: _Owners) -> None:
        self._host, self._sampler, self._owners = host, sampler, owners
        self._ratios = [WANT.start_ratio]
        self._waiting: list[tuple[int, Row]] = []
        self._late: list[_native.NamedRows] = []
        self._stuck = False
        self._tell_inodes()

    def poll(self) -> Iterable[Item]:
        self._tell_inodes()
        self._share_budget()
        return self._take(OWNER_WAIT_POLLS)

    def close(self) -> Iterable[Item]:
        self._stuck = not self._sampler.stop()
        return self._take(0)

    def rate(self) -> Rate:
        stats = self._sampler.stats()
        span_ns = max(stats["last_poll_ns"] - stats["start_ns"], 1)
        planned = 1 + span_ns // POLL_INTERVAL_NS
        count = stats["poll_count"]
        return Rate(
            "sockets",
            requested_hertz=1e9 / POLL_INTERVAL_NS,
            achieved_hertz=max(count - 1, 0) * 1e9 / span_ns,
            tick_count=count,
            missed_count=max(0, planned - count),
            note="; ".join(_remarks(stats, self._stuck, sum(self._ratios) / len(self._ratios))),
        )

    def _share_budget(self) -> None:
        """Asks what the sampler may take of a core by now."""
        if self._host.allowance is None:
            return
        stats = self._sampler.stats()
        is_full = stats["interval_ns"] <= POLL_INTERVAL_NS
        ratio = self._host.allowance.share("sockets", WANT, stats["cpu_ns"], is_full=is_full)
        self._ratios.append(ratio)
        self._sampler.set_budget(ratio)

    def _tell_inodes(self) -> None:
        if self._owners.update():
            self._sampler.set_inodes(array("q", self._owners.pid_of).tobytes())

    def _take(self, owner_wait_polls: int) -> Iterator[Item]:
        runs, closed, polls, identities = self._sampler.take()
        yield Rows("socket_runs", *runs)
        yield Rows("socket_polls", *polls)
        yield from _closed_rows(closed)
        if owner_wait_polls and identities[0][1] > LARGE_COUNT:
            self._late.append(identities)
        else:
            late = () if owner_wait_polls else self._late
            self._waiting += [
                (0, row) for one in (*late, identities) for row in _identity_rows(one)
            ]
        yield Rows("sockets", (), 0, identities[0][2])
        yield Rows("socket_closed", (), 0, closed[0][2])
        kept = []
        for age, row in self._waiting:
            inode = int(row.values[2])
            pid = self._owners.pid_of.get(inode, -1)
            if pid < 0 and inode and age < owner_wait_polls:
                kept.append((age + 1, row))
            else:
                yield Row("sockets", (*row.values[:6], pid, row.values[7]))
        self._waiting = kept


class _Owners:
    """Which process of the service holds which socket; read as often as it is cheap."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._tracker = ServiceTracker(host, target)
        self._followed_ns = host.now_ns()
        self._due_ns: dict[int, int] = {}
        self._inodes: dict[int, list[int]] = {}
        self._link_counts: dict[int, int] = {}
        self.pid_of: dict[int, int] = {}

    def read(self) -> dict[int, int]:
        """The process that holds each socket, by inode."""
        self.update()
        return self.pid_of

    def update(self) -> bool:
        """Reads what is due; tells whether the held sockets changed."""
        now_ns = self._host.now_ns()
        if now_ns - self._followed_ns >= FOLLOW_INTERVAL_NS:
            self._followed_ns = now_ns
            self._tracker.update()
        pids = self._tracker.service_pids
        was_read = False
        for pid in pids:
            begin_ns = self._host.now_ns()
            if begin_ns >= self._due_ns.get(pid, 0):
                was_read = True
                self._inodes[pid] = self._list_inodes(pid)
                took_ns = self._host.now_ns() - begin_ns
                self._due_ns[pid] = begin_ns + int(took_ns / DESCRIPTOR_COST_RATIO)
        if not was_read:
            return False
        pid_of: dict[int, int] = {}
        for pid in pids:
            for inode in self._inodes.get(pid, ()):
                pid_of.setdefault(inode, pid)
        changed = pid_of.keys() != self.pid_of.keys()
        self.pid_of = pid_of
        return changed

    def _list_inodes(self, pid: int) -> list[int]:
        # What is held for a moment is found only by a list as new as that of all sockets.
        is_small = self._link_counts.get(pid, 0) < SMALL_COUNT
        try:
            links = (list_descriptors_now if is_small else list_descriptors)(self._host, pid)
        except OSError:  # it is gone, or refuses
            links = []
        self._link_counts[pid] = len(links)
        return to_socket_inodes(links)


def to_socket_inodes(links: Iterable[tuple[int, str]]) -> list[int]:
    """The inodes of the sockets among a process's descriptors."""
    return [inode for _, link in links if (inode := parse_socket_inode(link))]


def parse_socket_inode(link: str) -> int:
    """Reads the inode out of "socket:[123]"; 0 for every other link."""
    digits = link[8:-1] if link.startswith("socket:[") and link.endswith("]") else ""
    return int(digits) if digits.isdecimal() and len(digits) < 19 else 0


def _closed_rows(closed: _native.NamedRows) -> Iterator[Row]:
    (columns, _, _), local, peer = closed
    indexes, inodes, times, roles, families, *counters = (array("q", column) for column in columns)
    for place, values in enumerate(zip(*counters, strict=True)):
        yield Row(
            "socket_closed",
            (
                times[place],
                f"tcp{families[place]}",
                local[place],
                peer[place],
                ROLES[roles[place]],
                inodes[place],
                *values,
                indexes[place],
            ),
        )


def _identity_rows(identities: _native.NamedRows) -> Iterator[Row]:
    (columns, _, _), local, peer = identities
    values = zip(*(array("q", column) for column in columns), local, peer, strict=True)
    for index, inode, first_seen_ns, role, family, here, there in values:
        yield Row(
            "sockets",
            (index, f"tcp{family}", inode, here, there, ROLES[role], -1, first_seen_ns),
        )


def _remarks(
    stats: dict[str, int], stuck: bool, budget_ratio: float = WANT.start_ratio
) -> Iterator[str]:
    """What a reader of the rows must know."""
    if stats["closed_error"]:
        reason = os.strerror(stats["closed_error"]).lower()
        yield f"requests on short connections are not counted ({reason}; grant CAP_NET_ADMIN)"
    if stats["unowned_count"]:
        yield (
            f"{stats['unowned_count']} connections that ended are not counted: other processes "
            "listen at the same port, and whose they were is not known"
        )
    if stats["interval_ns"] > POLL_INTERVAL_NS:
        hertz, percent = 1e9 / stats["interval_ns"], 100 * budget_ratio
        yield f"slowed to {hertz:.1f} Hz to stay within {percent:.1f} % of a core"
    span_ns = stats["last_poll_ns"] - stats["start_ns"]
    listed_count = max(stats["full_dump_count"], 1)
    if listed_count < LISTED_RATIO * (span_ns // LISTING_INTERVAL_NS):
        seconds, cost_ms = span_ns / 1e9 / listed_count, stats["dump_cpu_ns"] / 1e6
        each_ms = cost_ms / max(stats["dump_count"], 1)
        yield f"all sockets listed every {seconds:.1f} s instead of 1 s: it takes {each_ms:.1f} ms"
    if stats["lost_count"]:
        yield f"the kernel dropped messages {stats['lost_count']} times"
    if stats["refused_count"]:
        yield "more sockets than are followed: some were left out"
    if stats["inode_dropped_count"]:
        yield "more descriptors than are followed: outgoing sockets may be missing"
    if stats["dump_error_count"]:
        yield f"{stats['dump_error_count']} of {stats['dump_count']} listings failed"
    if stuck:
        yield "the sampler's thread did not end and was left behind"


def open_session(host: Host, target: Target) -> Session:
    """Starts the sampler, or reads text where the target's namespace may not be entered.

    Raises: `Unavailable` where neither is possible.
    """
    path = host.proc / str(target.main_pid) / "ns" / "net"
    try:
        sampler = _native.SocketSampler(
            os.fspath(path),
            poll_interval_ns=POLL_INTERVAL_NS,
            dump_interval_ns=LISTING_INTERVAL_NS,
            budget_ratio=WANT.start_ratio,
            shared_ports=array("H", target.shared_ports).tobytes(),
        )
    except OSError as error:
        owners = _Owners(host, target)
        if error.errno in (errno.EPERM, errno.EACCES) and owners.read():
            return TextSession(host, target, owners.read)
        raise _to_unavailable(error) from error
    return _Session(host, sampler, _Owners(host, target))


def _to_unavailable(error: OSError) -> Unavailable:
    """Says which step failed; the extension gives its name where a file name would be."""
    is_outside = "namespace" in str(error.filename)
    where = "the target's network namespace" if is_outside else "netlink socket diagnosis"
    grant = "root, or CAP_SYS_ADMIN and CAP_SYS_PTRACE, to enter the target's namespace"
    refused = error.errno in (errno.EPERM, errno.EACCES)
    reason = f"{where}: {(error.strerror or str(error)).lower()}"
    return Unavailable(reason, grant=grant if refused else "")


COLLECTOR = Collector(
    "sockets",
    metrics=(),
    tables=(SOCKETS, SOCKET_RUNS, SOCKET_CLOSED, SOCKET_POLLS),
    scope="target",
    interval_s=1.0,
    timeout_s=0.5,
    open=open_session,
)
