"""What perfkit.stacks counts, in plain Python: dicts of stacks, and SipHash from its definition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from perfkit.stacks import StackTable, StackTree

Frame = tuple[str, str]
Stack = tuple[Frame, ...]
"""Leaf first."""

ALL, UNKNOWN, OTHER = ("(all)", ""), ("[unknown]", ""), ("(other)", "")
_MASK = (1 << 64) - 1


def _rotate(word: int, count: int) -> int:
    return (word << count | word >> (64 - count)) & _MASK


def _mix(state: list[int], rounds: int) -> None:
    a, b, c, d = state
    for _ in range(rounds):
        a, c = (a + b) & _MASK, (c + d) & _MASK
        b, d = _rotate(b, 13) ^ a, _rotate(d, 16) ^ c
        a = _rotate(a, 32)
        c, a = (c + b) & _MASK, (a + d) & _MASK
        b, d = _rotate(b, 17) ^ c, _rotate(d, 21) ^ a
        c = _rotate(c, 32)
    state[:] = a, b, c, d


def sip_hash(message: bytes, key: bytes = bytes(16)) -> bytes:
    """SipHash-2-4 of 128 bits."""
    keys = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
    begin = (0x736F6D6570736575, 0x646F72616E646F6D ^ 0xEE, 0x6C7967656E657261, 0x7465646279746573)
    state = [word ^ keys[place % 2] for place, word in enumerate(begin)]
    whole = len(message) // 8 * 8
    last = message[whole:].ljust(7, b"\0") + bytes([len(message) & 255])
    for at in range(0, whole + 8, 8):
        word = int.from_bytes(message[at : at + 8] if at < whole else last, "little")
        state[3] ^= word
        _mix(state, 2)
        state[0] ^= word
    halves = []
    for place, change in ((2, 0xEE), (1, 0xDD)):
        state[place] ^= change
        _mix(state, 4)
        halves.append(state[0] ^ state[1] ^ state[2] ^ state[3])
    return b"".join(half.to_bytes(8, "little") for half in halves)


def to_id(stack: Stack) -> bytes:
    """What a stack is known by."""
    texts = ((name.encode(), file.encode()) for name, file in reversed(stack))
    return sip_hash(
        b"".join(sip_hash(len(name).to_bytes(4, "little") + name + file) for name, file in texts)
    )


def make(counts: dict[Stack, int], duration_ns: int = 0) -> StackTable:
    """A table of such counts."""
    table = StackTable(duration_ns=duration_ns)
    for stack, count in counts.items():
        table.record(stack, count)
    return table


def read_counts(table: StackTable) -> dict[Stack | None, int]:
    """The counts of a table by stacks; None: those whose frames are not known."""
    found: Counter[Stack | None] = Counter()
    for number, count in enumerate(table.counts()):
        if count:
            found[table.frames(number)] += count
    return dict(found)


def count_nodes(counts: dict[Stack, int]) -> tuple[dict[Stack, int], dict[Stack, int]]:
    """What ends in each path from the root, outermost first, and what is in it or below."""
    own: Counter[Stack] = Counter()
    whole: Counter[Stack] = Counter({(): 0})
    for stack, count in counts.items():
        path = stack[::-1]
        own[path] += count
        whole.update({path[:depth]: count for depth in range(len(path) + 1)})
    return dict(own), {path: count for path, count in whole.items() if count or not path}


def read_paths(tree: StackTree) -> list[Stack]:
    """The frames from the root to each node, outermost first."""
    columns, frames = tree.columns(), tree.frames()
    paths: list[Stack] = [()]
    for parent, frame in zip(columns["parent"][1:], columns["frame"][1:], strict=True):
        paths.append((*paths[parent], frames[frame]))
    return paths


def read_nodes(tree: StackTree, column: str) -> dict[Stack, int]:
    """A column of a tree by the nodes' paths; no path stands twice."""
    paths = read_paths(tree)
    assert len(set(paths)) == len(paths)
    return dict(zip(paths, tree.columns()[column], strict=True))


def prune(counts: dict[Stack, int], ratio_min: float) -> dict[Stack, int]:
    """The counts of what is left of stacks, leaf first, after little nodes became `(other)`."""
    own, whole = count_nodes(counts)
    kept: Counter[Stack] = Counter()
    for path, count in own.items():
        depth = 0
        while (
            depth < len(path)
            and whole.get(path[: depth + 1], -1) >= ratio_min * whole[()]
            and path[depth] != OTHER
        ):
            depth += 1
        left = path if depth == len(path) else (*path[:depth], OTHER)
        kept[left[::-1]] += count
    return dict(kept)


def rank_functions(counts: dict[Stack, int]) -> list[tuple[str, str, int, int]]:
    """Frames by what ends in them, then by what has them, then by their texts."""
    own: Counter[Frame] = Counter()
    whole: Counter[Frame] = Counter()
    for stack, count in counts.items():
        own[stack[0] if stack else ALL] += count
        whole.update(dict.fromkeys(stack or (ALL,), count))
    rows = [(*frame, own[frame], whole[frame]) for frame in whole if whole[frame]]
    return sorted(rows, key=lambda row: (-row[2], -row[3], _order(row[:2])))


def _order(frame: Frame) -> tuple[int, bytes, bytes]:
    ours = [ALL, UNKNOWN, OTHER, ("[truncated]", "")]
    place = ours.index(frame) if frame in ours else len(ours)
    return place, frame[0].encode(), frame[1].encode()


def fold(counts: Iterable[tuple[Stack, int]]) -> Iterator[str]:
    """Lines of folded stacks, of texts without `;` and control characters."""
    for stack, count in counts:
        words = [f"{name} ({file})" if file else name for name, file in reversed(stack)]
        yield f"{';'.join(words) if words else '(all)'} {count}"
