"""Where each frame of a flame graph lies: the stacks merged from the outermost frame on."""

from __future__ import annotations

from dataclasses import dataclass, field

from perfkit.analysis.profile import Profile, ProfileFrame

DEPTH_LIMIT = 128


@dataclass(frozen=True)
class Box:
    """One frame: its level (0 is the whole), where it begins, how wide it is, in time."""

    frame: ProfileFrame
    level: int
    begin_us: int
    time_us: int


@dataclass
class _Branch:
    time_us: int = 0
    below: dict[ProfileFrame, _Branch] = field(default_factory=dict)


def lay_out(profile: Profile, least_us: float) -> list[Box]:
    """The boxes that are at least so wide, those of one level from left to right.

    Frames of one caller lie beside one another, the widest first.
    """
    root = ProfileFrame("all", "", "group")
    boxes: list[Box] = []
    waiting = [(root, 0, 0, _merge(profile))]
    while waiting:
        frame, level, begin_us, branch = waiting.pop()
        if branch.time_us < least_us or level > DEPTH_LIMIT:
            continue
        boxes.append(Box(frame, level, begin_us, branch.time_us))
        ranked = sorted(branch.below.items(), key=lambda item: (-item[1].time_us, item[0]))
        for below, part in ranked:
            waiting.append((below, level + 1, begin_us, part))
            begin_us += part.time_us
    return sorted(boxes, key=lambda box: (box.level, box.begin_us))


def _merge(profile: Profile) -> _Branch:
    whole = _Branch()
    for stack in profile.stacks:
        branch = whole
        branch.time_us += stack.time_us
        for frame in stack.frames[:DEPTH_LIMIT]:
            branch = branch.below.setdefault(frame, _Branch())
            branch.time_us += stack.time_us
    return whole
