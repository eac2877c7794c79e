"""The service's TCP sockets from /proc/PID/net, where its network namespace may not be entered.

Tells states, queues, owners and peers once a second, without times and counters: so who waits for
whom, and requests in flight, stay unknown.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Item, Rate, Row, Target

TABLE_LIMIT_BYTES = 8 << 20
SOCKET_LIMIT = 16_384
LISTEN = 10
LOST = "from text: no ages and counters, so requests in flight and waits for peers are unknown"
_FAMILIES = (("tcp", "tcp4"), ("tcp6", "tcp6"))
_COUNTER_COUNT = 18
_ANY = ("0.0.0.0", "::")


class TextSocket(Struct, frozen=True):
    """One line of /proc/PID/net/tcp or tcp6. Missing: `inode` 0 while nobody holds the socket."""

    family: str
    local: tuple[str, int]
    peer: tuple[str, int]
    state: int
    send_queue_bytes: int
    receive_queue_bytes: int
    inode: int


class TextSession:
    """Reads the tables once a poll; a changed socket makes a new row."""

    def __init__(self, host: Host, target: Target, owners: Callable[[], dict[int, int]]) -> None:
        self._host, self._pid, self._owners = host, target.main_pid, owners
        self._shared_ports = frozenset(target.shared_ports)
        self._index: dict[tuple[object, ...], int] = {}
        self._open: dict[int, tuple[int, int, int, TextSocket]] = {}
        self._first_ns = self._last_ns = self._poll_count = 0
        self._read()

    def poll(self) -> Iterator[Item]:
        now_ns, found = self._host.now_ns(), self._read()
        self._first_ns, self._last_ns = self._first_ns or now_ns, now_ns
        self._poll_count += 1
        owners = self._owners()
        roles = ((one, to_role(one, found, owners, self._shared_ports)) for one in found)
        mine = [(socket, role) for socket, role in roles if role]
        seen = set()
        for socket, role in mine[:SOCKET_LIMIT]:
            key = (socket.family, socket.local, socket.peer, socket.inode)
            if key not in self._index:
                self._index[key] = len(self._index)
                yield _identity(self._index[key], socket, role, owners, now_ns)
            seen.add(self._index[key])
            yield from self._observe(self._index[key], socket, now_ns)
        for index in self._open.keys() - seen:
            yield _run(index, self._open.pop(index))
        yield Row("socket_polls", (now_ns, len(mine), len(seen), -1))

    def close(self) -> Iterator[Item]:
        yield from (_run(index, run) for index, run in self._open.items())

    def rate(self) -> Rate:
        span_ns = max(self._last_ns - self._first_ns, 1)
        hertz = max(self._poll_count - 1, 0) * 1e9 / span_ns
        return Rate("sockets", 1.0, hertz, self._poll_count, 0, note=LOST)

    def _observe(self, index: int, socket: TextSocket, now_ns: int) -> Iterator[Item]:
        start_ns, _, ticks, before = self._open.get(index, (now_ns, now_ns, 0, socket))
        if before != socket:
            yield _run(index, self._open[index])
            start_ns, ticks = now_ns, 0
        self._open[index] = (start_ns, now_ns, ticks + 1, socket)

    def _read(self) -> list[TextSocket]:
        found = []
        for name, family in _FAMILIES:
            try:
                text = self._host.read_proc(f"{self._pid}/net/{name}", TABLE_LIMIT_BYTES)
            except Unavailable:
                if name == "tcp":
                    raise
                continue  # a kernel without IPv6
            found += parse_table(text, family)
        return found


def parse_table(text: str, family: str) -> list[TextSocket]:
    """Reads the lines of a tcp or tcp6 table; lines that cannot be understood are left out."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split(None, 10)
        try:
            send_queue, receive_queue = fields[4].split(":")
            found.append(
                TextSocket(
                    family,
                    _parse_address(fields[1]),
                    _parse_address(fields[2]),
                    int(fields[3], 16),
                    int(send_queue, 16),
                    int(receive_queue, 16),
                    int(fields[9]),
                )
            )
        except (ValueError, IndexError):
            continue
    return found


def to_role(
    socket: TextSocket,
    found: list[TextSocket],
    owners: dict[int, int],
    shared_ports: frozenset[int] = frozenset(),
) -> str:
    """What a socket is to the service; "" for those of others.

    At `shared_ports` other processes listen too: what comes in there must be held to be ours.
    """
    held = socket.inode in owners
    if socket.state == LISTEN:
        return "listener" if held else ""
    if any(
        other.state == LISTEN
        and other.inode in owners
        and other.local[1] == socket.local[1]
        and other.family == socket.family
        and other.local[0] in (*_ANY, socket.local[0])
        for other in found
    ):
        return "accepted" if held or socket.local[1] not in shared_ports else ""
    return "outgoing" if held else ""


def _parse_address(text: str) -> tuple[str, int]:
    """Reads "0100007F:1F90": 32-bit words in the machine's byte order (x86-64: reversed)."""
    words, port = text.split(":")
    packed = [bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8)]
    address = ipaddress.ip_address(b"".join(packed))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)


def _to_text(address: tuple[str, int]) -> str:
    name, port = address
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _identity(
    index: int, socket: TextSocket, role: str, owners: dict[int, int], now_ns: int
) -> Row:
    local, peer = _to_text(socket.local), _to_text(socket.peer)
    pid = owners.get(socket.inode, -1)
    return Row("sockets", (index, socket.family, socket.inode, local, peer, role, pid, now_ns))


def _run(index: int, run: tuple[int, int, int, TextSocket]) -> Row:
    start_ns, end_ns, ticks, socket = run
    # Of a listener the text tells only how many wait, not how many may (there: always 0).
    send_queue = -1 if socket.state == LISTEN else socket.send_queue_bytes
    queues = (socket.receive_queue_bytes, send_queue)
    missing = (-1,) * _COUNTER_COUNT
    return Row("socket_runs", (index, start_ns, end_ns, ticks, socket.state, *queues, *missing))
