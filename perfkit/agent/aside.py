"""Carries out reads on threads of their own, so that a file that never answers holds up nobody.

A read that blocks cannot be interrupted: its thread is left behind, and ends with perfkit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from msgspec.structs import replace

from perfkit.collectors._service import ServiceTracker
from perfkit.errors import Unavailable
from perfkit.host import Host, Watch
from perfkit.model import Target

PATIENCE_S = 0.5
CHECK_S = 0.05
SILENT_LIMIT = 4
LOOK_LIMIT_S = 0.25
FIRST_LOOK_LIMIT_S = 0.5
UPDATE_INTERVAL_NS = 1_000_000_000
_T = TypeVar("_T")


def call_aside(host: Host, call: Callable[[Host], _T]) -> _T:
    """What `call` gives, which may read through the host that it is handed and change nothing.

    When a file does not answer within PATIENCE_S, all is done again without that file.
    Raises: what `call` raises; `Unavailable` where more than SILENT_LIMIT files are silent.
    """
    silent: frozenset[str] = frozenset()
    while len(silent) <= SILENT_LIMIT:
        watch, done = Watch(silent), threading.Event()
        found: list[_T] = []
        errors: list[BaseException] = []
        work = partial(_run, partial(call, replace(host, watch=watch)), found, errors, done)
        threading.Thread(target=work, name="perfkit aside", daemon=True).start()
        path = _await(done, watch)
        if not path and errors:
            raise errors[0]
        if not path:
            return found[0]
        silent |= {path}
    raise Unavailable(f"{', '.join(sorted(silent))}: did not answer", is_silent=True)


def _run(
    call: Callable[[], _T], found: list[_T], errors: list[BaseException], done: threading.Event
) -> None:
    try:
        found.append(call())
    except BaseException as error:  # it is raised where the answer is waited for
        errors.append(error)
    done.set()


def _await(done: threading.Event, watch: Watch) -> str:
    """Waits for the end of a call; gives the path that it hangs at, "" where it has ended."""
    while not done.wait(CHECK_S):
        busy = watch.busy
        if busy is not None and time.monotonic_ns() - busy[1] > 1e9 * PATIENCE_S:
            return busy[0]
    return ""


class Follower:
    """Tells whether any process of a service still lives, by looks that may take no time."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host, self._target = host, target
        self._asked: SimpleQueue[int | None] = SimpleQueue()
        self._answered = threading.Event()
        self._is_alive, self._is_out = True, True
        self._limit_s = FIRST_LOOK_LIMIT_S
        self._error: Exception | None = None
        self._updated_ns = host.now_ns()
        threading.Thread(target=self._run, name="perfkit follower", daemon=True).start()

    def is_alive(self) -> bool:
        """Whether it lives; True also while nothing answers. Raises: what a look raised."""
        if not self._is_out:
            self._is_out = True
            self._asked.put(self._host.now_ns())
        if not self._answered.wait(self._limit_s):
            self._limit_s = 0.0  # it was waited for once
            return True
        self._answered.clear()
        self._is_out, self._limit_s = False, LOOK_LIMIT_S
        if self._error is not None:
            raise self._error
        return self._is_alive

    def close(self) -> None:
        """Ends the thread, as soon as no look is out."""
        self._asked.put(None)

    def _run(self) -> None:
        try:
            tracker = ServiceTracker(self._host, self._target)
            self._is_alive = tracker.is_alive()
            self._answered.set()
            while (moment_ns := self._asked.get()) is not None:
                self._is_alive = self._look(tracker, moment_ns)
                self._answered.set()
        except Unavailable:  # not even who there is: it is taken to live until the window's end
            pass
        except Exception as error:  # it is raised where the answer is waited for
            self._error = error
        self._answered.set()

    def _look(self, tracker: ServiceTracker, moment_ns: int) -> bool:
        try:
            if moment_ns - self._updated_ns >= UPDATE_INTERVAL_NS:
                self._updated_ns = moment_ns
                tracker.update()
            if tracker.is_alive():
                return True
            self._host.forget()  # its successor may be younger than what is shared
            tracker.update()
            return tracker.is_alive()
        except Unavailable:  # the list of processes: nothing can be said
            return True
