"""What `diagnose` and `record` share: sample this host, show progress, keep the run."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from perfkit.cli._screen import showing_progress, tell
from perfkit.errors import PerfkitError, RunError, UsageError

if TYPE_CHECKING:
    from perfkit.agent.loop import Progress as Step
    from perfkit.model import Header

THIS_HOST = "."
BAR_WIDTH = 10


class Sampling(NamedTuple):
    """What the user wants sampled."""

    target: str
    pid: int | None
    only_pid: bool
    seconds: float
    probe: bool
    quiet: bool


def sample(wanted: Sampling, stop: threading.Event) -> bytes:
    """Samples this host and gives the capture's bytes."""
    _check(wanted)
    with showing_progress(wanted.quiet) as progress:
        progress.start(f"sampling {_describe(wanted)} for {wanted.seconds:g} s")
        from perfkit.agent.record import RecordOptions
        from perfkit.fetch.local import fetch

        steps: list[Step] = []

        def show(step: Step) -> None:
            steps[:] = [step]
            progress.update(f"sampling {_describe(wanted)} {_word(step)}")

        raw = fetch(
            RecordOptions(
                pid=wanted.pid,
                only_pid=wanted.only_pid,
                seconds=wanted.seconds,
                probe=wanted.probe,
                stop=stop,
                progress=show,
            )
        )
        last = f", {_word_sources(steps[0])}" if steps else ""
        progress.end(f"sampled {_describe(wanted)}{last}")
        return raw


def keep(raw: bytes, header: Header) -> str:
    """Saves the run and gives its id; where it cannot be saved, says so and gives ""."""
    from perfkit.store.runs import find_folder, save_run

    try:
        return save_run(raw, header, find_folder())
    except RunError as error:
        tell(f"warning: {error.what}; the report is not affected")
        return ""


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


def _check(wanted: Sampling) -> None:
    if wanted.target != THIS_HOST:
        raise PerfkitError(
            f"unknown target {wanted.target!r}: "
            "only this host (.) can be diagnosed by this version",
            fix="perfkit diagnose .",
            effect="nothing was measured",
        )
    if wanted.only_pid and wanted.pid is None:
        raise UsageError("--only-pid narrows --pid, which is missing")


def _describe(wanted: Sampling) -> str:
    return f"pid {wanted.pid}" if wanted.pid else "this host"


def _word(step: Step) -> str:
    done = min(1.0, step.elapsed_s / max(step.requested_s, 1e-9))
    bar = ("#" * round(BAR_WIDTH * done)).ljust(BAR_WIDTH, "-")
    note = f"; {step.note}" if step.note else ""
    return f"{bar} {step.elapsed_s:.0f}/{step.requested_s:g} s  {_word_sources(step)}{note}"


def _word_sources(step: Step) -> str:
    cost = f"cost {step.cost_percent:.1f} % of one core"
    return f"{step.ok_count} of {step.source_count} sources, {cost}"
