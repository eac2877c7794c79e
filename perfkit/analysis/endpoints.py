"""What a descriptor of the service leads to: a socket with its role and peer, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perfkit.analysis.align import Aligned

Role = Literal["listener", "accepted", "outgoing"]


@dataclass(frozen=True)
class Endpoints:
    """Lookups by socket inode and by (pid, descriptor).

    `role_of` and `peer_of` are keyed by inode. `kind_of` and `path_of` hold the first thing seen
    behind a descriptor in the window. `members_of` lists the inodes an epoll watches.
    """

    role_of: dict[int, Role]
    peer_of: dict[int, str]
    kind_of: dict[tuple[int, int], str]
    path_of: dict[tuple[int, int], str]
    members_of: dict[tuple[int, int], frozenset[int]]

    def serves(self, inode: int) -> bool:
        """Tells whether requests come in through this socket."""
        return self.role_of.get(inode) in ("listener", "accepted")


def read_endpoints(aligned: Aligned) -> Endpoints:
    """Collects the lookups from the tables `sockets`, `socket_closed`, `fds`, `epoll_members`."""
    role_of: dict[int, Role] = {}
    peer_of: dict[int, str] = {}
    for name in ("socket_closed", "sockets"):
        table = aligned.table(name)
        rows = zip(table.integers("inode"), table.text("role"), table.text("peer"), strict=True)
        for inode, role, peer in rows:
            if inode > 0 and role in ("listener", "accepted", "outgoing"):
                role_of[int(inode)] = role  # type: ignore[assignment]
                peer_of[int(inode)] = peer
    kind_of: dict[tuple[int, int], str] = {}
    path_of: dict[tuple[int, int], str] = {}
    fds = aligned.table("fds")
    for pid, fd, kind, path in zip(
        fds.integers("pid"), fds.integers("fd"), fds.text("kind"), fds.text("path"), strict=True
    ):
        kind_of.setdefault((int(pid), int(fd)), kind)
        path_of.setdefault((int(pid), int(fd)), path)
    return Endpoints(role_of, peer_of, kind_of, path_of, _epoll_members(aligned))


def _epoll_members(aligned: Aligned) -> dict[tuple[int, int], frozenset[int]]:
    table = aligned.table("epoll_members")
    members: dict[tuple[int, int], set[int]] = {}
    for pid, epoll, inode in zip(
        table.integers("pid"), table.integers("epoll_fd"), table.integers("inode"), strict=True
    ):
        members.setdefault((int(pid), int(epoll)), set()).add(int(inode))
    return {key: frozenset(inodes) for key, inodes in members.items()}
