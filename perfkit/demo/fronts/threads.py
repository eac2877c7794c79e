"""One thread accepts, one thread a connection, and a pool of workers that do the work.

A worker asks the shards one after another, on connections of its own, and waits for a batcher
thread to run the model.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from perfkit.demo.pipeline import (
    BATCH_COUNT_MAX,
    BATCH_WINDOW_S,
    Floats,
    Ranker,
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

SHARD_TIMEOUT_S = 10.0


class Batcher:
    """A thread that gathers users for a moment and runs the model on all of them at once."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker
        self._queue: queue.SimpleQueue[tuple[Floats, Future[list[int]]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="batcher", daemon=True).start()

    def rank(self, user: Floats) -> list[int]:
        """Waits for this user's ranking."""
        future: Future[list[int]] = Future()
        self._queue.put((user, future))
        return future.result()

    def _run(self) -> None:
        while True:
            batch = self._gather()
            rankings = rank(self._ranker, [user for user, _ in batch])
            for (_, future), items in zip(batch, rankings, strict=True):
                future.set_result(items)

    def _gather(self) -> list[tuple[Floats, Future[list[int]]]]:
        batch = [self._queue.get()]
        end_s = time.monotonic() + BATCH_WINDOW_S
        while len(batch) < BATCH_COUNT_MAX and (left_s := end_s - time.monotonic()) > 0:
            try:
                batch.append(self._queue.get(timeout=left_s))
            except queue.Empty:
                break
        return batch


class Workers:
    """The pool; each of its threads keeps one connection to every shard."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._batcher = Batcher(parts.ranker)
        self._own = threading.local()
        count = parts.options.worker_count
        self._pool = ThreadPoolExecutor(count, "worker", initializer=self._connect)

    def answer(self, body: bytes) -> bytes:
        """Hands a request to a worker and waits for the answer's body."""
        return self._pool.submit(self._work, body).result()

    def _connect(self) -> None:
        ports = self._parts.options.shard_ports
        self._own.shards = [_connect_shard(port) for port in ports]

    def _work(self, body: bytes) -> bytes:
        query = parse_query(body)
        shards: list[socket.socket] = self._own.shards
        asked = zip(shards, query.ids, strict=True)
        vectors = [look_up(shard, ids) for shard, ids in asked]
        user = make_user(vectors, read_row(self._parts.features, query.row))
        return pack_ranking(self._batcher.rank(user), self._parts.options.pad_bytes)


def _connect_shard(port: int) -> socket.socket:
    shard = socket.create_connection(("127.0.0.1", port), timeout=SHARD_TIMEOUT_S)
    shard.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return shard


def look_up(shard: socket.socket, ids: list[int]) -> bytes:
    """Asks one shard and waits for its vectors."""
    shard.sendall(pack_lookup(ids))
    count = parse_lookup_count(_receive(shard, HEADER.size))
    return _receive(shard, count * VECTOR_BYTES)


def _receive(source: socket.socket, size_bytes: int) -> bytes:
    parts = bytearray()
    while len(parts) < size_bytes:
        part = source.recv(size_bytes - len(parts))
        if not part:
            raise ConnectionError("the other side closed")
        parts += part
    return bytes(parts)


def serve_connection(connection: socket.socket, workers: Workers) -> None:
    """Answers one client until it closes."""
    kept = bytearray()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while (request := _next_request(connection, kept)) is not None:
                connection.sendall(_answer(workers, *request))
        except (ConnectionError, WireError):
            return


def _answer(workers: Workers, path: str, body: bytes) -> bytes:
    if path != "/recommend":
        return pack_answer("404 Not Found", b"{}")
    try:
        return pack_answer("200 OK", workers.answer(body))
    except (ValueError, KeyError):
        return pack_answer("400 Bad Request", b"{}")


def _next_request(connection: socket.socket, kept: bytearray) -> tuple[str, bytes] | None:
    """The path and body of the next request; None when the client has closed."""
    while (end := kept.find(HEAD_END)) < 0:
        part = connection.recv(HEAD_LIMIT_BYTES)
        if not part:
            return None
        kept += part
        if len(kept) > HEAD_LIMIT_BYTES:
            raise WireError("head too long")
    _, path, length = parse_head(bytes(kept[:end]))
    start = end + len(HEAD_END)
    if (missing := start + length - len(kept)) > 0:
        kept += _receive(connection, missing)
    body = bytes(kept[start : start + length])
    del kept[: start + length]
    return path, body


def serve(parts: Parts, ready: Callable[[], None]) -> None:
    """Accepts for ever."""
    workers = Workers(parts)
    ready()
    while True:
        connection, _ = parts.listener.accept()
        threading.Thread(target=serve_connection, args=(connection, workers), daemon=True).start()
