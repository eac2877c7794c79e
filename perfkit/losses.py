"""What a sampler says it could not see, as what, why, and the grant that would show it.

A note of a rate is remarks behind one another. Most tell of pace; those that tell of a loss are of
one shape, `WHAT are not counted (WHY; grant WHAT WOULD SHOW IT)`, and others are taken as they are.
"""

from __future__ import annotations

import re

from perfkit.findings import Skip

LOSS_LIMIT = 10
_REMARKS = re.compile(r"; (?![^(]*\))")
_LOST_WORDS = ("refused", "grant CAP", "not permitted", "denied", "are unknown")
_PARTS = re.compile(r"(?:(?P<before>.{1,200}), so )?(?P<what>.{1,200}?) (?:are|were) (?P<how>.*)")
_ASIDE = re.compile(r"(?P<how>[^(]*) \((?P<aside>.*)\)")
_GRANT = re.compile(r"(?:(?P<why>.*); )?grant (?P<grant>.*)")


def list_losses(note: str) -> list[str]:
    """The remarks of a note that tell of what was not seen, as they stand."""
    remarks = (one for one in _REMARKS.split(note) if any(words in one for words in _LOST_WORDS))
    return list(remarks)[:LOSS_LIMIT]


def to_skip(sampler: str, remark: str) -> Skip:
    """What was lost, why, and what would show it; a remark of another shape is the sampler's."""
    parts = _PARTS.fullmatch(remark)
    if parts is None:
        return Skip(sampler, remark)
    how, aside = parts["how"], _ASIDE.fullmatch(parts["how"])
    grant = None if aside is None else _GRANT.fullmatch(aside["aside"])
    if aside is not None and grant is not None:
        how = f"{aside['how']}: {grant['why']}" if grant["why"] else aside["how"]
    why = f"{how}: {parts['before']}" if parts["before"] else how
    return Skip(parts["what"], why, grant["grant"] if grant else "")
