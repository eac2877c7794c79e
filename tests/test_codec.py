"""Bytes either decode to the capture that was encoded, or raise CaptureError."""

from __future__ import annotations

import struct
import subprocess
import sys
from array import array

import msgspec
import pytest
import zstandard
from capture_values import CODES, make_capture, make_header
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from perfkit import codec
from perfkit.errors import CaptureError
from perfkit.model import Capture, Clock, Column, ColumnType, Status, Table, Target

TEXT = st.text(max_size=20)
INTEGER = st.integers(-(2**63), 2**63 - 1)
VALUES = {ColumnType.INTEGER: INTEGER, ColumnType.REAL: st.floats(width=64)}


@st.composite
def tables(draw: st.DrawFn, name: str, string_count: int) -> Table:
    """Any table whose text columns name existing strings."""
    types = st.sampled_from(ColumnType) if string_count else st.sampled_from(list(VALUES))
    columns = tuple(
        Column(draw(TEXT), draw(TEXT), draw(types)) for _ in range(draw(st.integers(1, 4)))
    )
    count = draw(st.integers(0, 8))
    index = st.integers(0, max(0, string_count - 1))
    packed = tuple(
        array(
            CODES[column.type],
            draw(st.lists(VALUES.get(column.type, index), min_size=count, max_size=count)),
        ).tobytes()
        for column in columns
    )
    return Table(name, columns, packed, count, draw(st.integers(0, 9)))


@st.composite
def captures(draw: st.DrawFn) -> Capture:
    """Any capture within the limits."""
    strings = tuple(draw(st.lists(TEXT, max_size=5)))
    names = draw(st.sets(st.text("abc", min_size=1, max_size=3), max_size=3))
    found = {name: draw(tables(name, len(strings))) for name in sorted(names)}
    start_ns = draw(st.integers(0, 2**62))
    clock = Clock(start_ns, start_ns + draw(st.integers(0, 2**40)), draw(INTEGER), draw(INTEGER))
    header = replace(
        make_header(),
        host=draw(TEXT),
        clock=clock,
        target=Target("host", 0, draw(TEXT), draw(TEXT)),
        statuses=(Status(draw(TEXT), "failed", draw(TEXT)),),
    )
    return Capture(header, found, strings)


@given(captures())
def test_decode_gives_back_what_was_encoded(capture: Capture) -> None:
    """Every capture survives the way through bytes, and equal captures give equal bytes."""
    raw = codec.encode(capture)

    again = codec.decode(raw)

    assert again == capture
    assert codec.encode(again) == raw


