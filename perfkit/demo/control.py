"""How the supervisor and its children speak: JSON lines on the child's stdin and stdout.

A child ends when its stdin ends, and by the kernel's hand when its supervisor dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)


def die_with(parent_pid: int) -> None:
    """Makes the kernel kill this process when its parent dies, also if it is dead already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def allow_tracing() -> None:
    """Lets any process of this user read this one; a kernel without Yama says EINVAL: no need."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)


def announce(**fields: Any) -> None:
    """Writes one line to the supervisor."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def obey_in_thread(obey: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Carries out each order as it comes in a thread of its own, and ends with stdin."""
    threading.Thread(target=_obey_all, args=(obey,), name="control", daemon=True).start()


def _obey_all(obey: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for line in sys.stdin:
        announce(**obey(json.loads(line)))
    os._exit(0)
