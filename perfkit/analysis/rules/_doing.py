"""How rules say what a thread does, in words that follow "is" or a comma."""

from __future__ import annotations

from perfkit.analysis.states import STATE_WORDS, State

# Where the words of the state alone do not follow.
_WORDS = {
    State.DISK_WAIT: "waiting for the disk",
    State.TIMER_WAIT: "in a timed wait",
    State.FAULT_WAIT: "in a page fault",
    State.UNKNOWN: "doing what could not be seen",
}


def name_doing(state: State, culprit: str) -> str:
    """What a thread does, with the peer, the file or the lock that it does it with."""
    words = _WORDS.get(state) or STATE_WORDS.get(state, "in an unknown state")
    return f"{words} {culprit}" if culprit else words
