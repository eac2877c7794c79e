"""An open-loop load: `python load.py http|redis PORT RATE`; prints the latencies of each second.

Requests start on schedule, whether or not earlier ones were answered; their age counts from when
they were due. Each line is a JSON list of milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys

PATHS = ("search", "suggest", "related", "history")
CONNECTION_COUNT = 16
TIMEOUT_S = 20.0
BLOB_BYTES, LIST_LENGTH = 2_000_000, 30_000


class Client:
    """One connection at a time; HTTP servers that close it get another."""

    def __init__(self, kind: str, port: int, rng: random.Random) -> None:
        self._kind, self._port, self._rng = kind, port, rng
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, hot_share: float) -> None:
        """Sends one request and reads its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        if self._kind == "redis":
            writer.write(self._command(hot_share))
            await _read_reply(reader)
            return
        path = self._rng.choice(PATHS)
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")[1:]
        fields = dict(line.split(b":", 1) for line in lines if b":" in line)
        await reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"connection", b"").strip() == b"close":
            writer.close()
            self._streams = None

    def _command(self, hot_share: float) -> bytes:
        if self._rng.random() < hot_share:
            return _pack("SORT", "big", "BY", "nosuch_*", "LIMIT", "0", "10", "ALPHA")
        key = f"key:{self._rng.randrange(10_000)}"
        if self._rng.random() < 0.2:
            return _pack("SET", key, "v" * 100)
        # The server's own work shall matter, so half of it is more than a lookup.
        return _pack("BITCOUNT", "blob") if self._rng.random() < 0.5 else _pack("GET", key)


def _pack(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [f"${len(word)}\r\n{word}\r\n".encode() for word in words]
    return b"".join(parts)


async def _read_reply(reader: asyncio.StreamReader) -> None:
    line = await reader.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RuntimeError(f"redis: {rest.decode()}")
    if kind == b"$" and int(rest) >= 0:
        await reader.readexactly(int(rest) + 2)
    if kind == b"*":
        for _ in range(int(rest)):
            await _read_reply(reader)


async def _fill(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_pack("SET", "blob", "b" * BLOB_BYTES))
    await _read_reply(reader)
    for begin in range(0, LIST_LENGTH, 1000):
        values = [str(number * 7919 % 1_000_003) for number in range(begin, begin + 1000)]
        writer.write(_pack("RPUSH", "big", *values))
        await _read_reply(reader)
    writer.close()


async def _run(kind: str, port: int, rate: float) -> None:
    rng = random.Random(1)
    clients: asyncio.LifoQueue[Client] = asyncio.LifoQueue()
    for _ in range(CONNECTION_COUNT):
        clients.put_nowait(Client(kind, port, rng))
    if kind == "redis":
        await _fill(port)
    loop, hot = asyncio.get_running_loop(), {"share": 0.0}
    loop.add_reader(sys.stdin, lambda: hot.update(share=float(sys.stdin.readline() or 0)))
    done: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(due: float) -> None:
        client = await clients.get()
        try:
            await asyncio.wait_for(client.ask(hot["share"]), TIMEOUT_S)
            done.append(1000 * (loop.time() - due))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            client._streams = None
        finally:
            clients.put_nowait(client)

    due, told, parent = loop.time(), loop.time() + 1, os.getppid()
    while os.getppid() == parent:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - loop.time()))
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if loop.time() >= told:
            print(json.dumps([round(one_ms, 2) for one_ms in done]), flush=True)
            done.clear()
            told += 1


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
