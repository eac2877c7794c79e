"""Text from a host is untrusted: a process chooses its own name. Here it becomes safe to print.

Every exporter passes each text of a report through one of these; the rest of it is ASCII anyway.
"""

from __future__ import annotations

import re

TEXT_LIMIT = 2_000
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$]|^[#+-])")
# GitHub links mentions after it has rendered, so only a break inside the text prevents one.
_MENTION_BREAK = "@<!-- -->"
_FENCE = re.compile(r"`+")


def to_printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """One line of printable ASCII; anything else is written as its escape (`\\x1b`, `\\u202e`).

    Longer text is cut in the middle, since both the ends of paths and of names tell something.
    """
    safe = "".join(char if " " <= char <= "~" else _escape(char) for char in text)
    if len(safe) <= limit:
        return safe
    half = (limit - 3) // 2
    return f"{safe[: limit - 3 - half]}...{safe[len(safe) - half :]}"


def to_markdown(text: str) -> str:
    """Printable text that Markdown and HTML leave as it stands, with no link and no mention."""
    safe = to_printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    safe = _MARKDOWN.sub(r"\\\1", safe)
    safe = safe.replace("@", _MENTION_BREAK).replace("://", "&#58;//").replace("www.", "www&#46;")
    return re.sub(r"^(\d+)([.)])(?= )", r"\1\\\2", safe)


def to_code(text: str) -> str:
    """Printable text as a Markdown code span, whatever backticks it holds."""
    safe = to_printable(text)
    fence = "`" * (1 + max((len(run) for run in _FENCE.findall(safe)), default=0))
    pad = " " if len(fence) > 1 else ""
    return f"{fence}{pad}{safe}{pad}{fence}"


def _escape(char: str) -> str:
    known = {"\t": " ", "\n": "\\n", "\r": "\\r"}
    if char in known:
        return known[char]
    if ord(char) <= 0x7F:
        return f"\\x{ord(char):02x}"
    return char.encode("ascii", "backslashreplace").decode()
