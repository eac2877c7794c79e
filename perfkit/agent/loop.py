"""Runs collectors side by side over one window; `record` and `diagnose` share this one schedule.

Every session has a thread of its own, so a read that blocks costs its own collector only and never
delays the end. Whatever a collector raises is caught here, in `attempt`, and nowhere else.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from perfkit.agent.aside import Follower
from perfkit.agent.cost import Spent, read_spent, to_cost
from perfkit.agent.machine import read_anchor, read_boot_id
from perfkit.agent.sink import Sink, cut_text, merge
from perfkit.allowance import Allowance
from perfkit.errors import TargetError, Unavailable
from perfkit.host import Host, Recent, Watch
from perfkit.model import Clock, Collector, Cost, Item, Rate, Session, Status, Table, Target

OPEN_LIMIT_S = 0.5
CLOSE_LIMIT_S = 0.9
CHECK_INTERVAL_S = 0.5
JITTER_RATIO = 0.2
LAST_POLL_RATIO = 0.25
REASON_LIMIT = 500
_GONE_FIX = "name a process that lives on, e.g. its parent, or the one that started in its place"


class Progress(Struct, frozen=True):
    """How far a recording is. `ok_count` of `source_count` sources answer."""

    elapsed_s: float
    requested_s: float
    ok_count: int
    source_count: int
    cost_percent: float
    note: str = ""


class Recording(Struct, frozen=True):
    """What one run of the loop brought."""

    clock: Clock
    cost: Cost
    tables: dict[str, Table]
    strings: tuple[str, ...]
    statuses: tuple[Status, ...]
    rates: tuple[Rate, ...]
    gone_ns: int | None = None
    interrupted: str = ""


class Problem(Struct, frozen=True):
    """Why a source did not answer."""

    state: Literal["unavailable", "failed"]
    reason: str
    grant: str = ""


class _Plan:
    """The window that all sources share; `start_ns` holds as soon as `started` is set."""

    def __init__(self, host: Host, target: Target, seconds: float) -> None:
        self.host, self.target, self.seconds = host, target, seconds
        self.start_ns = 0
        self.started = threading.Event()
        self.ended = threading.Event()
        self.is_packed = False


class _Source:
    """One collector at work, on its own thread."""

    def __init__(self, collector: Collector, plan: _Plan) -> None:
        self.collector, self._plan = collector, plan
        self.sink = Sink(collector, plan.seconds)
        self.opened, self.done = threading.Event(), threading.Event()
        self.rate: Rate | None = None
        self._session: Session | None = None
        self._problem: Problem | None = None
        self._poll_count = self._missed_count = self._cpu_ns = self._wall_ns = 0
        self._busy_since_ns: int | None = None
        self._watch = Watch()
        self.thread = threading.Thread(
            target=self._run, name=f"perfkit {collector.name}", daemon=True
        )

    @property
    def is_ok(self) -> bool:
        """Whether the source has answered and still does."""
        return self._poll_count > 0 and self._problem is None and not self.is_late

    @property
    def is_late(self) -> bool:
        """Whether a call has been out for longer than the collector's limit, at least a second."""
        since_ns = self._busy_since_ns
        limit_ns = 1e9 * max(1.0, self.collector.timeout_s)
        return since_ns is not None and self._plan.host.now_ns() - since_ns > limit_ns

    def to_status(self) -> Status:
        """How the collector fared, also when it hangs at this moment."""
        problem = self._problem
        if not self.done.is_set():
            since_ns, now_ns = self._busy_since_ns, self._plan.host.now_ns()
            words = f"had not ended {CLOSE_LIMIT_S} s after the window"
            if since_ns is not None:
                busy = self._watch.busy
                where = f": {busy[0]}" if busy is not None else ""
                words = f"did not answer within {(now_ns - since_ns) / 1e9:.1f} s{where}"
            problem = Problem("failed", words)
        status = to_status(self.collector.name, problem)
        # What answered at times is no missing source: its gaps are the polls that it missed.
        answered = status.state == "unavailable" and self.sink.row_count > 0
        return replace(
            status,
            state="ok" if answered else status.state,
            poll_count=self._poll_count,
            missed_count=self._missed_count,
            dropped_count=self.sink.dropped_count,
            cpu_ns=self._cpu_ns,
            wall_ns=self._wall_ns,
        )

    def list_children(self) -> tuple[int, ...]:
        """The processes that run for this source at this moment."""
        listed: Callable[[], tuple[int, ...]] | None = getattr(self._session, "children", None)
        return () if listed is None else listed()

    def _run(self) -> None:
        if self._try(self._open):
            self.opened.set()
            self._plan.started.wait()
            self._poll_until_end()
            self._try(self._close)
            self._try(self._read_rate)
        self.opened.set()
        self.done.set()

    def _open(self) -> Iterable[Item]:
        host = replace(self._plan.host, watch=self._watch)
        self._session = self.collector.open(host, self._plan.target)
        return ()

    def _close(self) -> Iterable[Item]:
        assert self._session is not None
        return self._session.close()

    def _read_rate(self) -> Iterable[Item]:
        read: Callable[[], Rate | None] | None = getattr(self._session, "rate", None)
        self.rate = read() if read is not None else None
        return ()

    def _poll_until_end(self) -> None:
        assert self._session is not None
        interval_ns = int(1e9 * self.collector.interval_s)
        now_ns = self._plan.host.now_ns
        place, last_ns = 0, 0
        due_ns = self._plan.start_ns
        end_ns = due_ns + int(1e9 * self._plan.seconds)
        while not self._plan.ended.wait(max(0.0, (due_ns - now_ns()) / 1e9)):
            last_ns = now_ns()
            self._poll()
            passed = (now_ns() - self._plan.start_ns) // interval_ns
            self._missed_count += max(0, passed - place)
            place = max(place, passed) + 1
            jitter = random.uniform(-JITTER_RATIO, JITTER_RATIO) if place else 0.0
            due_ns = self._plan.start_ns + int((place + jitter) * interval_ns)
            if due_ns > end_ns - LAST_POLL_RATIO * interval_ns:
                due_ns = end_ns + interval_ns  # the last reading stands at the window's end
        if now_ns() - last_ns > LAST_POLL_RATIO * interval_ns and not self._plan.is_packed:
            self._poll()

    def _poll(self) -> None:
        assert self._session is not None
        begin_ns = time.monotonic_ns()
        is_answered = self._try(self._session.poll)
        is_late = time.monotonic_ns() - begin_ns > 1e9 * self.collector.timeout_s
        self._poll_count += is_answered
        self._missed_count += is_late or not is_answered

    def _try(self, call: Callable[[], Iterable[Item]]) -> bool:
        """Carries out one call of the collector and keeps the books about it."""
        wall_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        self._busy_since_ns = t_ns = self._plan.host.now_ns()
        problem = attempt(lambda: self.sink.take(call(), t_ns))
        self._busy_since_ns = None
        self._cpu_ns += time.thread_time_ns() - cpu_ns
        self._wall_ns += time.monotonic_ns() - wall_ns
        if problem is not None and (self._problem is None or self._problem.state != "failed"):
            self._problem = problem
        return problem is None


