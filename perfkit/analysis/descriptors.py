"""How many of the descriptors that they may have the processes of the service had open."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.analysis.case import Case

EXHAUSTED_RATIO = 0.98


@dataclass(frozen=True)
class Use:
    """How far one process came toward its limit."""

    pid: int
    open_count: int
    limit: int

    @property
    def ratio(self) -> float:
        """Open descriptors per descriptor allowed."""
        return self.open_count / self.limit

    @property
    def is_exhausted(self) -> bool:
        """Whether it had none left."""
        return self.ratio >= EXHAUSTED_RATIO


def read_uses(case: Case) -> list[Use]:
    """The largest use that each process of the service came to, nearest to its limit first."""
    table = case.aligned.table("descriptors")
    columns = [table.integers(name).tolist() for name in ("pid", "open_count", "soft_limit")]
    highest: dict[int, Use] = {}
    for pid, open_count, limit in zip(*columns, strict=True):
        use = Use(pid, open_count, limit)
        if limit > 0 and (pid not in highest or use.ratio > highest[pid].ratio):
            highest[pid] = use
    return sorted(highest.values(), key=lambda use: (-use.ratio, use.pid))
