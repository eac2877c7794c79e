"""Plain Python twins of what the C extension does: slow, obvious, and only for comparison."""

from __future__ import annotations

RUNNING, UNREADABLE = -2, -3
_LARGEST = (1 << 63) - 1


def to_signed(bits: int) -> int:
    """The 64 bits of an unsigned number as a signed one."""
    return bits - (1 << 64) if bits > _LARGEST else bits


def parse_schedstat(text: str) -> tuple[int, int, int]:
    """Run ns, wait ns and slices of a schedstat file."""
    run_ns, wait_ns, slice_count = (int(word) for word in text.split()[:3])
    return run_ns, wait_ns, slice_count


def parse_syscall(text: str) -> tuple[int, tuple[int, ...], int, int]:
    """Number, six arguments, stack pointer and program counter of a syscall file."""
    if text.startswith("running"):
        return RUNNING, (0,) * 6, 0, 0
    words = text.split()
    number = int(words[0])
    bits = [to_signed(int(word, 16)) for word in words[1:]]
    arguments = (0,) * 6 if number == -1 else tuple(bits[:6])
    return number, arguments, bits[-2], bits[-1]


def parse_stat(text: str) -> tuple[bytes, str, int, int, int, int, int, int]:
    """Name, state letter, minor and major faults, nice, start ticks, last CPU, policy."""
    name = text[text.index("(") + 1 : text.rindex(")")].encode()[:16]
    fields = text[text.rindex(")") + 1 :].split()
    minor, major, nice, start, cpu, policy = (int(fields[i]) for i in (7, 9, 16, 19, 36, 38))
    return name, fields[0], minor, major, nice, start, cpu, policy


def parse_cpu_stat(text: str) -> tuple[int, int, int]:
    """Periods, throttled periods and throttled ns of a cpu.stat file, version 1 or 2."""
    values = dict(line.split() for line in text.splitlines())
    if "throttled_usec" in values:
        throttled_ns = 1000 * int(values["throttled_usec"])
    else:
        throttled_ns = int(values.get("throttled_time", -1))
    return int(values.get("nr_periods", -1)), int(values.get("nr_throttled", -1)), throttled_ns
