"""What the descriptors of the service's processes point to, and what their epolls watch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from perfkit.collectors._proc import list_descriptors
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Column, ColumnType, Item, Row, Rows, TableSchema

DESCRIPTOR_LIMIT = 4096
# The kernel may hold the target's epoll mutex while it prints the members (1.5 us each).
EPOLL_DESCRIPTOR_LIMIT = 1000
EPOLL_LIMIT = 64
EPOLL_MEMBER_LIMIT = 1024
FDINFO_LIMIT_BYTES = 256 * 1024
# Listing large tables may take this share of a core; they are listed less often than each second.
COST_RATIO = 0.0015

FDS = TableSchema(
    "fds",
    (
        Column("t_ns", "ns", help="when it was first seen to point there"),
        Column("pid"),
        Column("fd"),
        Column("kind", type=ColumnType.TEXT, help="socket|pipe|file|eventpoll|eventfd|other"),
        Column("inode", help="of sockets and pipes, else -1"),
        Column("path", type=ColumnType.TEXT, help="the link's text, at most 256 bytes"),
    ),
    source="/proc/PID/fd",
    help="Descriptors of the service's processes: a row per new or changed one, looked at each "
    "second, at most 4096 a process.",
)
EPOLL_MEMBERS = TableSchema(
    "epoll_members",
    (
        Column("pid"),
        Column("epoll_fd"),
        Column("fd"),
        Column("inode", help="-1 where the kernel does not tell"),
    ),
    source="/proc/PID/fdinfo/FD tfd: and ino: (Linux 5.2)",
    help="What each epoll watched when it was looked at, once a window; not read in processes "
    "with more than 1000 descriptors.",
)


class DescriptorTable:
    """Remembers what was seen, so that only what is new becomes a row."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._due_ns: dict[int, int] = {}
        self._links: dict[int, dict[int, str]] = {}
        self._epolls_waiting: set[tuple[int, int]] = set()
        self._epolls_read: set[tuple[int, int]] = set()
        self._late: list[tuple[int, int, dict[int, str]]] = []
        self.refused: set[int] = set()

    def poll(self, pids: Iterable[int]) -> Iterator[Item]:
        """Yields new rows. An epoll is read one poll after it was first seen, to find it filled."""
        yield from self._read_epolls()
        for pid in pids:
            begin_ns = self._host.now_ns()
            if begin_ns >= self._due_ns.get(pid, 0):
                yield from self._list(pid, begin_ns)
                took_ns = self._host.now_ns() - begin_ns
                self._due_ns[pid] = begin_ns + int(took_ns / COST_RATIO)

    def close(self) -> Iterator[Item]:
        """Yields the epolls that have not been read yet, and the rows of large tables."""
        yield from self._read_epolls()
        for t_ns, pid, links in self._late:
            for fd, link in links.items():
                yield Row("fds", (t_ns, pid, fd, *parse_link(link), to_text(link)))

    def _list(self, pid: int, t_ns: int) -> Iterator[Item]:
        try:
            found = list_descriptors(self._host, pid)
        except PermissionError:
            self.refused.add(pid)
            return
        except OSError:  # it exited
            self._links.pop(pid, None)
            return
        links = dict(found[:DESCRIPTOR_LIMIT])
        before = self._links.get(pid, {})
        self._links[pid] = links
        if len(found) > DESCRIPTOR_LIMIT and not before:
            yield Rows("fds", (), 0, len(found) - DESCRIPTOR_LIMIT)
        if len(found) > EPOLL_DESCRIPTOR_LIMIT and not before:
            # A large table takes its time to be told, which is better spent after the window.
            self._late.append((t_ns, pid, links))
            return
        for fd, link in links.items():
            if before.get(fd) != link:
                kind, inode = parse_link(link)
                yield Row("fds", (t_ns, pid, fd, kind, inode, to_text(link)))
                if kind == "eventpoll" and len(found) <= EPOLL_DESCRIPTOR_LIMIT:
                    self._epolls_waiting.add((pid, fd))

    def _read_epolls(self) -> Iterator[Item]:
        for pid, fd in sorted(self._epolls_waiting - self._epolls_read):
            if len(self._epolls_read) >= EPOLL_LIMIT:
                yield Rows("epoll_members", (), 0, 1)
                continue
            self._epolls_read.add((pid, fd))
            try:
                text = self._host.read_proc(f"{pid}/fdinfo/{fd}", FDINFO_LIMIT_BYTES)
            except Unavailable:
                continue
            for member, inode in parse_epoll(text):
                yield Row("epoll_members", (pid, fd, member, inode))
        self._epolls_waiting.clear()


def parse_link(link: str) -> tuple[str, int]:
    """Tells the kind and the inode of what a descriptor's link names; -1 where it has no inode."""
    for kind in ("socket", "pipe"):
        if link.startswith(f"{kind}:[") and link.endswith("]"):
            digits = link[len(kind) + 2 : -1]
            return kind, int(digits) if digits.isascii() and digits.isdecimal() else -1
    for kind in ("eventpoll", "eventfd"):
        if link == f"anon_inode:[{kind}]":
            return kind, -1
    return ("file" if link.startswith("/") else "other"), -1


def parse_epoll(text: str) -> Iterator[tuple[int, int]]:
    """Reads descriptor and inode of each member out of an epoll's fdinfo, at most 1024."""
    lines = (line for line in text.splitlines() if line.startswith("tfd:"))
    for line, _ in zip(lines, range(EPOLL_MEMBER_LIMIT), strict=False):
        words = line.replace(":", ": ").split()
        fields = dict(pairwise(words))
        try:
            yield int(fields["tfd:"]), int(fields.get("ino:", "-1"), 16)
        except (KeyError, ValueError):
            continue


def to_text(name: str) -> str:
    """A name of the host's as valid text, undecodable bytes escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
