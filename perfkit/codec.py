"""Capture <-> bytes. Bytes are hostile: they either decode, or raise `CaptureError`.

    magic 8 B "PERFKIT\\n" | version u16 | envelope length u32 | envelope digest 8 B
    envelope | sections

The envelope is msgpack: the header, the tables' shapes, and a digest and two lengths per section.
A section is one table's columns (or the strings) behind one another, compressed with zstd. Columns
and sections are only ever added; a reader skips a table whose columns it does not know how to size.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec
import zstandard
from msgspec import Struct

from perfkit.errors import CaptureError
from perfkit.model import SCHEMA_VERSION, Capture, Column, ColumnType, Header, Table

MAGIC = b"PERFKIT\n"
ENVELOPE_LIMIT_BYTES = 8 << 20
SECTION_LIMIT_BYTES = 256 << 20
CAPTURE_LIMIT_BYTES = 1 << 30
SECTION_COUNT_LIMIT = 512
COLUMN_COUNT_LIMIT = 128
ROW_COUNT_LIMIT = 20_000_000
STRING_COUNT_LIMIT = 4_000_000
COMPRESSION_LEVEL = 3
_PREFIX = struct.Struct("<8sHI8s")
PREFIX_BYTES = _PREFIX.size
_STRINGS = "strings"


class _Section(Struct, frozen=True):
    name: str
    packed_bytes: int
    raw_bytes: int
    digest: bytes
    row_count: int = 0
    dropped_count: int = 0
    columns: tuple[Column, ...] = ()


class _Envelope(Struct, frozen=True):
    header: Header
    sections: tuple[_Section, ...]


# Made once, at import: msgspec (0.22) works out a struct's fields at its first use, and two threads
# that are the first to decode, each a capture of another host, crash the process.
_ENVELOPES = msgspec.msgpack.Decoder(_Envelope)


def encode(capture: Capture, compression_level: int = COMPRESSION_LEVEL) -> bytes:
    """Packs a capture; equal captures give equal bytes."""
    strings = msgspec.msgpack.encode(capture.strings)
    sections, bodies = [], []
    for table in [capture.tables[name] for name in sorted(capture.tables)] + [None]:
        raw = strings if table is None else b"".join(table.packed)
        body = zstandard.ZstdCompressor(level=compression_level).compress(raw)
        bodies.append(body)
        sections.append(_section(table, body, len(raw), len(capture.strings)))
    envelope = msgspec.msgpack.encode(_Envelope(capture.header, tuple(sections)))
    prefix = _PREFIX.pack(MAGIC, SCHEMA_VERSION, len(envelope), _digest(envelope))
    return b"".join([prefix, envelope, *bodies])


def decode(raw: bytes) -> Capture:
    """Unpacks a capture.

    Raises: `CaptureError` for anything that is not a whole, undamaged capture of this or an earlier
    version, or that is larger than the limits above.
    """
    envelope, body = _open(raw)
    tables: dict[str, Table] = {}
    strings: tuple[str, ...] = ()
    position = 0
    for section in envelope.sections:
        packed = body[position : position + section.packed_bytes]
        position += section.packed_bytes
        content = _unpack(section, packed)
        if section.name == _STRINGS and not section.columns:
            strings = _strings(content)
        elif section.name in tables:
            raise CaptureError(f"damaged capture: table {section.name!r} occurs twice")
        else:
            tables[section.name] = _table(section, content)
    if position != len(body):
        raise CaptureError(f"damaged capture: {len(body) - position} bytes behind the last section")
    _check_text(tables, len(strings))
    return Capture(envelope.header, tables, strings)


def measure_head(raw: bytes) -> int:
    """How many bytes of a capture hold its header, by its first `PREFIX_BYTES`.

    Raises: `CaptureError` as `decode` does.
    """
    return PREFIX_BYTES + _read_prefix(raw)[0]


def decode_header(head: bytes, size_bytes: int) -> Header:
    """Unpacks the header alone, of a capture of this size; the sections are not looked at.

    Raises: `CaptureError` as `decode` does, also where the size is not that of the sections.
    """
    envelope, _ = _open(head)
    wanted_bytes = measure_head(head) + sum(one.packed_bytes for one in envelope.sections)
    if size_bytes != wanted_bytes:
        raise CaptureError(f"damaged or truncated capture: {size_bytes} of {wanted_bytes} bytes")
    return envelope.header


def value_bytes(column: Column) -> int:
    """The size of one packed value of a column: 4 bytes for text indexes, else 8."""
    return 4 if column.type is ColumnType.TEXT else 8


def _section(table: Table | None, body: bytes, raw_bytes: int, string_count: int) -> _Section:
    if table is None:
        return _Section(_STRINGS, len(body), raw_bytes, _digest(body), string_count)
    return _Section(
        table.name,
        len(body),
        raw_bytes,
        _digest(body),
        table.row_count,
        table.dropped_count,
        table.columns,
    )


def _read_prefix(raw: bytes) -> tuple[int, bytes]:
    """The envelope's length and digest."""
    if len(raw) < _PREFIX.size or not raw.startswith(MAGIC):
        raise CaptureError("not a perfkit capture (its first bytes are not the magic)")
    version: int
    length: int
    digest: bytes
    _, version, length, digest = _PREFIX.unpack_from(raw)
    if version > SCHEMA_VERSION:
        raise CaptureError(
            f"capture of version {version}, this perfkit reads up to {SCHEMA_VERSION}",
            fix="upgrade perfkit on the reading side",
        )
    if version < 1:
        raise CaptureError(f"damaged capture: version {version} never existed")
    if length > ENVELOPE_LIMIT_BYTES:
        raise CaptureError(f"damaged or truncated capture: envelope of {length} bytes")
    return length, digest


