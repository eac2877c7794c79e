"""What the CPU faults share: burners beside the service, the cgroups they lie in, the undoing."""

from __future__ import annotations

import contextlib
import os
from contextlib import ExitStack
from pathlib import Path

from perfkit.demo import cgroups
from perfkit.demo.world import Child, World

BURNERS_PER_CPU = 2
# A mild burner runs at the lowest priority, now and then: it is there, and harmless.
MILD_DUTY = 0.05
MILD_NICE = 19


def start_burners(world: World, stack: ExitStack, count: int) -> list[int]:
    """Starts processes that burn CPU until the stack is closed; gives their pids."""
    is_mild = world.options.mild
    duty, nice = (MILD_DUTY, MILD_NICE) if is_mild else (1.0, 0)
    pids = []
    for _ in range(count):
        child = Child("burner", ("--duty", str(duty), "--nice", str(nice)))
        stack.callback(child.stop)
        child.wait_port()
        pids.append(child.pid)
    return pids


def make_group(world: World, stack: ExitStack, name: str) -> cgroups.Group:
    """Makes a cgroup beside the service's own; it goes when the stack is closed."""
    home = cgroups.own_group(os.getpid())
    group = cgroups.make_child_group(home, f"perfkit-demo-{name}-{os.getpid()}")
    world.leave(group.folder)
    stack.callback(cgroups.remove_group, group)
    return group


def move(stack: ExitStack, group: cgroups.Group, pid: int) -> None:
    """Moves a process into a group, and back to where it was when the stack is closed."""
    home = cgroups.own_group(pid)

    def go_back() -> None:
        with contextlib.suppress(OSError):
            cgroups.enter(home, pid)

    cgroups.enter(group, pid)
    stack.callback(go_back)


def thread_ids(pid: int) -> list[int]:
    """The threads of a process."""
    return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]


def burner_count(per_cpu: int = BURNERS_PER_CPU) -> int:
    """How many burners keep every CPU of this host busy."""
    return per_cpu * (os.cpu_count() or 1)
