"""The application that uvicorn runs: asks every backend, one after the other, then computes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from work import PEERS, handle

_idle: list[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = [[] for _ in PEERS]


async def ask_backends() -> None:
    """Asks each backend over a connection of the pool."""
    for port, pool in zip(PEERS, _idle, strict=True):
        reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"question\n")
        await reader.readline()
        pool.append((reader, writer))


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answers one request."""
    if scope["type"] != "http":
        return
    await ask_backends()
    body = handle(scope["path"].strip("/"))
    length = str(len(body)).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    )
    await send({"type": "http.response.body", "body": body})
