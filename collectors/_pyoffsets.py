"""Where each version of CPython keeps what the sampler of Python stacks reads, in bytes.

3.13 publishes most of it at the start of its runtime; of 3.11 and 3.12 the offsets never change
within the minor version, since its headers for the interpreter's own use are then frozen.
"""

from __future__ import annotations

import struct

from msgspec import Struct


class Offsets(Struct, frozen=True):
    """Offsets in the order in which the C extension wants them; see native/pk_pylayout.h."""

    runtime_interpreters: int
    interpreter_next: int
    interpreter_threads: int
    thread_next: int
    thread_interpreter: int
    thread_frame: int
    cframe_current: int
    thread_native_id: int
    frame_code: int
    frame_previous: int
    frame_owner: int
    code_file: int
    code_name: int
    code_line: int
    text_length: int
    text_state: int
    text_ascii_bytes: int
    text_compact_bytes: int
    frame_entry: int = -1
    interpreter_collecting: int = -1
    runtime_lock: int = -1
    interpreter_lock: int = -1
    lock_holder: int = -1

    def as_tuple(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(int(getattr(self, name)) for name in self.__struct_fields__)


# Of the interpreter's lock: its holder and whether it is held.
LOCK_HOLDER, LOCK_IS_HELD = 8, 16
# Printed by a C program that was compiled against the headers of 3.11.7 and 3.12.1.
KNOWN = {
    "3.11": Offsets(
        *(40, 0, 16, 8, 16, 56, 8, 160, 32, 48, 69, 112, 128, 72, 16, 32, 48, 72, 68),
        interpreter_collecting=848,
        runtime_lock=360,
        lock_holder=LOCK_HOLDER,
    ),
    "3.12": Offsets(
        *(40, 0, 72, 8, 16, 56, 0, 144, 0, 8, 70, 112, 128, 68, 16, 32, 40, 56),
        interpreter_collecting=312,
        interpreter_lock=384,
        lock_holder=LOCK_HOLDER,
    ),
}
# In each of them the numbers of collections end right before the flag: three words for each
# generation, of which the first one counts.
GENERATION_COUNT, GENERATION_WORDS = 3, 3
# Of 3.13.0, which publishes neither: what points to the lock, and the flag within the collector.
_LOCK_POINTER_3_13, _COLLECTING_3_13 = 16, 200
COOKIE = b"xdebugpy"
PUBLISHED_BYTES = 512
# 3.14 publishes other fields at other places, and has not been tried.
_PUBLISHED_VERSIONS = ("3.13",)
_WORD_COUNT = 51


def find_offsets(version: str) -> Offsets | None:
    """The offsets of a version such as "3.11.7"; None: it is not known, or publishes its own."""
    return KNOWN.get(to_minor(version))


def to_minor(version: str) -> str:
    """Shortens "3.11.7" to "3.11"."""
    return ".".join(version.split(".")[:2])


def is_published(version: str) -> bool:
    """Whether the runtime of this version tells its offsets."""
    return to_minor(version) in _PUBLISHED_VERSIONS


def parse_published(raw: bytes) -> Offsets | None:
    """Reads the offsets that CPython 3.13 publishes at the start of _PyRuntime.

    Missing: None where it is none, another version, or a build without the interpreter's lock.
    Source: struct _Py_DebugOffsets, pycore_runtime.h (CPython 3.13).
    """
    if len(raw) < 8 * (_WORD_COUNT + 1) or raw[:8] != COOKIE:
        return None
    words = struct.unpack_from(f"<{_WORD_COUNT}Q", raw, 8)
    version, free_threaded, runtime = words[0], words[1], words[2:5]
    interpreter, thread, frame = words[5:18], words[18:27], words[27:33]
    code = words[33:43]
    if version >> 16 != 0x030D or free_threaded:
        return None
    # The last structs are small, and have not moved since 3.12: PyASCIIObject.
    text = KNOWN["3.12"]
    return Offsets(
        runtime_interpreters=runtime[2],
        interpreter_next=interpreter[2],
        interpreter_threads=interpreter[3],
        thread_next=thread[2],
        thread_interpreter=thread[3],
        thread_frame=thread[4],
        cframe_current=-1,
        thread_native_id=thread[6],
        frame_code=frame[2],
        frame_previous=frame[1],
        frame_owner=frame[5],
        code_file=code[1],
        code_name=code[3],
        code_line=code[5],
        text_length=text.text_length,
        text_state=text.text_state,
        text_ascii_bytes=text.text_ascii_bytes,
        text_compact_bytes=text.text_compact_bytes,
        interpreter_collecting=interpreter[4] + _COLLECTING_3_13,
        interpreter_lock=_LOCK_POINTER_3_13,
        lock_holder=LOCK_HOLDER,
    )
