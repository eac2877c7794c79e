"""Follows the processes of a service and its siblings through a window: who came, went, execed."""

from __future__ import annotations

from itertools import islice

from msgspec import Struct

from perfkit.collectors._cgroup import cpu_chains, is_root, read_cpu_path
from perfkit.collectors._proc import ProcStat, list_pids, read_link, read_stat
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Target

MEMBER_LIMIT = 4096
CHECK_LIMIT = 32
# New processes that are read in one look; where more came, the rest is looked at the next time.
NEW_LIMIT = 256


class Member(Struct, frozen=True):
    """One followed process, as it was when last looked at."""

    stat: ProcStat
    exe: str
    role: str


class Changes(Struct, frozen=True):
    """What happened since the last look."""

    started: tuple[Member, ...]
    execed: tuple[Member, ...]
    exited: tuple[Member, ...]


class ServiceTracker:
    """Keeps the list of a target's processes. Only new pids are read whole, so it stays cheap.

    In a recording all trackers share what they read, so many of them cost little more than one.
    A new process belongs to the service when its parent does, to the siblings when it is in the
    service's own cgroup (the root cgroup makes no siblings).
    """

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._own_paths = {
            ref.path for ref in cpu_chains(host, target) if ref.is_own and not is_root(ref)
        }
        self.members: dict[int, Member] = {}
        for ref in (*target.processes, *target.siblings):
            try:
                stat = read_stat(host, ref.pid)
            except Unavailable:
                continue
            if stat.start_ticks == ref.start_ticks:
                self.members[ref.pid] = Member(stat, ref.exe, ref.role)
        self._seen = set(list_pids(host)) | self.members.keys()
        self._turn = 0

    @property
    def service_pids(self) -> list[int]:
        """The pids of the service (not its siblings) that were alive at the last look."""
        return [pid for pid, member in self.members.items() if member.role != "sibling"]

    def update(self) -> Changes:
        """Looks again. At most CHECK_LIMIT known processes are re-read in one look, in turn."""
        pids = set(list_pids(self._host))
        exited = [pid for pid in self.members if pid not in pids]
        execed = []
        for pid in self._next_to_check():
            if pid not in pids:
                continue
            now = self._read(pid, self.members[pid].role)
            before = self.members[pid]
            if now is None or now.stat.is_gone or now.stat.start_ticks != before.stat.start_ticks:
                exited.append(pid)
                pids.discard(pid)  # a pid that was used again is looked at as a new one
            elif (now.exe, now.stat.name) != (before.exe, before.stat.name) and now.exe:
                execed.append(now)
            if now is not None and pid in pids:
                self.members[pid] = now
        gone = tuple(self.members.pop(pid) for pid in exited)
        new = sorted(pids - self._seen)
        started = self._admit(new[:NEW_LIMIT])
        self._seen = pids.difference(new[NEW_LIMIT:])
        return Changes(started, tuple(execed), gone)

    def is_alive(self) -> bool:
        """Whether any process of the service still lives; looks at one when the first answers."""
        for pid in self.service_pids:
            try:
                stat = read_stat(self._host, pid)
            except Unavailable:
                continue
            if stat.start_ticks == self.members[pid].stat.start_ticks and not stat.is_gone:
                return True
        return False

    def _next_to_check(self) -> list[int]:
        pids = list(self.members)
        first = self._turn if self._turn < len(pids) else 0
        self._turn = first + CHECK_LIMIT
        return list(islice(pids, first, first + CHECK_LIMIT))

    def _admit(self, pids: list[int]) -> tuple[Member, ...]:
        """Takes in those new processes that belong to the service, parents before children."""
        waiting = {pid: stat for pid in pids if (stat := self._read_stat(pid)) is not None}
        started: list[Member] = []
        found = True
        while found and len(self.members) < MEMBER_LIMIT:
            found = False
            for pid, stat in list(waiting.items()):
                role = self._role_of(stat)
                if role and not stat.is_gone:
                    self.members[pid] = Member(stat, self._read_exe(pid), role)
                    started.append(self.members[pid])
                    del waiting[pid]
                    found = True
        return tuple(started)

    def _role_of(self, stat: ProcStat) -> str:
        parent = self.members.get(stat.parent_pid)
        if parent is not None and parent.role != "sibling":
            return "child"
        if self._own_paths and read_cpu_path(self._host, stat.pid) in self._own_paths:
            return "sibling"
        return ""

    def _read(self, pid: int, role: str) -> Member | None:
        stat = self._read_stat(pid)
        return None if stat is None else Member(stat, self._read_exe(pid), role)

    def _read_stat(self, pid: int) -> ProcStat | None:
        host = self._host
        try:
            return host.share(("stat", pid), lambda: read_stat(host, pid))
        except Unavailable:
            return None

    def _read_exe(self, pid: int) -> str:
        host = self._host
        return host.share(("exe", pid), lambda: read_link(host, f"{pid}/exe"))