def decode_or_refuse(raw: bytes) -> Capture | None:
    """Decodes, or gives None where that raised the one error that it may raise."""
    try:
        return codec.decode(raw)
    except CaptureError:
        return None


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Bytes that are no capture raise CaptureError and nothing else."""
    found = decode_or_refuse(raw)

    assert found is None


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic_are_refused(raw: bytes) -> None:
    """A file that begins like a capture and goes on as noise raises CaptureError."""
    found = decode_or_refuse(codec.MAGIC + raw)

    assert found is None


@given(st.integers(0), st.integers(0, 7))
@settings(max_examples=300)
def test_flipped_bit_is_noticed(place: int, bit: int) -> None:
    """One flipped bit anywhere is noticed by a checksum or a limit."""
    raw = bytearray(codec.encode(make_capture()))
    raw[place % len(raw)] ^= 1 << bit

    found = decode_or_refuse(bytes(raw))

    assert found is None


@given(st.integers(0))
@settings(max_examples=300)
def test_truncated_capture_is_noticed(length: int) -> None:
    """A capture that ends early is refused, wherever it ends."""
    raw = codec.encode(make_capture())

    found = decode_or_refuse(raw[: length % len(raw)])

    assert found is None


@given(st.binary(min_size=1, max_size=20))
def test_bytes_behind_the_end_are_noticed(tail: bytes) -> None:
    """A capture with something behind its last section is refused."""
    found = decode_or_refuse(codec.encode(make_capture()) + tail)

    assert found is None


def forge(**changes: object) -> bytes:
    """A capture whose envelope was changed by somebody who keeps the checksums right."""
    prefix = struct.Struct("<8sHI8s")
    raw = codec.encode(make_capture())
    magic, version, length, _ = prefix.unpack_from(raw)
    envelope = msgspec.msgpack.decode(raw[prefix.size : prefix.size + length])
    body = raw[prefix.size + length :]
    section = envelope["sections"][0]
    if "raw" in changes:
        packed = zstandard.ZstdCompressor().compress(changes.pop("raw"))  # type: ignore[arg-type]
        body = packed + body[section["packed_bytes"] :]
        section.update(packed_bytes=len(packed), digest=codec._digest(packed))
    envelope["header"]["clock"].update(changes.pop("clock", {}))
    envelope["sections"] *= changes.pop("times", 1)
    version = changes.pop("version", version)
    section.update(changes)
    packed_envelope = msgspec.msgpack.encode(envelope)
    digest = codec._digest(packed_envelope)
    return prefix.pack(magic, version, len(packed_envelope), digest) + packed_envelope + body


def test_forged_capture_without_changes_decodes() -> None:
    """The forger of these tests makes valid captures when it changes nothing."""
    assert codec.decode(forge()) == make_capture()


BOMB = bytes(300 << 20)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "capture of version 2, this perfkit reads up to 1"),
        ({"version": 0}, "version 0 never existed"),
        ({"row_count": 10**9}, "over the limits"),
        ({"row_count": -1}, "over the limits"),
        ({"row_count": 4}, "columns of table 'things'"),
        ({"raw_bytes": 10**12}, "over the limits"),
        ({"raw_bytes": 61}, "size of section"),
        ({"packed_bytes": 2**40}, "truncated"),
        ({"packed_bytes": -5}, "over the limits"),
        ({"raw": b"short"}, "size of section"),
        ({"raw": BOMB}, "size of section"),
        ({"raw": BOMB, "raw_bytes": len(BOMB)}, "over the limits"),
        ({"clock": {"end_ns": 1}}, "ends before it begins"),
        ({"times": 300}, "over the limit"),
        ({"columns": [{"name": "x"}] * 129}, "over the limits"),
        ({"digest": b"12345678"}, "section 'things'"),
        ({"name": 5}, "envelope"),
    ],
)
def test_forged_capture_is_refused(changes: dict[str, object], words: str) -> None:
    """What keeps its checksums but lies about sizes, versions or limits is refused in words."""
    raw = forge(**changes)

    with pytest.raises(CaptureError, match=words):
        codec.decode(raw)


def test_text_that_names_no_string_is_refused() -> None:
    """An index beyond the string table is found on reading, not by each reader of rows."""
    capture = replace(make_capture(), strings=("a",))

    with pytest.raises(CaptureError, match=r"text of things\.name"):
        codec.decode(codec.encode(capture))


def test_envelope_of_a_later_minor_version_decodes() -> None:
    """Fields that this version does not know are passed over: columns and sections are added."""
    raw = forge(news="a later perfkit wrote this")

    assert codec.decode(raw) == make_capture()


# Each child is the first to decode, on four threads at once; what it tells is how it ended.
RACE = """
import os, sys, threading
from perfkit.codec import decode
raw = sys.stdin.buffer.read()
sys.setswitchinterval(1e-6)
def race():
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=lambda: (barrier.wait(), decode(raw))) for _ in range(4)]
    [one.start() for one in threads]
    [one.join() for one in threads]
    os._exit(0)
for _ in range(60):
    child = os.fork() or race()
    print(os.waitpid(child, 0)[1])
"""


def test_captures_are_decoded_on_several_threads_at_once() -> None:
    """Captures of many hosts come in together, the very first ones too."""
    raw = codec.encode(make_capture())

    done = subprocess.run(
        [sys.executable, "-c", RACE], input=raw, capture_output=True, check=True, timeout=60
    )

    assert set(done.stdout.split()) == {b"0"}