def _open(raw: bytes) -> tuple[_Envelope, memoryview]:
    length, digest = _read_prefix(raw)
    if len(raw) > CAPTURE_LIMIT_BYTES:
        raise CaptureError(f"capture of {len(raw)} bytes is over the limit {CAPTURE_LIMIT_BYTES}")
    view = memoryview(raw)[PREFIX_BYTES:]
    if length > len(view):
        raise CaptureError(f"damaged or truncated capture: envelope of {length} bytes")
    if _digest(view[:length]) != digest:
        raise CaptureError("damaged capture: the envelope's checksum does not match")
    try:
        envelope = _ENVELOPES.decode(view[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CaptureError(f"damaged capture: envelope: {error}") from error
    _check(envelope)
    return envelope, view[length:]


def _check(envelope: _Envelope) -> None:
    clock = envelope.header.clock
    if clock.end_ns < clock.start_ns:
        raise CaptureError("damaged capture: its window ends before it begins")
    if len(envelope.sections) > SECTION_COUNT_LIMIT:
        raise CaptureError(f"capture of {len(envelope.sections)} sections is over the limit")
    for section in envelope.sections:
        too_large = (
            section.raw_bytes > SECTION_LIMIT_BYTES
            or len(section.columns) > COLUMN_COUNT_LIMIT
            or section.row_count > ROW_COUNT_LIMIT
        )
        if too_large or min(section.packed_bytes, section.raw_bytes, section.row_count) < 0:
            raise CaptureError(f"section {section.name!r} is over the limits")
    if sum(section.raw_bytes for section in envelope.sections) > CAPTURE_LIMIT_BYTES:
        raise CaptureError("capture unpacks to more than the limit")


def _unpack(section: _Section, packed: memoryview) -> bytes:
    if len(packed) != section.packed_bytes or _digest(packed) != section.digest:
        raise CaptureError(f"damaged or truncated capture: section {section.name!r}")
    try:
        frame = zstandard.get_frame_parameters(packed)
        if frame.content_size != section.raw_bytes:
            raise CaptureError(f"damaged capture: size of section {section.name!r}")
        content = zstandard.ZstdDecompressor().decompress(packed, section.raw_bytes)
    except zstandard.ZstdError as error:
        raise CaptureError(f"damaged capture: section {section.name!r}: {error}") from error
    if len(content) != section.raw_bytes:
        raise CaptureError(f"damaged capture: size of section {section.name!r}")
    return content


def _strings(content: bytes) -> tuple[str, ...]:
    try:
        strings = msgspec.msgpack.decode(content, type=tuple[str, ...])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CaptureError(f"damaged capture: strings: {error}") from error
    if len(strings) > STRING_COUNT_LIMIT:
        raise CaptureError(f"capture of {len(strings)} strings is over the limit")
    return strings


def _table(section: _Section, content: bytes) -> Table:
    packed, position = [], 0
    for column in section.columns:
        size = value_bytes(column) * section.row_count
        packed.append(content[position : position + size])
        position += size
    if position != len(content):
        raise CaptureError(f"damaged capture: columns of table {section.name!r}")
    columns, rows, dropped = section.columns, section.row_count, section.dropped_count
    return Table(section.name, columns, tuple(packed), rows, dropped)


def _check_text(tables: dict[str, Table], string_count: int) -> None:
    """Every index of a text column must name a string, so that no reader needs to check again."""
    for table in tables.values():
        for column, packed in zip(table.columns, table.packed, strict=True):
            is_text = column.type is ColumnType.TEXT and packed
            if is_text and max(memoryview(packed).cast("I")) >= string_count:
                raise CaptureError(f"damaged capture: text of {table.name}.{column.name}")


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()
