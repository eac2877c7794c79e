"""The application that gunicorn runs: asks every backend, one after the other, then computes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from work import PEERS, handle

_connections: list[socket.socket] = []


def ask_backends() -> None:
    """Asks each backend over a connection that this process keeps."""
    if not _connections:
        _connections.extend(socket.create_connection(("127.0.0.1", port)) for port in PEERS)
    for connection in _connections:
        connection.sendall(b"question\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += connection.recv(4096)


def application(environ: dict[str, str], start: Callable[..., object]) -> Iterable[bytes]:
    """Answers one request."""
    ask_backends()
    body = handle(environ["PATH_INFO"].strip("/"))
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]
