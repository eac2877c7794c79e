"""The TCP sockets of a network namespace, as the text of /proc/PID/net/tcp and tcp6 tells them."""

from __future__ import annotations

import ipaddress
from collections import Counter

from msgspec import Struct

from perfkit.errors import Unavailable
from perfkit.host import Host

TABLE_LIMIT_BYTES = 4 << 20
_ESTABLISHED, _TIME_WAIT, _LISTEN = "01", "06", "0A"
_WILDCARDS = ("0.0.0.0", "::")


class Listener(Struct, frozen=True):
    """A listening socket: its inode and local address."""

    inode: int
    address: str
    port: int

    @property
    def text(self) -> str:
        """The address as a reader writes it."""
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


class TcpTable(Struct, frozen=True):
    """The listeners, and how many accepted connections each local address has.

    A server that closes each connection after one answer is seldom met with an open one; those that
    it closed stay in TIME_WAIT for a minute, and count too.
    Shape: `accepted` maps (address, port) to a count; IPv4 mapped into IPv6 is written as IPv4.
    """

    listeners: tuple[Listener, ...]
    accepted: dict[tuple[str, int], int]

    def count_accepted(self, listener: Listener) -> int:
        """The accepted connections at a listener's address, open or closed in the last minute."""
        if listener.address not in _WILDCARDS:
            return self.accepted.get((listener.address, listener.port), 0)
        return sum(count for (_, port), count in self.accepted.items() if port == listener.port)


def parse_tcp(text: str) -> list[tuple[str, int, str, int]]:
    """Reads address (as it stands), port, state and inode of each socket of a tcp or tcp6 table."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split(None, 10)
        try:
            address, port = fields[1].split(":")
            found.append((address, int(port, 16), fields[3], int(fields[9])))
        except (ValueError, IndexError):
            continue
    return found


def parse_address(text: str) -> str:
    """Reads an address as the kernel prints it: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def read_tcp_table(host: Host, pid: int) -> TcpTable | None:
    """The table of the namespace that a process lives in. Missing: None where it is refused."""
    sockets = []
    for name in ("tcp", "tcp6"):
        try:
            sockets += parse_tcp(host.read_proc(f"{pid}/net/{name}", TABLE_LIMIT_BYTES))
        except Unavailable:
            if name == "tcp":
                return None
    ports = {port for _, port, state, _ in sockets if state == _LISTEN}
    counts = Counter(
        (address, port)
        for address, port, state, inode in sockets
        if port in ports and ((state == _ESTABLISHED and inode) or state == _TIME_WAIT)
    )
    accepted: dict[tuple[str, int], int] = {}
    for (address, port), count in counts.items():
        key = parse_address(address), port
        accepted[key] = accepted.get(key, 0) + count
    heard = [(i, a, p) for a, p, state, i in sockets if state == _LISTEN and i]
    return TcpTable(tuple(Listener(i, parse_address(a), p) for i, a, p in heard), accepted)
