"""Work of libraries told as one frame: which functions are part of it, and who calls for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.analysis.areas import LOGGING, MATCHING, SPINNING, find_inside, to_area
from perfkit.analysis.case import Case, build_case
from perfkit.analysis.places import KERNEL, NATIVE
from perfkit.analysis.stacks import Function
from perfkit.codec import decode

CAPTURES = Path(__file__).parent / "captures"


def read(name: str) -> Case:
    """The case of a recorded run."""
    return build_case(decode((CAPTURES / f"{name}.perfkit").read_bytes()))


@pytest.mark.parametrize(
    ("function", "area"),
    [
        (Function("emit", "/usr/lib/python3.12/logging/__init__.py"), LOGGING),
        (Function("doRollover", "/usr/lib/python3.12/logging/handlers.py"), LOGGING),
        (Function("_log", "/app/.venv/lib/python3.11/site-packages/loguru/_logger.py"), LOGGING),
        (Function("search", "/usr/lib/python3.12/re/__init__.py"), MATCHING),
        (Function("match", "/usr/lib/python3.10/re.py"), MATCHING),
        (Function("sre_ucs2_match", "/usr/bin/python3.12", NATIVE), MATCHING),
        (Function("pcre2_match_8", "/lib/libpcre2-8.so.0", NATIVE), MATCHING),
        (Function("SRE_pattern_match", "/usr/bin/python3.12", NATIVE), MATCHING),
        (Function("pattern_search", "/usr/bin/python3.12", NATIVE), MATCHING),
        (Function("pthread_spin_lock", "/lib/libc.so.6", NATIVE), SPINNING),
        (Function("base::SpinLock::SlowLock()", "/app/server", NATIVE), SPINNING),
        (Function("rte_spinlock_lock", "/app/server", NATIVE), SPINNING),
        (Function("spdlog::logger::log_it_(int)", "/app/server", NATIVE), LOGGING),
    ],
)
def test_functions_of_a_library_are_its_area(function: Function, area: Function) -> None:
    """By file in Python, by name in native code."""
    assert to_area(function) == area


@pytest.mark.parametrize(
    "function",
    [
        Function("emit", "/app/mylogging/__init__.py"),
        Function("log", "/app/logging.py"),
        Function("match", "/app/re.py"),
        Function("info", "/srv/app/logging/__init__.py"),
        Function("find", "/srv/app/re/__init__.py"),
        Function("pattern_cache_lookup", "/app/server", NATIVE),
        Function("SREgistry_get", "/app/server", NATIVE),
        Function("ReadSpinLockStats", "/app/server", NATIVE),
        Function("spinlock_free_queue_push", "/app/server", NATIVE),
        Function("NoSpinLockNeeded", "/app/server", NATIVE),
        Function("SpinLock::Unlock()", "/app/server", NATIVE),
        Function("sre_ucs2_match", "/app/sre.py"),
        Function("search", "/app/search", NATIVE),
        Function("pcre2_match_8", "[kernel]", KERNEL),
        LOGGING,
    ],
)
def test_other_functions_stay_what_they_are(function: Function) -> None:
    """Names of the service's own that sound alike are its own."""
    assert to_area(function) == function


@pytest.mark.parametrize("front", ["threads", "asyncio"])
def test_an_engine_in_c_is_found_below_its_caller(front: str) -> None:
    """The pattern was compiled before, so the caller's is the innermost Python frame."""
    caller = Function("check_query", "/redacted/patterns.py")

    inside = find_inside(read(f"regex_backtracking.fires.{front}"), caller)

    assert inside is not None
    assert (inside.area, inside.caller, inside.source) == (MATCHING, caller, "native stacks")
    assert find_inside(read(f"hot_function.fires.{front}"), caller) is None


@pytest.mark.parametrize("front", ["threads", "asyncio"])
def test_who_logs_is_told(front: str) -> None:
    """The nearest frame outside of the library, however deep it is inside."""
    inside = find_inside(read(f"logging_overhead.fires.{front}"), LOGGING)

    assert inside is not None
    assert inside.caller == Function("log_candidates", "/redacted/debug_log.py")
    assert (inside.ratio, inside.caller_ratio) == (1.0, 1.0)
