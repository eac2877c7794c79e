"""Real servers and clients that log the truth about their requests, for tests of the sockets.

Both log the two instants of every request (monotonic ns) and print them as JSON at the end: the
server when it held the whole request and when it had sent the answer, the client when it began to
send and when it held the whole answer.
"""

from __future__ import annotations

import json
import subprocess
from array import array
from bisect import bisect_left
from itertools import pairwise

from msgspec import Struct

from perfkit.model import Rows

SERVER = """
import asyncio, itertools, json, socket, sys, threading, time
kind, service_s, request_bytes = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
answers = [b"a" * int(size) for size in sys.argv[4].split("+")]
log = []

def serve_one(client):
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for turn in itertools.cycle(answers):
        held = 0
        while held < request_bytes:
            part = client.recv(request_bytes - held)
            if not part:
                return
            held += len(part)
        begin = time.monotonic_ns()
        time.sleep(service_s)
        client.sendall(turn)
        log.append((begin, time.monotonic_ns()))

def serve_threads(server):
    while True:
        client, _ = server.accept()
        threading.Thread(target=serve_one, args=(client,), daemon=True).start()

class Answerer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.held, self.turns = transport, 0, itertools.cycle(answers)
    def data_received(self, part):
        self.held += len(part)
        if self.held >= request_bytes:
            self.held = 0
            begin = time.monotonic_ns()
            asyncio.get_running_loop().call_later(service_s, self.answer, begin)
    def answer(self, begin):
        self.transport.write(next(self.turns))
        log.append((begin, time.monotonic_ns()))

async def serve_loop(server):
    loop = asyncio.get_running_loop()
    await (await loop.create_server(Answerer, sock=server)).serve_forever()

server = socket.create_server(("127.0.0.1", 0), backlog=128)
print(server.getsockname()[1], flush=True)
if kind == "threads":
    threading.Thread(target=serve_threads, args=(server,), daemon=True).start()
else:
    threading.Thread(target=lambda: asyncio.run(serve_loop(server)), daemon=True).start()
sys.stdin.readline()
print(json.dumps(log), flush=True)
sys.stdin.readline()
"""

CLIENT = """
import itertools, json, random, socket, sys, threading, time
port, connections, request_bytes, parts = (int(sys.argv[n]) for n in (1, 2, 4, 6))
rate, answer_sizes = float(sys.argv[3]), [int(size) for size in sys.argv[5].split("+")]
request = b"q" * request_bytes
log, stop = [], threading.Event()

def ask(number):
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due, own_port = time.monotonic(), server.getsockname()[1]
        for answer_bytes in itertools.cycle(answer_sizes):
            if stop.is_set():
                return
            if rate:
                due += random.expovariate(rate / connections)
                if stop.wait(max(0.0, due - time.monotonic())):
                    return
            begin = time.monotonic_ns()
            step = -(-len(request) // parts)
            for at in range(0, len(request), step):
                server.sendall(request[at : at + step])
                if at + step < len(request):
                    time.sleep(0.0005)
            held = 0
            while held < answer_bytes:
                held += len(server.recv(1 << 20))
            log.append((begin, time.monotonic_ns(), own_port))

threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(connections)]
for thread in threads:
    thread.start()
print("started", flush=True)
sys.stdin.readline()
print(json.dumps(log), flush=True)
stop.set()
sys.stdin.readline()
"""

IDLE, BUSY, TIED = 0, 1, -1


class Poll(Struct, frozen=True):
    """One row of `socket_runs`, as far as the rule needs it."""

    socket: int
    start_ns: int
    end_ns: int
    tick_count: int
    unread: int
    sent_ms: int
    received_ms: int
    ack_ms: int
    segments_out: int
    segments_in: int
    unacked: int


