"""Records one capture of this host: resolve, run, probe, pack."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from perfkit import __version__, codec, discover
from perfkit.agent import probe
from perfkit.agent.loop import Problem, Progress, Recording, attempt, run, to_status
from perfkit.agent.machine import read_host_name, read_machine_aside
from perfkit.agent.target import resolve
from perfkit.errors import NativeMissing, UsageError
from perfkit.host import Host
from perfkit.model import SCHEMA_VERSION, Capture, Collector, Header, Row, Target

SECONDS_LIMIT = 3600.0
_NATIVE_FIX = (
    "install a C compiler and the headers of Python (Debian: apt install gcc python3-dev), then "
    "pip install --force-reinstall --no-cache-dir perfkit"
)


class RecordOptions(Struct, frozen=True):
    """What to record. `collectors` names those wanted, empty means all.

    `reached_as` is the name by which whoever asked reaches this host, "" for the host itself.
    """

    host: Host = Host()
    pid: int | None = None
    only_pid: bool = False
    seconds: float = 10.0
    probe: bool = True
    collectors: tuple[str, ...] = ()
    stop: threading.Event | None = None
    progress: Callable[[Progress], None] | None = None
    reached_as: str = ""


def record(options: RecordOptions) -> bytes:
    """Records one window of this host and packs it.

    Raises: `NativeMissing` where the C extension is not built; `TargetError` where the target does
    not exist or died before the window; `UsageError` for an unknown collector or an absurd window.
    """
    _check(options)
    target = resolve(options.host, options.pid, options.only_pid)
    wanted = choose_collectors(options.collectors)
    recording = run(
        options.host,
        target,
        [one for one in wanted if target.kind != "host" or one.scope == "host"],
        options.seconds,
        stop=options.stop or threading.Event(),
        progress=options.progress,
    )
    if target.kind == "host":
        names = [one.name for one in wanted if one.scope == "target"]
        recording = add_skipped([*names, "probe"], recording)
    else:
        recording = add_probes(options, target, recording)
    return codec.encode(to_capture(options, target, recording))


def choose_collectors(names: tuple[str, ...]) -> tuple[Collector, ...]:
    """The collectors that were asked for: those named, else all."""
    found: dict[str, Collector] = discover.load_all("perfkit.collectors", "COLLECTOR")
    unknown = sorted(set(names) - found.keys())
    if unknown:
        known = ", ".join(sorted(found))
        raise UsageError(f"unknown collector {unknown[0]!r}", fix=f"name some of: {known}")
    return tuple(found[name] for name in sorted(set(names) or found))


def add_skipped(names: list[str], recording: Recording) -> Recording:
    """Says of sources that look at a service that there was none to look at."""
    problem = Problem("unavailable", "no service was looked at", grant="--pid PID")
    skipped = (to_status(name, problem) for name in names)
    return replace(recording, statuses=(*recording.statuses, *skipped))


def add_probes(options: RecordOptions, target: Target, recording: Recording) -> Recording:
    """Connects to the peers that were waited for most, unless it is unwanted or came to an end."""
    tables, strings = recording.tables, recording.strings
    rows: list[Row] = []
    if not options.probe:
        problem: Problem | None = Problem("unavailable", "switched off with --no-probe")
    elif recording.interrupted:
        problem = Problem("unavailable", "the window was cut short")
    else:
        problem = attempt(lambda: rows.extend(probe.run(options.host, target, tables, strings)))
        table, strings = probe.to_table(rows, strings)
        tables = {**tables, table.name: table}
    status = replace(to_status("probe", problem), poll_count=len(rows))
    statuses = (*recording.statuses, status)
    return replace(recording, tables=tables, strings=strings, statuses=statuses)


def to_capture(options: RecordOptions, target: Target, recording: Recording) -> Capture:
    """Puts a recording and the description of the host together."""
    header = Header(
        schema_version=SCHEMA_VERSION,
        perfkit_version=__version__,
        host=read_host_name(options.host),
        machine=read_machine_aside(options.host),
        clock=recording.clock,
        target=replace(target, gone_ns=recording.gone_ns),
        requested_s=options.seconds,
        cost=recording.cost,
        statuses=recording.statuses,
        rates=recording.rates,
        interrupted=recording.interrupted,
        reached_as=options.reached_as,
    )
    return Capture(header, recording.tables, recording.strings)


def _check(options: RecordOptions) -> None:
    try:
        importlib.import_module("perfkit._native")
    except ImportError as absent:
        raise NativeMissing(
            "perfkit's C extension is not built, so threads and sockets cannot be sampled",
            fix=_NATIVE_FIX,
            effect="nothing was measured; saved runs can still be read",
        ) from absent
    if not 0 < options.seconds <= SECONDS_LIMIT:
        raise UsageError(
            f"a window of {options.seconds:g} s is not above 0 and at most {SECONDS_LIMIT:g} s",
            fix="perfkit diagnose --help",
        )
