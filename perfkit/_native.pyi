"""The C extension: samplers of threads and sockets. Built from native/."""

# --- sockets (native/module_sockets.c) ---

PackedRows = tuple[tuple[bytes, ...], int, int]
"""Columns of 64-bit integers, row count, dropped count."""

NamedRows = tuple[PackedRows, list[str], list[str]]
"""Rows, and for each the local and the peer address ("ip:port").

Columns of identities: socket_index, inode, first_seen_ns, role, family (4 or 6). Of closed sockets:
the same with t_ns in the place of first_seen_ns, then the counters from last_sent_ms on. Roles: 1
listener, 2 accepted, 3 outgoing.
"""

class SocketSampler:
    """Reads a service's TCP sockets at a steady rate, on a thread of its own.

    `netns_path` is the target's namespace (/proc/PID/ns/net), None stays in the caller's. At most
    `get_limit` connections are read in a poll, a rotating random sample when there are more. The
    rate falls where it would cost more than `budget_ratio` of a core. One caller at a time.
    Raises: OSError whose filename says what failed: open_namespace, enter_namespace, query, thread.
    """

    def __new__(
        cls,
        netns_path: str | None,
        *,
        poll_interval_ns: int = 50_000_000,
        dump_interval_ns: int = 1_000_000_000,
        accept_interval_ns: int = 250_000_000,
        budget_ratio: float = 0.007,
        get_limit: int = 200,
        socket_limit: int = 16_384,
        inode_limit: int = 65_536,
        row_limit: int = 32_768,
    ) -> SocketSampler: ...
    def set_inodes(self, inodes: bytes, /) -> None:
        """Tells which socket inodes the service holds, as packed 64-bit integers."""
        ...
    def take(self) -> tuple[PackedRows, NamedRows, PackedRows, NamedRows]:
        """Hands over runs, closed sockets, polls and identities recorded since the last take.

        Columns of runs and polls are those of the tables socket_runs and socket_polls. Open runs
        come after `stop`.
        """
        ...
    def stop(self) -> bool:
        """Ends the sampler within 0.3 s; False when its thread is stuck in the kernel."""
        ...
    def stats(self) -> dict[str, int]:
        """Counts of the sampler so far; names as in struct pk_socket_stats."""
        ...

def parse_sock_diag(datagram: bytes, /) -> list[tuple[object, ...]]:
    """Reads the messages of one netlink datagram; for tests.

    Shape: (kind, sequence, error), and of facts (kind 0) also family, state, inode, counters.
    """
    ...
