"""How numbers are written for people: three digits, SI prefixes, a space before the unit.

Percent exists only here; everywhere else a share is a ratio 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

SIGNIFICANT_DIGITS = 3
_TIMES_S = {"seconds": 1.0, "s": 1.0, "milliseconds": 1e-3, "ms": 1e-3}
_TIMES_S |= {"microseconds": 1e-6, "us": 1e-6, "nanoseconds": 1e-9, "ns": 1e-9}
_SCALED = {
    "bytes": "B",
    "bytes_per_second": "B/s",
    "bits_per_second": "bit/s",
    "hertz": "Hz",
    "watts": "W",
}
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_PLAIN = {
    "celsius": "C",
    "percent": "%",
    "per_second": "/s",
    "cores": "CPUs",
    "cpus": "CPUs",
    "count": "",
}
_WHOLE_LIMIT = 100_000
# Powers of ten between which numbers are written out.
_SIZE_MIN, _SIZE_MAX = -4, 15


def to_text(value: float | None, unit: str) -> str:
    """Writes a quantity, e.g. `12.3 ms`, `1.20 GB`, `38.0 %`, `4`.

    Unit: the base units of metrics (seconds, bytes, ratio ...); one that is unknown here is put
    behind the number as it stands.
    Missing: None and what is not a number are written as `not known`.
    """
    if value is None or not math.isfinite(value):
        return "no limit" if value == math.inf else "not known"
    if unit in _TIMES_S:
        return to_duration(value * _TIMES_S[unit])
    if unit in _SCALED:
        return _to_scaled(value, _SCALED[unit])
    wording = _WORDINGS.get(unit)
    return wording(value) if wording else f"{to_number(value)} {_PLAIN.get(unit, unit)}".rstrip()


def to_number(value: float) -> str:
    """Three significant digits; whole numbers below 100,000 stay whole."""
    if abs(value) < _WHOLE_LIMIT and value == int(value):
        return str(int(value))
    exponential = f"{value:.{SIGNIFICANT_DIGITS - 1}e}"
    size = int(exponential.partition("e")[2]) if math.isfinite(value) else _SIZE_MAX
    if not _SIZE_MIN <= size < _SIZE_MAX:
        return exponential
    return f"{float(exponential):.{max(0, SIGNIFICANT_DIGITS - 1 - size)}f}"


def to_percent(ratio: float) -> str:
    """A ratio as percent, e.g. `0.0123` as `1.23 %`; what rounds to nothing is `0 %`."""
    percent = 100 * ratio
    if abs(percent) < 0.005:
        return "0 %"
    text = to_number(percent)
    return f"{text.rstrip('0').rstrip('.') if '.' in text and 'e' not in text else text} %"


def to_duration(seconds: float) -> str:
    """Seconds with the prefix that suits: `ns`, `us`, `ms` or `s`."""
    if seconds == 0:
        return "0 s"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(seconds) >= 0.9995 * scale:
            return f"{_three(seconds / scale)} {unit}"
    return f"{_three(seconds * 1e9)} ns"


def _to_scaled(value: float, unit: str) -> str:
    for scale, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * scale:
            return f"{_three(value / scale)} {prefix}{unit}"
    return f"{to_number(value)} {unit}"


def _three(value: float) -> str:
    """Always three digits, so that columns of one report look alike: `1.00`, `12.0`, `120`."""
    for limit, digits in ((9.995, 2), (99.95, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


_WORDINGS: dict[str, Callable[[float], str]] = {
    "ratio": to_percent,
    "s/s": lambda value: f"{to_duration(value)}/s",
    "x": lambda value: f"x{to_number(value)}",
}
