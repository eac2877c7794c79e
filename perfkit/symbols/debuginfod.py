"""Debug files from a debuginfod server, only where the user has asked for it.

Source: the debuginfod HTTP interface, GET /buildid/BUILDID/debuginfo.
"""

from __future__ import annotations

import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.symbols.cache import is_build_id

URLS_MAX = 8
_CHUNK_BYTES = 1 << 18


class Servers(Struct, frozen=True):
    """Whom to ask, how long in all, and for how much at most; no `urls` means nobody."""

    urls: tuple[str, ...] = ()
    timeout_s: float = 20.0
    limit_bytes: int = 1 << 30


def parse_servers(variable: str) -> tuple[str, ...]:
    """The servers that DEBUGINFOD_URLS names, of those that are reached by HTTP."""
    named = (one.rstrip("/") for one in variable.split())
    return tuple(one for one in named if one.startswith(("http://", "https://")))[:URLS_MAX]


@contextmanager
def fetch(servers: Servers, build_id: str) -> Iterator[int]:
    """The debug file of a build-id, as an open file without a name.

    Raises: Unavailable, with what each server said.
    """
    if not is_build_id(build_id):
        raise Unavailable("no build-id to ask for")
    deadline_s = time.monotonic() + servers.timeout_s
    reasons = []
    with tempfile.TemporaryFile(prefix="perfkit-debug-") as kept:
        for url in servers.urls:
            try:
                _copy(f"{url}/buildid/{build_id}/debuginfo", kept.fileno(), servers, deadline_s)
            except Unavailable as refused:
                reasons.append(f"{url}: {refused.reason}")
                continue
            yield kept.fileno()
            return
    raise Unavailable("; ".join(reasons) or "no debuginfod server is configured")


def _copy(url: str, descriptor: int, servers: Servers, deadline_s: float) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    left_s = max(0.1, deadline_s - time.monotonic())
    try:
        with urllib.request.urlopen(url, timeout=left_s) as answer:
            _receive(answer, descriptor, servers, deadline_s)
    except urllib.error.HTTPError as refused:
        refused.close()
        raise Unavailable(f"HTTP {refused.code}") from refused
    except (OSError, http.client.HTTPException, ValueError) as refused:
        raise Unavailable(str(getattr(refused, "reason", refused))) from refused


def _receive(
    answer: http.client.HTTPResponse, descriptor: int, servers: Servers, deadline_s: float
) -> None:
    left_bytes = servers.limit_bytes
    while piece := answer.read1(_CHUNK_BYTES):
        left_bytes -= len(piece)
        if left_bytes < 0:
            raise Unavailable(f"more than {servers.limit_bytes} bytes")
        if time.monotonic() > deadline_s:
            raise Unavailable(f"not done within {servers.timeout_s:g} s")
        os.write(descriptor, piece)
