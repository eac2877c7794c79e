"""What the handlers of the two Python servers do: four that are alike, each with its own function.

A control file holds how many milliseconds of computing which handler takes too much.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

CONTROL = Path(os.environ["FOREIGN_CONTROL"])
PEERS = [int(port) for port in os.environ["FOREIGN_PEERS"].split(",")]
TEXT = " ".join(f"item-{number}: value {number * 7919 % 1000}" for number in range(3000))
ITEMS = re.compile(r"item-(\d+): value (\d+)")


def score(text: str) -> float:
    """The usual work of a request: some milliseconds of parsing."""
    found = ITEMS.findall(text)
    return sum(float(value) for _, value in json.loads(json.dumps(found)))


def search(text: str) -> float:
    """Handler `search`."""
    return score(text)


def suggest(text: str) -> float:
    """Handler `suggest`."""
    return score(text)


def related(text: str) -> float:
    """Handler `related`."""
    return score(text)


def history(text: str) -> float:
    """Handler `history`."""
    return score(text)


def normalise_titles(milliseconds: float) -> int:
    """The function that a hot handler calls: so much CPU time in plain Python."""
    end_ns = time.thread_time_ns() + int(milliseconds * 1e6)
    count = 0
    while time.thread_time_ns() < end_ns:
        count += len([letter for letter in TEXT[:200] if letter.isalpha()])
    return count


HANDLERS = {"search": search, "suggest": suggest, "related": related, "history": history}


def extra_ms(name: str) -> float:
    """How much too much this handler computes now."""
    return float(json.loads(CONTROL.read_text() or "{}").get(name, 0.0))


def handle(name: str) -> bytes:
    """Computes one answer."""
    milliseconds = extra_ms(name)
    if milliseconds:
        normalise_titles(milliseconds)
    return f"{HANDLERS[name](TEXT)}\n".encode()
