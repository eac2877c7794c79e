"""What the shell offers at a TAB: hosts, runs, causes, formats. Never an error, never much time."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

NAME_LIMIT = 1000
CONFIG_LIMIT_BYTES = 1 << 20
INCLUDE_LIMIT = 64
SSH_FOLDER = ".ssh"
_WORD = re.compile(r"[\w.:@][\w.:@-]*")


def list_targets(incomplete: str) -> list[str]:
    """This host, and the hosts that ssh's configuration names."""
    names: list[str] = []
    with suppress(Exception):
        names = list(islice(read_ssh_hosts(Path.home() / SSH_FOLDER / "config"), NAME_LIMIT))
    return _begin([".", *names], incomplete)


def list_runs(incomplete: str) -> list[str]:
    """The saved runs, newest first."""
    names: list[str] = []
    with suppress(Exception):
        from perfkit.store.runs import LAST, find_folder
        from perfkit.store.runs import list_runs as list_saved

        names = [LAST, *(run.id for run in list_saved(find_folder())[:NAME_LIMIT])]
    return _begin(names, incomplete)


def list_causes(incomplete: str) -> list[str]:
    """The causes that this version looks for."""
    from perfkit import discover

    return _begin(list(discover.names("perfkit.analysis.rules")), incomplete)


def list_formats(incomplete: str) -> list[str]:
    """The formats of a report."""
    from perfkit import discover

    return _begin(list(discover.names("perfkit.export")), incomplete)


def list_profiles(incomplete: str) -> list[str]:
    """The formats of a profile."""
    from perfkit import discover

    found = discover.load_all("perfkit.export", "EXPORTER").values()
    return _begin([one.name for one in found if one.of == "profile"], incomplete)


def list_subjects(incomplete: str) -> list[str]:
    """What can be sampled, and the saved runs."""
    return [*list_targets(incomplete), *list_runs(incomplete)]


def read_ssh_hosts(path: Path) -> Iterator[str]:
    """The names after `Host` in a configuration of ssh and what it includes, patterns left out."""
    waiting, seen = [path], set[Path]()
    while waiting and len(seen) < INCLUDE_LIMIT:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        for keyword, words in _read_lines(path):
            if keyword == "host":
                yield from (word for word in words if _WORD.fullmatch(word))
            elif keyword == "include":
                # As ssh has it, a relative name is looked for beside the user's configuration.
                waiting += [Path(found) for word in words for found in _expand(word)]


def _expand(word: str) -> list[str]:
    whole = Path(word).expanduser()
    place = whole if whole.is_absolute() else Path.home() / SSH_FOLDER / whole
    return sorted(glob.glob(str(place)))[:INCLUDE_LIMIT]  # noqa: PTH207 (the pattern is absolute)


def _read_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            text = file.read(CONFIG_LIMIT_BYTES).decode("utf-8", "replace")
    except OSError:
        return
    for line in text.splitlines():
        keyword, *words = re.sub(r"^\s*(\w+)\s*=", r"\1 ", line).split() or [""]
        if not keyword.startswith("#"):
            yield keyword.lower(), [word.strip('"') for word in words]


def _begin(names: list[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
