"""What an agent says on stderr while somebody waits for its capture at the other end of a pipe.

Each line is `@perfkit ` and one JSON object: first Hello, then a Step twice a second, then Sending
or Refusal. Any other line is noise: banners, start-up files, warnings of ssh or sudo. The capture
itself is on stdout; on stdin, a line asks for an early end, and the end of stdin abandons all.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

PREFIX = b"@perfkit "
PROTOCOL = 1
LINE_LIMIT_BYTES = 8192


class Hello(Struct, frozen=True, tag="hello"):
    """The agent has started; a later `protocol` may say things that are not known here."""

    protocol: int
    perfkit_version: str


class Step(Struct, frozen=True, tag="step"):
    """How far the recording is, as `perfkit.agent.loop.Progress` has it. `note` is untrusted."""

    elapsed_s: float
    requested_s: float
    ok_count: int
    source_count: int
    cost_percent: float
    note: str = ""


class Sending(Struct, frozen=True, tag="sending"):
    """The window has passed, and the capture is on its way."""

    size_bytes: int


class Refusal(Struct, frozen=True, tag="refusal"):
    """Nothing could be measured, and why; `exit_code` as the agent's."""

    what: str
    fix: str = ""
    effect: str = ""
    exit_code: int = 3


Message = Hello | Step | Sending | Refusal
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def to_line(message: Message) -> bytes:
    """One line of the protocol."""
    return PREFIX + _ENCODER.encode(message) + b"\n"


def parse_line(line: bytes) -> Message | None:
    """What a line says; None for noise, and for what a later agent may say."""
    if not line.startswith(PREFIX) or len(line) > LINE_LIMIT_BYTES:
        return None
    try:
        return _DECODER.decode(line[len(PREFIX) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
