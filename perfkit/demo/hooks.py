"""Where a fault can enter the path of each request: a call at a named stage, nothing by default.

Stages: `handle` (the worker's thread, or the event loop itself), `disk` (whoever reads the features
file) and `model` (whoever runs numpy).
"""

from __future__ import annotations

from collections.abc import Callable

_hooks: dict[str, Callable[[], None]] = {}


def set_hook(stage: str, call: Callable[[], None] | None) -> None:
    """Has every request make this call at a stage, or none again."""
    if call is None:
        _hooks.pop(stage, None)
    else:
        _hooks[stage] = call


def run_hook(stage: str) -> None:
    """Makes the call of a stage, if there is one."""
    call = _hooks.get(stage)
    if call is not None:
        call()