def to_status(name: str, problem: Problem | None) -> Status:
    """The status of a source that met this problem, or none."""
    if problem is None:
        return Status(name, "ok")
    reason, grant = (cut_text(text)[:REASON_LIMIT] for text in (problem.reason, problem.grant))
    return Status(name, problem.state, reason, grant)


def attempt(call: Callable[[], object]) -> Problem | None:
    """Carries out a call; the only place where what a collector raises ends."""
    try:
        call()
    except Unavailable as absent:
        return Problem("unavailable", absent.reason, absent.grant)
    except Exception as error:
        return Problem("failed", f"{type(error).__name__}: {error}")
    return None


def run(
    host: Host,
    target: Target,
    collectors: Iterable[Collector],
    seconds: float,
    *,
    stop: threading.Event,
    progress: Callable[[Progress], None] | None = None,
) -> Recording:
    """Records one window of `seconds`, less when `stop` is set or the whole target is gone.

    Raises: `TargetError` where the target was gone before anything was measured.
    """
    sources: list[_Source] = []
    host = replace(host, spent_ns=lambda: _read_spent(sources).total_ns, recent=Recent())
    allowance = Allowance(host.spent_ns, host.now_ns)
    host = replace(host, allowance=allowance)
    plan = _Plan(host, target, seconds)
    sources += [_Source(collector, plan) for collector in sorted(collectors, key=_name)]
    follower = Follower(host, target) if target.kind != "host" else None
    if follower is not None and not follower.is_alive():
        follower.close()
        what = f"process {target.main_pid} exited before anything was measured"
        raise TargetError(what, fix=_GONE_FIX)
    for source in sources:
        source.thread.start()
    _await((source.opened for source in sources), OPEN_LIMIT_S)
    start, spent = read_anchor(host), _read_spent(sources)
    plan.start_ns = start.monotonic_ns
    allowance.begin(plan.start_ns, seconds)
    plan.started.set()
    try:
        gone_ns = _watch(plan, sources, follower, stop, progress)
    finally:
        if follower is not None:
            follower.close()
        end, cost = read_anchor(host), to_cost(spent, _read_spent(sources))
        plan.ended.set()
    _await((source.done for source in sources), CLOSE_LIMIT_S)
    plan.is_packed = True
    statuses = tuple(source.to_status() for source in sources)
    for source in sources:
        source.sink.seal()
    tables, strings = merge(source.sink for source in sources)
    elapsed_s = (end.monotonic_ns - start.monotonic_ns) / 1e9
    return Recording(
        clock=Clock(
            start.monotonic_ns, end.monotonic_ns, start.utc_ns, end.utc_ns, read_boot_id(host)
        ),
        cost=cost,
        tables=tables,
        strings=strings,
        statuses=statuses,
        rates=tuple(source.rate for source in sources if source.rate is not None),
        gone_ns=gone_ns,
        interrupted=_describe_end(elapsed_s, seconds, gone_ns, stop),
    )


