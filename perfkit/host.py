"""The seam to the machine: where /proc and /sys lie, and the clock. Collectors touch nothing else.

Every read is bounded, and says why it failed: absent, refused, or gone in between.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Hashable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from perfkit.allowance import Allowance
from perfkit.errors import Unavailable

READ_LIMIT_BYTES = 1 << 20
LIST_LIMIT = 200_000
# What several collectors look at each second is read once for all of them, and kept for longer
# where reading it again so soon would take more than this share of a core.
SHARED_NS = 500_000_000
SHARED_NS_MAX = 4_000_000_000
SHARED_COST_RATIO = 0.002
SHARED_LIMIT = 8192
_REFUSED = (errno.EACCES, errno.EPERM)


_T = TypeVar("_T")


class Recent:
    """What was read a moment ago, for all collectors of one recording.

    It has no lock: two may read the same at once, but a read that blocks holds up nobody else.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[int, Any]] = {}

    def share(
        self,
        key: Hashable,
        now_ns: int,
        read: Callable[[], _T],
        age_ns_max: int = SHARED_NS_MAX,
    ) -> _T:
        """Gives what stands under `key`, or what `read` gives now. Raises: what `read` raises."""
        until_ns, value = self._kept.get(key, (0, None))
        if now_ns < until_ns:
            found: _T = value
            return found
        begin_ns = time.thread_time_ns()
        found = read()
        spent_ns = time.thread_time_ns() - begin_ns
        if len(self._kept) >= SHARED_LIMIT:
            self._kept.clear()
        age_ns = min(max(SHARED_NS, int(spent_ns / SHARED_COST_RATIO)), age_ns_max)
        self._kept[key] = now_ns + age_ns, found
        return found

    def forget(self) -> None:
        """Has everything read anew by whoever asks next."""
        self._kept.clear()


class Watch:
    """What one thread reads at this moment, for others who wait for it.

    `busy` is the path and since when, or None; paths in `silent` are not tried again.
    """

    def __init__(self, silent: frozenset[str] = frozenset()) -> None:
        self.silent = silent
        self.busy: tuple[str, int] | None = None

    def begin(self, path: str) -> None:
        """Says which path is read from now on. Raises: `Unavailable` for a silent one."""
        if path in self.silent:
            raise Unavailable(f"{path}: did not answer", is_silent=True)
        self.busy = path, time.monotonic_ns()


class StackWish(Struct, frozen=True):
    """How native stacks are sampled; what is given here is what a diagnosis wants.

    `has_switches`: how long threads were off the CPU, too, which costs each switch 1 to 2 us, and
    with stacks up to 7 us. `is_host_wide`: everybody's stacks, not the target's alone. `ratio_max`
    is what it may cost of a core, `wall_ratio_max` what stacks of blocked threads may.
    """

    rate_hertz: float = 25.0
    stack_bytes: int = 16_384
    has_switches: bool = False
    is_host_wide: bool = False
    ratio_max: float = 0.002
    wall_ratio_max: float = 0.001


class Host(Struct, frozen=True):
    """One machine as collectors see it; tests give roots of a fixture tree.

    `spent_ns` is the CPU time that all of perfkit has used; `recent`, see `share`, and `allowance`
    are set while a recording runs; `watch` is set where somebody must know which read does not end;
    `stacks` is what whoever records asks of native stacks.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    now_ns: Callable[[], int] = time.monotonic_ns
    spent_ns: Callable[[], int] = time.process_time_ns
    recent: Recent | None = None
    watch: Watch | None = None
    allowance: Allowance | None = None
    stacks: StackWish = StackWish()

    def share(self, key: Hashable, read: Callable[[], _T], age_ns_max: int = SHARED_NS_MAX) -> _T:
        """Gives what `read` gave a moment ago, if that is shared here. Nobody may change it.

        A moment is half a second, or more where reading is dear, up to `age_ns_max`.
        """
        if self.recent is None:
            return read()
        return self.recent.share(key, self.now_ns(), read, age_ns_max)

    def forget(self) -> None:
        """Ends the sharing of what was read so far."""
        if self.recent is not None:
            self.recent.forget()

    def read_proc(self, relative: str, limit_bytes: int = READ_LIMIT_BYTES) -> str:
        """Reads a file under /proc. Raises `Unavailable` where it is absent, refused or gone."""
        return self.read_path(f"{self.proc}/{relative}", limit_bytes)

    def read_sys(self, relative: str, limit_bytes: int = READ_LIMIT_BYTES) -> str:
        """Reads a file under /sys. Raises `Unavailable` where it is absent, refused or gone."""
        return self.read_path(f"{self.sys}/{relative}", limit_bytes)

    def read_path(self, path: str, limit_bytes: int = READ_LIMIT_BYTES) -> str:
        """Reads a file of a mounted file system, such as a cgroup's. Raises: `Unavailable`."""
        if self.watch is None:
            return read_text(path, limit_bytes)
        self.watch.begin(path)
        try:
            return read_text(path, limit_bytes)
        finally:
            self.watch.busy = None

    def list_proc(self, relative: str = "") -> list[str]:
        """Lists a folder under /proc, unsorted, at most LIST_LIMIT names."""
        return self._list(f"{self.proc}/{relative}")

    def list_sys(self, relative: str = "") -> list[str]:
        """Lists a folder under /sys, unsorted, at most LIST_LIMIT names."""
        return self._list(f"{self.sys}/{relative}")

    def _list(self, path: str) -> list[str]:
        if self.watch is None:
            return list_names(path)
        self.watch.begin(path)
        try:
            return list_names(path)
        finally:
            self.watch.busy = None

    def link_proc(self, relative: str) -> str:
        """Reads a symbolic link under /proc, as text."""
        path = f"{self.proc}/{relative}"
        try:
            return os.readlink(path)  # noqa: PTH115 (pathlib would cost more than the read)
        except OSError as error:
            raise _unavailable(path, error) from error


def read_text(path: Path | str, limit_bytes: int = READ_LIMIT_BYTES) -> str:
    """Reads at most `limit_bytes` of a file, undecodable bytes escaped. Raises `Unavailable`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_all(descriptor, limit_bytes).decode("utf-8", "backslashreplace")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unavailable(path, error) from error


def list_names(path: Path | str) -> list[str]:
    """Lists the names in a folder, at most LIST_LIMIT. Raises `Unavailable`."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in islice(entries, LIST_LIMIT)]
    except OSError as error:
        raise _unavailable(path, error) from error


def _read_all(descriptor: int, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = limit_bytes
    while room > 0 and (part := os.read(descriptor, min(room, 1 << 16))):
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def _unavailable(path: Path | str, error: OSError) -> Unavailable:
    why = (error.strerror or str(error)).lower()
    grant = f"read access to {path} (root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)"
    return Unavailable(f"{path}: {why}", grant=grant if error.errno in _REFUSED else "")