def read_log(child: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """Asks a server or client for what it logged."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return [(entry[0], entry[1]) for entry in json.loads(child.stdout.readline())]


def mean_in_flight(log: list[tuple[int, int]], instants_ns: list[int]) -> float:
    """The mean number of requests that were between their two instants at the given ones."""
    held = sum(
        bisect_left(instants_ns, end) - bisect_left(instants_ns, begin) for begin, end in log
    )
    return held / len(instants_ns)


def read_polls(items: list[Rows]) -> list[Poll]:
    """Unpacks the rows of `socket_runs`, sorted by socket and time."""
    polls = []
    for rows in items:
        columns = [array("q", column) for column in rows.columns]
        wanted = [columns[place] for place in (0, 1, 2, 3, 5, 7, 8, 9, 12, 13, 21)]
        polls += [Poll(*values) for values in zip(*wanted, strict=True)]
    return sorted(polls, key=lambda poll: (poll.socket, poll.start_ns))


def decide_strictly(poll: Poll) -> int:
    """What one row tells by itself of an accepted socket.

    Unread bytes are a request, and so is a question before any answer. Else who spoke last tells,
    when the ages differ. Else an unacked answer, or an acknowledgement younger than the request,
    means that the answer came after it.
    """
    if poll.unread > 0:
        return BUSY
    if not poll.segments_in or not poll.segments_out:
        return BUSY if poll.segments_in else IDLE
    if poll.received_ms != poll.sent_ms:
        return BUSY if poll.received_ms < poll.sent_ms else IDLE
    if poll.unacked > 0 or poll.ack_ms < poll.received_ms:
        return IDLE
    return TIED


def decide(polls: list[Poll]) -> list[int]:
    """What each row tells, ties resolved by how near to ties the clear rows come, then by counts.

    Shape: `polls` are sorted by socket and time. What neither resolves is TIED.
    """
    clear = [decide_strictly(poll) for poll in polls]
    usual = decide_usual_tie(polls)
    lengths = segments_per_message(polls)
    return [
        verdict
        if verdict != TIED
        else usual
        if usual != TIED
        else _count(polls, clear, at, lengths)
        for at, verdict in enumerate(clear)
    ]


def decide_usual_tie(polls: list[Poll]) -> int:
    """What a tie means on these sockets, by the rows that missed being ties by one jiffy.

    A tie is an answer within the jiffy of its question (IDLE), or a question within the jiffy of
    the answer before it (BUSY). Whichever of the two also occurs one jiffy apart is the usual one.
    """
    heard = [poll for poll in polls if poll.unread <= 0 and poll.segments_in and poll.segments_out]
    apart = [poll.sent_ms - poll.received_ms for poll in heard if poll.sent_ms != poll.received_ms]
    jiffy_ms = min((abs(ms) for ms in apart), default=1)
    quick_questions = sum(0 < ms <= jiffy_ms for ms in apart)
    quick_answers = sum(0 < -ms <= jiffy_ms for ms in apart)
    if max(quick_questions, quick_answers) < 3:
        return TIED
    if quick_questions >= 4 * quick_answers:
        return BUSY
    return IDLE if quick_answers >= 4 * quick_questions else TIED


def segments_per_message(polls: list[Poll]) -> tuple[float, float]:
    """How many segments a question and an answer have, in units of the shorter of the two."""
    steps = [
        (b.segments_in - a.segments_in, b.segments_out - a.segments_out)
        for a, b in pairwise(polls)
        if a.socket == b.socket
    ]
    asked, answered = sum(step for step, _ in steps), sum(step for _, step in steps)
    if not asked or not answered:
        return 1.0, 1.0
    return max(1.0, round(asked / answered)), max(1.0, round(answered / asked))


def _count(polls: list[Poll], clear: list[int], place: int, lengths: tuple[float, float]) -> int:
    """Counts questions without an answer since the nearest clear row, or since the opening."""
    base = _nearest_clear(polls, clear, place)
    asked, answered, pending = polls[place].segments_in, polls[place].segments_out, 0
    if base is not None:
        asked -= polls[base].segments_in
        answered -= polls[base].segments_out
        pending = clear[base]
    count = pending + asked / lengths[0] - answered / lengths[1]
    return BUSY if count > 0.7 else IDLE if count < 0.3 else TIED


def _nearest_clear(polls: list[Poll], clear: list[int], place: int) -> int | None:
    """The nearest row of the same socket that tells by itself, the earlier of two as near."""
    socket = polls[place].socket
    for reach in range(1, len(polls)):
        inside = [n for n in (place - reach, place + reach) if 0 <= n < len(polls)]
        same = [n for n in inside if polls[n].socket == socket]
        if not same:
            return None
        if found := [n for n in same if clear[n] != TIED]:
            return found[0]
    return None
