"""Where each frame of a flame graph lies: the stacks merged from the outermost frame on."""

from __future__ import annotations

from dataclasses import dataclass, field

from perfkit.analysis.profile import Profile, ProfileFrame
from perfkit.units import to_duration

DEPTH_LIMIT = 128
_SUBJECTS = {
    "cpu": ("CPU time", "of CPU"),
    "off-cpu": ("time off the CPUs", "off the CPUs, of all threads,"),
    "wall": ("time", "of all threads"),
    "host": ("CPU time", "of CPU"),
}


@dataclass(frozen=True)
class Box:
    """One frame: its level (0 is the whole), where it begins, how wide it is, in time."""

    frame: ProfileFrame
    level: int
    begin_us: int
    time_us: int


def word_title(profile: Profile) -> str:
    """Whose time of which kind a profile shows."""
    whose = f"{profile.target} on {profile.host}" if profile.target else profile.host
    by = "function" if profile.is_native or profile.of != "cpu" else "Python function"
    return f"{whose}: {_SUBJECTS[profile.of][0]} by {by}"


def word_time(profile: Profile) -> str:
    """How much time it is, and of how long a window."""
    used = f"{to_duration(profile.time_us / 1e6)} {_SUBJECTS[profile.of][1]}"
    return f"{used} in {profile.seconds:.1f} s"


def to_words(frame: ProfileFrame) -> str:
    """A function and its file, or what has no file."""
    if frame.file.startswith("["):
        return f"{frame.name} {frame.file}"
    return f"{frame.name} ({frame.file})" if frame.file else frame.name


@dataclass
class Branch:
    """The time of a frame and all that it called; `self_us` is its own."""

    time_us: int = 0
    self_us: int = 0
    near_us: int = 0
    below: dict[ProfileFrame, Branch] = field(default_factory=dict)

    def ranked(self) -> list[tuple[ProfileFrame, Branch]]:
        """What it called, most time first."""
        return sorted(self.below.items(), key=lambda item: (-item[1].time_us, item[0]))


def lay_out(profile: Profile, least_us: float) -> list[Box]:
    """The boxes that are at least so wide, those of one level from left to right.

    Frames of one caller lie beside one another, the widest first.
    """
    root = ProfileFrame("all", "", "group")
    boxes: list[Box] = []
    waiting = [(root, 0, 0, merge_stacks(profile))]
    while waiting:
        frame, level, begin_us, branch = waiting.pop()
        if branch.time_us < least_us or level > DEPTH_LIMIT:
            continue
        boxes.append(Box(frame, level, begin_us, branch.time_us))
        for below, part in branch.ranked():
            waiting.append((below, level + 1, begin_us, part))
            begin_us += part.time_us
    return sorted(boxes, key=lambda box: (box.level, box.begin_us))


def merge_stacks(profile: Profile) -> Branch:
    """All stacks as one tree from the outermost frame on, up to DEPTH_LIMIT."""
    whole = Branch()
    for stack in profile.stacks:
        branch = whole
        branch.time_us += stack.time_us
        for frame in stack.frames[:DEPTH_LIMIT]:
            branch = branch.below.setdefault(frame, Branch())
            branch.time_us += stack.time_us
            branch.near_us += stack.near_us
        branch.self_us += stack.time_us
    return whole
