"""Names of native frames, looked up on this host after a window and before its capture is kept."""

from __future__ import annotations

import os
from importlib.util import find_spec

STACKS = ("native_stacks", "wall_stacks")


def name_frames(raw: bytes, *, is_here: bool) -> bytes:
    """The bytes of a capture with the names of its native frames, where it has any.

    `is_here`: it is of this host, whose processes may be asked for their files. An installation
    that cannot report cannot name either: such a capture is kept with addresses.
    Raises: `CaptureError` for bytes that are no capture.
    """
    from perfkit.codec import decode, encode

    capture = decode(raw)
    if not any(name in capture.tables for name in STACKS) or find_spec("numpy") is None:
        return raw
    from perfkit.symbols.attach import Search, attach_names
    from perfkit.symbols.cache import find_folder
    from perfkit.symbols.symbolizer import Settings

    settings = Settings(find_folder(dict(os.environ)), boot_id=capture.header.clock.boot_id)
    named = attach_names(capture, Search(is_here, settings))
    return raw if named is capture else encode(named)
