"""One event loop that serves all clients, and asks all shards of a request at once.

The loop itself tokenises and fans out; numpy and the disk have an executor.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from perfkit.demo.pipeline import (
    BATCH_COUNT_MAX,
    BATCH_WINDOW_S,
    Floats,
    make_user,
    pack_ranking,
    parse_query,
    rank,
    read_row,
)
from perfkit.demo.service import Parts
from perfkit.demo.wire import (
    HEAD_END,
    HEAD_LIMIT_BYTES,
    HEADER,
    VECTOR_BYTES,
    WireError,
    pack_answer,
    pack_lookup,
    parse_head,
    parse_lookup_count,
)

EXECUTOR_COUNT = 2
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ShardClient:
    """The persistent connections to one shard; each carries one lookup at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Streams] = []

    async def look_up(self, ids: list[int]) -> bytes:
        """Asks the shard on a free connection, opening one if there is none."""
        streams = self._free.pop() if self._free else await self._open()
        reader, writer = streams
        writer.write(pack_lookup(ids))
        count = parse_lookup_count(await reader.readexactly(HEADER.size))
        vectors = await reader.readexactly(count * VECTOR_BYTES)
        self._free.append(streams)
        return vectors

    async def _open(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self._port)


class Loop:
    """All that lives on the event loop: clients' handlers, shard connections, the batcher."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._shards = [ShardClient(port) for port in parts.options.shard_ports]
        self._executor = ThreadPoolExecutor(EXECUTOR_COUNT, "numpy")
        self._queue: asyncio.Queue[tuple[Floats, asyncio.Future[list[int]]]] = asyncio.Queue()

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answers one client until it closes."""
        try:
            while True:
                head = await reader.readuntil(HEAD_END)
                _, path, length = parse_head(head)
                writer.write(await self._answer(path, await reader.readexactly(length)))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, WireError):
            writer.close()

    async def _answer(self, path: str, body: bytes) -> bytes:
        if path != "/recommend":
            return pack_answer("404 Not Found", b"{}")
        try:
            return pack_answer("200 OK", await self._work(body))
        except (ValueError, KeyError):
            return pack_answer("400 Bad Request", b"{}")

    async def _work(self, body: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        query = parse_query(body)
        asked = zip(self._shards, query.ids, strict=True)
        vectors = await asyncio.gather(*(shard.look_up(ids) for shard, ids in asked))
        features = self._parts.features
        row = await loop.run_in_executor(self._executor, read_row, features, query.row)
        ranking: asyncio.Future[list[int]] = loop.create_future()
        self._queue.put_nowait((make_user(list(vectors), row), ranking))
        return pack_ranking(await ranking, self._parts.options.pad_bytes)

    async def run_batches(self) -> None:
        """Gathers users for a moment and runs the model on all of them at once, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(BATCH_WINDOW_S)
            while len(batch) < BATCH_COUNT_MAX and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            users = [user for user, _ in batch]
            rankings = await loop.run_in_executor(self._executor, rank, self._parts.ranker, users)
            for (_, future), items in zip(batch, rankings, strict=True):
                # A client that went away cancelled its wait.
                if not future.done():
                    future.set_result(items)


async def _run(parts: Parts, listener: socket.socket, ready: Callable[[], None]) -> None:
    loop = Loop(parts)
    server = await asyncio.start_server(
        loop.serve_connection, sock=listener, limit=HEAD_LIMIT_BYTES
    )
    ready()
    await asyncio.gather(server.serve_forever(), loop.run_batches())


def serve(parts: Parts, ready: Callable[[], None]) -> None:
    """Serves for ever on one loop."""
    asyncio.run(_run(parts, parts.listener, ready))
