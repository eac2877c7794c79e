"""The host's memory: how much is left, and what the kernel does to find more."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.collectors._proc import is_count
from perfkit.host import Host
from perfkit.model import Collector, Kind, Metric, Reading, Target, polled

SIZES = {
    "MemTotal": ("memory_total_bytes", "Memory that the kernel manages."),
    "MemAvailable": ("memory_available_bytes", "What new work could take without swapping."),
    "MemFree": ("memory_free_bytes", "Memory that nothing uses; low is normal."),
    "Cached": ("memory_cached_bytes", "Files kept in memory, shared memory included."),
    "AnonPages": ("memory_anonymous_bytes", "Memory of programs that no file backs."),
    "Dirty": ("memory_dirty_bytes", "File pages that still have to be written."),
    "Writeback": ("memory_writeback_bytes", "File pages that are being written."),
    "SwapTotal": ("memory_swap_total_bytes", "Swap space."),
    "SwapFree": ("memory_swap_free_bytes", "Swap space that is not in use."),
}
# Field of vmstat -> metric, its labels. Several fields of one metric and label add up.
EVENTS = {
    "pgfault": ("memory_faults_total", ()),
    "pgmajfault": ("memory_major_faults_total", ()),
    "pgscan_direct": ("memory_scanned_pages_total", ("direct",)),
    "pgscan_kswapd": ("memory_scanned_pages_total", ("kswapd",)),
    "pgsteal_direct": ("memory_reclaimed_pages_total", ("direct",)),
    "pgsteal_kswapd": ("memory_reclaimed_pages_total", ("kswapd",)),
    "pswpin": ("memory_swapped_in_pages_total", ()),
    "pswpout": ("memory_swapped_out_pages_total", ()),
    "workingset_refault": ("memory_refaulted_pages_total", ("file",)),
    "workingset_refault_anon": ("memory_refaulted_pages_total", ("anonymous",)),
    "workingset_refault_file": ("memory_refaulted_pages_total", ("file",)),
    "compact_stall": ("memory_compaction_stalls_total", ()),
    "thp_fault_fallback": ("memory_huge_page_fallbacks_total", ()),
    "allocstall": ("memory_allocation_stalls_total", ()),
    "allocstall_dma": ("memory_allocation_stalls_total", ()),
    "allocstall_dma32": ("memory_allocation_stalls_total", ()),
    "allocstall_normal": ("memory_allocation_stalls_total", ()),
    "allocstall_movable": ("memory_allocation_stalls_total", ()),
    "oom_kill": ("memory_oom_kills_total", ()),
}


def _gauge(field: str, name: str, words: str) -> Metric:
    return Metric(name, Kind.GAUGE, "bytes", source=f"/proc/meminfo, {field}", help=words)


def _counter(name: str, fields: str, words: str, *labels: str) -> Metric:
    unit = "pages" if "_pages_" in name and "huge" not in name else ""
    return Metric(name, Kind.COUNTER, unit, f"/proc/vmstat, {fields}", words, labels)


METRICS = (
    *(_gauge(field, name, words) for field, (name, words) in SIZES.items()),
    _counter("memory_faults_total", "pgfault", "Page faults of the whole host."),
    _counter("memory_major_faults_total", "pgmajfault", "Faults that had to read from a device."),
    _counter(
        "memory_scanned_pages_total",
        "pgscan_direct, pgscan_kswapd",
        "Pages looked at to free some: by those who need memory (direct), or ahead of them.",
        "by",
    ),
    _counter(
        "memory_reclaimed_pages_total",
        "pgsteal_direct, pgsteal_kswapd",
        "Pages that were freed so.",
        "by",
    ),
    _counter("memory_swapped_in_pages_total", "pswpin", "Pages read back from swap."),
    _counter("memory_swapped_out_pages_total", "pswpout", "Pages written to swap."),
    _counter(
        "memory_refaulted_pages_total",
        "workingset_refault_anon, workingset_refault_file (before Linux 5.9: workingset_refault)",
        "Pages that were dropped and soon needed again.",
        "kind",
    ),
    _counter(
        "memory_compaction_stalls_total", "compact_stall", "Waits for memory to be compacted."
    ),
    _counter(
        "memory_huge_page_fallbacks_total",
        "thp_fault_fallback",
        "Faults that wanted a huge page and got small ones.",
    ),
    _counter(
        "memory_allocation_stalls_total",
        "allocstall_* (before Linux 4.10: allocstall)",
        "Allocations that had to free memory themselves, over all zones.",
    ),
    _counter("memory_oom_kills_total", "oom_kill (Linux 4.13)", "Processes killed for memory."),
)


def parse_meminfo(text: str) -> Iterator[Reading]:
    """Reads /proc/meminfo. Missing: fields that an old kernel lacks give no reading."""
    for line in text.splitlines():
        field, _, rest = line.partition(":")
        words = rest.split()
        if field in SIZES and words and is_count(words[0]):
            yield Reading(SIZES[field][0], (), int(words[0]) * 1024.0)


def parse_vmstat(text: str) -> Iterator[Reading]:
    """Reads /proc/vmstat. Missing: events that this kernel does not count give no reading."""
    sums: dict[tuple[str, tuple[str, ...]], float] = {}
    for line in text.splitlines():
        field, _, count = line.partition(" ")
        if field in EVENTS and is_count(count):
            sums[EVENTS[field]] = sums.get(EVENTS[field], 0.0) + float(count)
    for (name, labels), total in sums.items():
        yield Reading(name, labels, total)


def read(host: Host, target: Target) -> Iterator[Reading]:
    """Reads /proc/meminfo and /proc/vmstat."""
    del target
    yield from parse_meminfo(host.read_proc("meminfo"))
    yield from parse_vmstat(host.read_proc("vmstat"))


COLLECTOR = Collector(
    "memory",
    metrics=METRICS,
    tables=(),
    scope="host",
    interval_s=2.0,
    timeout_s=0.2,
    open=polled(read),
)
