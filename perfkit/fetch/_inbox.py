"""What comes from another host, within limits: the capture on stdout, words and noise on stderr."""

from __future__ import annotations

import re

from perfkit.agent.loop import Progress
from perfkit.agent.wire import (
    LINE_LIMIT_BYTES,
    Hello,
    Message,
    Refusal,
    Sending,
    Step,
    parse_line,
)
from perfkit.codec import CAPTURE_LIMIT_BYTES

# Banners and start-up files that print before the capture.
NOISE_LIMIT_BYTES = 64 << 10
STDERR_LIMIT_BYTES = 4 << 20
MAGIC_LIMIT_BYTES = 64
REMARK_LIMIT = 20
REMARK_LIMIT_BYTES = 300
SECONDS_SHOWN_LIMIT = 1e6
NOTE_LIMIT = 200


class Inbox:
    """The answer itself: what stands before its first bytes is skipped, what is behind cut off."""

    def __init__(self, magic: re.Pattern[bytes]) -> None:
        self._magic = magic
        self._content = bytearray()
        self.is_found = False
        self.noise_bytes = 0
        self.size_bytes: int | None = None

    def take(self, part: bytes) -> None:
        """Adds what has come."""
        self._content += part
        if self.is_found:
            return
        found = self._magic.search(self._content)
        self.is_found = found is not None
        # The last bytes may be the beginning of the magic.
        skipped = found.start() if found else max(0, len(self._content) - MAGIC_LIMIT_BYTES)
        self.noise_bytes += skipped
        del self._content[:skipped]

    @property
    def got_bytes(self) -> int:
        """How much of the answer is here."""
        return len(self._content) if self.is_found else 0

    @property
    def is_flooded(self) -> bool:
        """Whether more came than an answer may hold."""
        limit_bytes = CAPTURE_LIMIT_BYTES if self.size_bytes is None else self.size_bytes
        is_long = self.is_found and len(self._content) > limit_bytes + NOISE_LIMIT_BYTES
        return is_long or self.noise_bytes > NOISE_LIMIT_BYTES

    @property
    def is_whole(self) -> bool:
        """Whether all that was announced is here."""
        return self.size_bytes is not None and self.got_bytes >= self.size_bytes

    def to_bytes(self) -> bytes:
        """The answer."""
        return bytes(self._content[: self.size_bytes])


class Journal:
    """What the agent, ssh, sudo and the shell say on stderr. Remarks are untrusted text."""

    def __init__(self) -> None:
        self._rest = b""
        self.read_bytes = 0
        self.hello: Hello | None = None
        self.refusal: Refusal | None = None
        self.size_bytes: int | None = None
        self.progress: Progress | None = None
        self.remarks: list[str] = []

    def take(self, part: bytes) -> None:
        """Adds what has come, line by line."""
        self.read_bytes += len(part)
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            self._read(line)
        if len(self._rest) > LINE_LIMIT_BYTES:
            self._read(self._rest)
            self._rest = b""

    def end(self) -> None:
        """Takes the last line, which may lack its end."""
        self._read(self._rest)
        self._rest = b""

    @property
    def is_flooded(self) -> bool:
        """Whether more came than an agent says."""
        return self.read_bytes > STDERR_LIMIT_BYTES

    def _read(self, line: bytes) -> None:
        message = parse_line(line.rstrip(b"\r"))
        if message is not None:
            self._heed(message)
        elif line.strip():
            self.remarks.append(line[:REMARK_LIMIT_BYTES].decode("utf-8", "replace").strip())
            del self.remarks[:-REMARK_LIMIT]

    def _heed(self, message: Message) -> None:
        if isinstance(message, Hello):
            self.hello = message
        elif isinstance(message, Refusal):
            self.refusal = message
        elif isinstance(message, Sending) and 0 <= message.size_bytes <= CAPTURE_LIMIT_BYTES:
            self.size_bytes = message.size_bytes
        elif isinstance(message, Step):
            self.progress = _to_progress(message)


def _to_progress(step: Step) -> Progress:
    """Numbers from elsewhere, within what can be shown."""
    elapsed_s, requested_s, cost_percent = (
        min(max(number, 0.0), SECONDS_SHOWN_LIMIT)
        for number in (step.elapsed_s, step.requested_s, step.cost_percent)
    )
    ok_count, source_count = (min(max(one, 0), 999) for one in (step.ok_count, step.source_count))
    return Progress(
        elapsed_s, requested_s, ok_count, source_count, cost_percent, step.note[:NOTE_LIMIT]
    )
