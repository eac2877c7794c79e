"""What both fronts do with a request besides waiting: tokens, features, scores, answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from perfkit.demo.hooks import run_hook
from perfkit.demo.wire import VECTOR_LENGTH

Floats = npt.NDArray[np.float32]

SHARD_COUNT = 4
TOKEN_COUNT_MAX = 128
ITEM_LENGTH = 64
HIDDEN_LENGTH = 256
ROW_BYTES = 64 << 10
ROW_COUNT = 128
BATCH_COUNT_MAX = 16
BATCH_WINDOW_S = 0.002
TOP_COUNT = 20


class Query(Struct, frozen=True):
    """One parsed request: the ids to look up at each shard, and the row of the features file."""

    ids: tuple[list[int], ...]
    row: int


class Ranker(Struct, frozen=True):
    """The weights of a two-layer model, and the items it ranks for each request."""

    items: Floats
    first: Floats
    second: Floats
    last: Floats


def tokenise(text: str) -> list[int]:
    """Hashes each word's trigrams into one token, in plain Python, as many a service does."""
    tokens = []
    for word in text.split()[:TOKEN_COUNT_MAX]:
        token = 2166136261
        padded = f"<{word.lower()}>"
        for start in range(len(padded) - 2):
            for letter in padded[start : start + 3]:
                token = ((token ^ ord(letter)) * 16777619) & 0xFFFFFFFF
        tokens.append(token)
    return tokens


def parse_query(body: bytes) -> Query:
    """Parses a request. Raises `ValueError` or `KeyError` for anything but what the load sends."""
    run_hook("handle")
    request = json.loads(body)
    ids: tuple[list[int], ...] = tuple([] for _ in range(SHARD_COUNT))
    for token in tokenise(str(request["text"])):
        ids[token % SHARD_COUNT].append(token)
    for shard in range(SHARD_COUNT):
        ids[shard].append(int(request["user"]) * SHARD_COUNT + shard)
    return Query(ids, int(request["user"]) % ROW_COUNT)


def make_ranker(seed: int, candidate_count: int) -> Ranker:
    """Makes a model with fixed random weights; its cost grows with the number of candidates."""
    random = np.random.default_rng(seed)

    def weights(rows: int, columns: int) -> Floats:
        drawn = random.standard_normal((rows, columns), dtype=np.float32)
        return (drawn / np.float32(rows**0.5)).astype(np.float32)

    width = ITEM_LENGTH + VECTOR_LENGTH
    return Ranker(
        items=weights(candidate_count, ITEM_LENGTH),
        first=weights(width, HIDDEN_LENGTH),
        second=weights(HIDDEN_LENGTH, HIDDEN_LENGTH),
        last=weights(HIDDEN_LENGTH, 1),
    )


def make_user(vectors: list[bytes], row: bytes) -> Floats:
    """Pools the shards' vectors and a row of the features file into one user's features."""
    looked_up = np.frombuffer(b"".join(vectors), dtype="<f4").reshape(-1, VECTOR_LENGTH)
    stored = np.frombuffer(row, dtype=np.uint8)[: VECTOR_LENGTH * 64].reshape(VECTOR_LENGTH, 64)
    pooled = looked_up.mean(axis=0) + stored.mean(axis=1, dtype=np.float32) / np.float32(255)
    return np.asarray(pooled, dtype=np.float32)


def rank(ranker: Ranker, users: list[Floats]) -> list[list[int]]:
    """Scores all candidates for a batch of users and gives each user's best items."""
    run_hook("model")
    count = len(ranker.items)
    features = np.empty((len(users) * count, ITEM_LENGTH + VECTOR_LENGTH), dtype=np.float32)
    for index, user in enumerate(users):
        rows = features[index * count : (index + 1) * count]
        rows[:, :ITEM_LENGTH] = ranker.items
        rows[:, ITEM_LENGTH:] = user
    hidden = np.maximum(features @ ranker.first, np.float32(0))
    hidden = np.maximum(hidden @ ranker.second, np.float32(0))
    scores = (hidden @ ranker.last).reshape(len(users), count)
    best = np.argpartition(scores, -TOP_COUNT, axis=1)[:, -TOP_COUNT:]
    return [[int(item) for item in row] for row in best]


def pack_ranking(items: list[int], pad_bytes: int) -> bytes:
    """Packs the answer's body; padding makes it as many segments long as a test wants."""
    return json.dumps({"items": items, "pad": "x" * pad_bytes}).encode()


def write_features(path: Path) -> None:
    """Writes the features file that each request reads a row of."""
    path.write_bytes(os.urandom(ROW_BYTES) * ROW_COUNT)


def read_row(descriptor: int, row: int) -> bytes:
    """Reads one row of the features file."""
    run_hook("disk")
    return os.pread(descriptor, ROW_BYTES, row * ROW_BYTES)
