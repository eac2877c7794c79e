"""What `diagnose` and `record` share: sample a host, show progress, keep the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from perfkit import __version__
from perfkit.cli._names import name_frames
from perfkit.cli._screen import showing_progress, tell
from perfkit.errors import PerfkitError, RunError, UsageError

if TYPE_CHECKING:
    from perfkit.agent.loop import Progress as Step
    from perfkit.host import StackWish
    from perfkit.model import Header

THIS_HOST = "."
SECONDS_LIMIT = 3600.0
# Below it every verdict is "insufficient" (WINDOW_MIN_S of the analysis, which needs numpy).
JUDGED_MIN_S = 2.0
BAR_WIDTH = 10


class Sampling(NamedTuple):
    """What the user wants sampled; `stacks` how, where it is not as a diagnosis does."""

    target: str
    pid: int | None
    only_pid: bool
    seconds: float
    probe: bool
    quiet: bool
    stacks: StackWish | None = None


def sample(wanted: Sampling, stop: threading.Event) -> bytes:
    """Samples this host or another and gives the capture's bytes, which are whole and readable."""
    check_target(wanted)
    with showing_progress(wanted.quiet) as progress:
        # A process here is named only once it is there: the first step comes at once then.
        is_known = wanted.target != THIS_HOST or wanted.pid is None
        start = f"sampling {_describe(wanted)} for {wanted.seconds:g} s"
        if is_known:
            progress.start(start)
        steps: list[Step] = []

        def show(step: Step) -> None:
            if not steps and not is_known:
                progress.start(start)
            steps[:] = [step]
            progress.update(f"sampling {_describe(wanted)} {_word(step)}")

        raw = obtain(wanted, stop, show)
        last = f", {_word_sources(steps[0])}" if steps else ""
        progress.end(f"sampled {_describe(wanted)}{last}")
        return raw


def obtain(
    wanted: Sampling, stop: threading.Event, show: Callable[[Step], None] | None = None
) -> bytes:
    """Gets the capture from wherever the target is, its frames named. Raises: `PerfkitError`."""
    if wanted.target == THIS_HOST:
        return name_frames(_record_here(wanted, stop, show), is_here=True)
    from perfkit.config import load_config
    from perfkit.errors import CaptureError
    from perfkit.fetch.ssh import SshOptions, fetch

    raw = fetch(
        SshOptions(
            host=wanted.target,
            config=load_config(),
            pid=wanted.pid,
            only_pid=wanted.only_pid,
            seconds=wanted.seconds,
            probe=wanted.probe,
            stop=stop,
            progress=show,
        )
    )
    try:
        return name_frames(raw, is_here=False)
    except CaptureError as error:
        raise CaptureError(
            f"{wanted.target}: {error.what}",
            fix=error.fix or f"install the same perfkit on both, and run it again ({__version__})",
            effect=f"nothing of {wanted.target} can be read",
        ) from error


def _record_here(
    wanted: Sampling, stop: threading.Event, show: Callable[[Step], None] | None
) -> bytes:
    from perfkit.agent.record import RecordOptions
    from perfkit.fetch.local import fetch
    from perfkit.host import Host

    return fetch(
        RecordOptions(
            host=Host() if wanted.stacks is None else Host(stacks=wanted.stacks),
            pid=wanted.pid,
            only_pid=wanted.only_pid,
            seconds=wanted.seconds,
            probe=wanted.probe,
            stop=stop,
            progress=show,
        )
    )


def keep(raw: bytes, header: Header) -> str:
    """Saves the run and gives its id; where it cannot be saved, says so and gives ""."""
    try:
        return save(raw, header)
    except RunError as error:
        tell(f"warning: {error.what}; the report is not affected")
        return ""


def save(raw: bytes, header: Header) -> str:
    """Saves the run, within the room that the settings leave, and gives its id."""
    from perfkit.config import load_config
    from perfkit.store.runs import find_folder, save_run

    return save_run(raw, header, find_folder(), load_config().get("runs.limit_mib") << 20)


def check_reader() -> None:
    """Raises `PerfkitError` where only the agent's part of perfkit is installed."""
    if find_spec("numpy") is None:
        raise missing("numpy")


def missing(module: str) -> PerfkitError:
    """The error of an installation that lacks what only readers of captures need."""
    return PerfkitError(
        f"{module} is not installed: this installation can record but not report",
        fix="pip install 'perfkit[cli]'",
    )


def check_target(wanted: Sampling) -> None:
    """Refuses what cannot be sampled before anything is. Raises: `UsageError`."""
    if wanted.target != THIS_HOST:
        from perfkit.config import load_config
        from perfkit.fetch.ssh import check_host

        check_host(wanted.target)
        load_config()
    if not 0 < wanted.seconds <= SECONDS_LIMIT:
        raise UsageError(
            f"a window of {wanted.seconds:g} s is not above 0 and at most {SECONDS_LIMIT:g} s",
            fix="--seconds 10",
        )
    if wanted.only_pid and wanted.pid is None:
        fix = "--pid N --only-pid"
        raise UsageError("--only-pid narrows --pid, which is missing", fix=fix)


def check_judged(seconds: float) -> None:
    """Refuses a window that no verdict could come of. Raises: `UsageError`."""
    if 0 < seconds < JUDGED_MIN_S:
        raise UsageError(
            f"a window of {seconds:g} s is too short to judge, {JUDGED_MIN_S:g} s is the least",
            fix=f"--seconds {JUDGED_MIN_S:g}, or leave it out for 10 s",
        )


def warn_unjudged(wanted: Sampling) -> None:
    """Says of a capture that can be kept but not judged that it is one."""
    if wanted.seconds < JUDGED_MIN_S and not wanted.quiet:
        tell(
            f"warning: {wanted.seconds:g} s can be kept but not judged: perfkit report needs "
            f"{JUDGED_MIN_S:g} s"
        )


def _describe(wanted: Sampling) -> str:
    here = wanted.target == THIS_HOST
    if wanted.pid:
        return f"pid {wanted.pid}" if here else f"{wanted.target} pid {wanted.pid}"
    return "this host" if here else wanted.target


def _word(step: Step) -> str:
    done = min(1.0, step.elapsed_s / max(step.requested_s, 1e-9))
    bar = ("#" * round(BAR_WIDTH * done)).ljust(BAR_WIDTH, "-")
    note = f"; {step.note}" if step.note else ""
    return f"{bar} {step.elapsed_s:.0f}/{step.requested_s:g} s  {_word_sources(step)}{note}"


def _word_sources(step: Step) -> str:
    cost = f"cost {step.cost_percent:.1f} % of one core"
    return f"{step.ok_count} of {step.source_count} sources, {cost}"
