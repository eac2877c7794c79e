"""The load: requests at planned times (open loop), or as fast as answers come (closed loop).

A latency counts from the planned time, so a stalled service is charged for the requests that it
kept from being sent.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator

from msgspec import Struct

from perfkit.demo import control
from perfkit.demo.options import LoadOptions

REPORT_S = 0.25
PLANNED_MAX = 20_000
WORD_COUNT = 60
TEXTS_COUNT = 200
SYLLABLES = ("ra", "to", "mi", "sel", "ku", "ben", "or", "tal", "ni", "dro", "va", "esh")


class Asked(Struct, frozen=True):
    """One request that was answered, or failed; instants are monotonic."""

    planned_ns: int
    sent_ns: int
    done_ns: int
    ok: bool


def make_requests(seed: int) -> list[bytes]:
    """Makes the requests that are sent in turn."""
    drawn = random.Random(seed)
    requests = []
    for _ in range(TEXTS_COUNT):
        lengths = (drawn.randint(1, 4) for _ in range(WORD_COUNT))
        text = " ".join("".join(drawn.choices(SYLLABLES, k=length)) for length in lengths)
        body = json.dumps({"user": drawn.randrange(100_000), "text": text}).encode()
        head = f"POST /recommend HTTP/1.1\r\nHost: demo\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    return requests


def plan_gaps_s(options: LoadOptions) -> Iterator[float]:
    """The gaps between planned arrivals, without end."""
    drawn = random.Random(options.seed)
    while True:
        constant = options.arrivals == "constant"
        yield 1 / options.rate_hertz if constant else drawn.expovariate(options.rate_hertz)


class Load:
    """One generator: what is planned, what is under way, what was answered lately."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._requests = make_requests(options.seed)
        self._planned: asyncio.Queue[int] = asyncio.Queue(PLANNED_MAX)
        self._waiting_ns: dict[int, int] = {}
        self._done: list[Asked] = []
        self._count = 0
        self._dropped_count = 0

    async def plan(self) -> None:
        """Plans the open loop's arrivals; a late plan does not shift those after it."""
        due_s = time.monotonic()
        for gap_s in plan_gaps_s(self._options):
            due_s += gap_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self._count += 1
            planned_ns = int(due_s * 1e9)
            if self._planned.full():
                self._dropped_count += 1
                continue
            self._waiting_ns[self._count] = planned_ns
            self._planned.put_nowait(self._count)

    async def think(self) -> int:
        """Plans the next request of a closed loop's client: now, or after its thinking time."""
        await asyncio.sleep(self._options.think_s)
        self._count += 1
        self._waiting_ns[self._count] = time.monotonic_ns()
        return self._count

    async def ask_for_ever(self) -> None:
        """Sends one request after another on one connection; opens it again where it broke."""
        closed_loop = self._options.loop == "closed"
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._options.port)
            ok = True
            while ok:
                number = await (self.think() if closed_loop else self._planned.get())
                sent_ns = time.monotonic_ns()
                ok = await self._ask(reader, writer, number)
                planned_ns = self._waiting_ns.pop(number)
                self._done.append(Asked(planned_ns, sent_ns, time.monotonic_ns(), ok))
            writer.close()
            await asyncio.sleep(0.1)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        try:
            writer.write(self._requests[number % TEXTS_COUNT])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.rpartition(b":")[2])
            await reader.readexactly(length)
            return head.startswith(b"HTTP/1.1 200")
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return False

    async def report(self) -> None:
        """Tells the supervisor, four times a second, what was answered and what waits."""
        while True:
            await asyncio.sleep(REPORT_S)
            done, self._done = self._done, []
            control.announce(
                asked=[(one.planned_ns, one.sent_ns, one.done_ns, one.ok) for one in done],
                waiting_ns=list(self._waiting_ns.values())[:PLANNED_MAX],
                dropped_count=self._dropped_count,
            )


async def _run(options: LoadOptions) -> None:
    load = Load(options)
    control.announce(port=options.port)
    control.obey_in_thread(lambda order: order)
    clients = [load.ask_for_ever() for _ in range(options.connection_count)]
    planning = [load.plan()] if options.loop == "open" else []
    await asyncio.gather(load.report(), *planning, *clients)


def main(options: LoadOptions) -> None:
    """Loads the service until the supervisor goes away."""
    asyncio.run(_run(options))
