"""The service's own processes for sources that look at each of them once a second."""

from __future__ import annotations

from perfkit.collectors._service import ServiceTracker
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Target

PROCESS_LIMIT = 256
# Listing every process of the host is dear, and new workers are rare.
UPDATE_INTERVAL_NS = 3_000_000_000


class Members:
    """Which processes belong to the service now; new ones are found within three seconds."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._tracker = ServiceTracker(host, target)
        self._updated_ns = host.now_ns()
        if not self._tracker.service_pids:
            raise Unavailable("every process of the target was gone before it could be read")

    def pids(self) -> list[int]:
        """The processes of the service, ascending, at most PROCESS_LIMIT."""
        now_ns = self._host.now_ns()
        if now_ns - self._updated_ns >= UPDATE_INTERVAL_NS:
            self._updated_ns = now_ns
            self._tracker.update()
        return sorted(self._tracker.service_pids)[:PROCESS_LIMIT]

    @property
    def left_out_count(self) -> int:
        """How many processes the limit leaves out."""
        return max(0, len(self._tracker.service_pids) - PROCESS_LIMIT)
