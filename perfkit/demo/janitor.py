"""Removes what the supervisor made outside its own memory, when the supervisor is gone.

It is told each path on stdin and acts when stdin ends, so it also acts after a SIGKILL. Run as a
file, so that it starts fast.
"""

import shutil
import sys
import time
from pathlib import Path

ATTEMPT_COUNT = 100
ATTEMPT_S = 0.05


def remove(path: Path) -> None:
    """Removes a folder; a cgroup's can go only when its last process has gone."""
    for _ in range(ATTEMPT_COUNT):
        if not path.exists():
            return
        try:
            path.rmdir()
        except OSError:
            if not (path / "cgroup.procs").exists():
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(ATTEMPT_S)


def main() -> None:
    """Gathers paths until stdin ends, then removes them, the last one first."""
    paths = [Path(line.rstrip("\n")) for line in sys.stdin]
    for path in reversed(paths):
        remove(path)


if __name__ == "__main__":
    main()
