"""One embedding shard: a process that answers lookups over TCP after a millisecond or so."""

from __future__ import annotations

import asyncio
import random
from array import array

from perfkit.demo import control
from perfkit.demo.wire import (
    HEADER,
    LOOKUP,
    VECTOR_BYTES,
    VECTOR_LENGTH,
    WireError,
    parse_ids,
    parse_lookup_count,
)

ROW_COUNT = 4096
ANSWER_S = 0.0018


class Shard:
    """The table of one shard and the delay that a fault may add to its answers."""

    def __init__(self, seed: int) -> None:
        drawn = random.Random(seed)
        floats = array("f", (drawn.uniform(-1, 1) for _ in range(ROW_COUNT * VECTOR_LENGTH)))
        self._table = floats.tobytes()
        self.delay_s = 0.0

    def look_up(self, ids: array[int]) -> bytes:
        """Gives the packed vectors of the ids."""
        starts = (key % ROW_COUNT * VECTOR_BYTES for key in ids)
        return b"".join(self._table[start : start + VECTOR_BYTES] for start in starts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection until it closes."""
        try:
            while True:
                count = parse_lookup_count(await reader.readexactly(HEADER.size))
                ids = parse_ids(await reader.readexactly(8 * count))
                await asyncio.sleep(ANSWER_S + self.delay_s)
                writer.write(HEADER.pack(LOOKUP, count) + self.look_up(ids))
        except (asyncio.IncompleteReadError, ConnectionError, WireError):
            writer.close()

    def obey(self, order: dict[str, float]) -> dict[str, float]:
        """Carries out an order of the supervisor: `delay_s` is added to each answer from now on."""
        self.delay_s = float(order["delay_s"])
        return {"delay_s": self.delay_s}


async def _run(seed: int) -> None:
    shard = Shard(seed)
    server = await asyncio.start_server(shard.serve, "127.0.0.1", 0)
    control.announce(port=server.sockets[0].getsockname()[1])
    control.obey_in_thread(shard.obey)
    await server.serve_forever()


def main(seed: int) -> None:
    """Serves until the supervisor goes away."""
    asyncio.run(_run(seed))
