"""The two protocols of the demo: HTTP/1.1 in front, length-prefixed binary to the shards."""

from __future__ import annotations

import struct
from array import array

HEAD_LIMIT_BYTES = 16 << 10
BODY_LIMIT_BYTES = 256 << 10
ID_COUNT_MAX = 256
VECTOR_LENGTH = 32
VECTOR_BYTES = 4 * VECTOR_LENGTH
HEADER = struct.Struct("<4sI")
LOOKUP = b"EMB1"
HEAD_END = b"\r\n\r\n"


class WireError(Exception):
    """The other side sent what neither protocol allows; its connection is closed."""


def pack_lookup(ids: list[int]) -> bytes:
    """Packs the ids asked of one shard."""
    return HEADER.pack(LOOKUP, len(ids)) + array("Q", ids).tobytes()


def parse_lookup_count(header: bytes) -> int:
    """The number of ids, or of vectors, that follow a header. Raises `WireError`."""
    magic, count = HEADER.unpack(header)
    if magic != LOOKUP or count > ID_COUNT_MAX:
        raise WireError("not a lookup, or too many ids")
    return int(count)


def parse_ids(payload: bytes) -> array[int]:
    """The ids of a lookup."""
    ids = array("Q")
    ids.frombytes(payload)
    return ids


def parse_head(head: bytes) -> tuple[str, str, int]:
    """The method, the path and the body's length of one HTTP request. Raises `WireError`."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        raise WireError("not an HTTP request line")
    fields = dict(line.lower().split(":", 1) for line in lines[1:] if ":" in line)
    length = fields.get("content-length", "0").strip()
    if not length.isdecimal() or int(length) > BODY_LIMIT_BYTES:
        raise WireError("body length missing or too large")
    return words[0], words[1], int(length)


def pack_answer(status: str, body: bytes) -> bytes:
    """Packs one HTTP answer; the connection stays open."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + HEAD_END + body