def _read_spent(sources: list[_Source]) -> Spent:
    return read_spent(pid for source in sources for pid in source.list_children())


def _name(collector: Collector) -> str:
    return collector.name


def _await(events: Iterable[threading.Event], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    for event in events:
        event.wait(max(0.0, deadline - time.monotonic()))


def _watch(
    plan: _Plan,
    sources: list[_Source],
    follower: Follower | None,
    stop: threading.Event,
    progress: Callable[[Progress], None] | None,
) -> int | None:
    """Waits for the window to pass; gives the time when the target was first missed, if it was."""
    now_ns = plan.host.now_ns
    spent_ns = plan.host.spent_ns()
    end_ns = plan.start_ns + int(1e9 * plan.seconds)
    _tell(progress, plan, sources, spent_ns)
    while (left_s := (end_ns - now_ns()) / 1e9) > 0:
        if stop.wait(min(CHECK_INTERVAL_S, left_s)):
            return None
        moment_ns = now_ns()
        if follower is not None and not follower.is_alive():
            return moment_ns
        _tell(progress, plan, sources, spent_ns)
    return None


def _tell(
    progress: Callable[[Progress], None] | None, plan: _Plan, sources: list[_Source], began_ns: int
) -> None:
    if progress is None:
        return
    elapsed_ns = plan.host.now_ns() - plan.start_ns
    cpu_ns = plan.host.spent_ns() - began_ns
    late = [source.collector.name for source in sources if source.is_late]
    progress(
        Progress(
            elapsed_s=elapsed_ns / 1e9,
            requested_s=plan.seconds,
            ok_count=sum(source.is_ok for source in sources),
            source_count=len(sources),
            cost_percent=100 * cpu_ns / max(elapsed_ns, 1),
            note=f"no answer from {', '.join(late)}" if late else "",
        )
    )


def _describe_end(
    elapsed_s: float, seconds: float, gone_ns: int | None, stop: threading.Event
) -> str:
    if gone_ns is not None:
        return f"target gone after {elapsed_s:.1f} of {seconds:g} s"
    if stop.is_set():
        return f"stopped after {elapsed_s:.1f} of {seconds:g} s"
    return ""
