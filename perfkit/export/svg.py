"""A static flame graph as SVG: no script, nothing to load, names as tooltips.

A frame is as wide as its share of the time; its callers lie under it.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import IO, Any

from perfkit.analysis.profile import Profile
from perfkit.export._exporter import Exporter, Look
from perfkit.export._flame import Box, lay_out, to_words, word_time, word_title
from perfkit.report.escape import to_printable
from perfkit.units import to_duration, to_percent

WIDTH_PX = 1200
MARGIN_PX = 16
ROW_PX = 19
HEAD_PX = 74
FOOT_PX = 16
LEAST_PX = 3.0
LETTER_PX = 7.0
TEXT_LEAST_PX = 40.0
NAME_LIMIT = 160
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
FILLS = {
    "group": "#d5d9de",
    "application": "#f4a261",
    "package": "#8ecae6",
    "library": "#cfe1b9",
    "unknown": "#eceff1",
    "kernel": "#b8a9c9",
}
LEGEND = (
    ("application", "the service's code"),
    ("package", "installed packages"),
    ("library", "Python's library"),
    ("unknown", "not sampled"),
)
LEGEND_NATIVE = (
    ("application", "the service's code"),
    ("package", "installed packages"),
    ("library", "libraries"),
    ("kernel", "kernel"),
    ("unknown", "not sampled"),
)


def write(profile: Profile, out: IO[Any], look: Look) -> None:
    """Writes one document."""
    inner_px = WIDTH_PX - 2 * MARGIN_PX
    scale = inner_px / max(profile.time_us, 1)
    boxes = lay_out(profile, LEAST_PX / scale)
    levels = 1 + max((box.level for box in boxes), default=0)
    height_px = HEAD_PX + levels * ROW_PX + FOOT_PX
    out.write(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height_px}" '
        f'viewBox="0 0 {WIDTH_PX} {height_px}" font-family="{FONT}" font-size="12">\n'
    )
    out.write(f"<desc>{_escape(f'perfkit run {profile.run}')}</desc>\n")
    out.write(f'<rect width="{WIDTH_PX}" height="{height_px}" fill="#ffffff"/>\n')
    out.writelines(_head(profile))
    for box in boxes:
        top_px = HEAD_PX + (levels - 1 - box.level) * ROW_PX
        out.write(_draw(box, scale, top_px, profile))
    out.write("</svg>\n")


def _head(profile: Profile) -> Iterator[str]:
    title, used = word_title(profile), word_time(profile)
    rest = "a function stands on its caller; those under 0.3 % are left out"
    yield (
        f'<text x="{MARGIN_PX}" y="26" font-size="16" font-weight="bold" fill="#1b1f23">'
        f"{_escape(title)}</text>\n"
    )
    yield f'<text x="{MARGIN_PX}" y="46" fill="#4a5056">{_escape(f"{used}; {rest}")}</text>\n'
    left_px = MARGIN_PX
    for origin, words in LEGEND_NATIVE if profile.is_native else LEGEND:
        yield (
            f'<rect x="{left_px}" y="54" width="12" height="12" rx="2" fill="{FILLS[origin]}" '
            f'stroke="#8a9299" stroke-width="0.5"/>'
            f'<text x="{left_px + 18}" y="64" fill="#4a5056">{_escape(words)}</text>\n'
        )
        left_px += 18 + int(LETTER_PX * len(words)) + 26


def _draw(box: Box, scale: float, top_px: int, profile: Profile) -> str:
    left_px = MARGIN_PX + box.begin_us * scale
    width_px = box.time_us * scale
    share = to_percent(box.time_us / max(profile.time_us, 1))
    tip = f"{to_words(box.frame)}: {to_duration(box.time_us / 1e6)}, {share}"
    shown = (
        f'<rect x="{left_px:.1f}" y="{top_px}" width="{max(width_px - 0.8, 0.5):.1f}" '
        f'height="{ROW_PX - 1}" rx="2" fill="{FILLS[box.frame.origin]}"/>'
    )
    if width_px >= TEXT_LEAST_PX:
        text = to_printable(box.frame.name, max(4, int((width_px - 8) / LETTER_PX)))
        shown += (
            f'<text x="{left_px + 4:.1f}" y="{top_px + 13}" fill="#1b1f23">'
            f"{html.escape(text)}</text>"
        )
    return f"<g><title>{_escape(tip)}</title>{shown}</g>\n"


def _escape(text: str) -> str:
    return html.escape(to_printable(text, NAME_LIMIT))


EXPORTER = Exporter("svg", suffix=".svg", binary=False, write=write, of="profile")
