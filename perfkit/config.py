"""The settings: what may be set, where each value came from, and what is wrong with a file.

Later wins: the default, /etc/perfkit/config.toml, $XDG_CONFIG_HOME/perfkit/config.toml, the
environment. Whatever a file holds, a wrong key or value is one line that names file and key.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from msgspec import Struct

from perfkit.errors import ConfigError

SYSTEM_FILE = Path("/etc/perfkit/config.toml")
FILE_LIMIT_BYTES = 1 << 20
DEFAULT = "default"
HOSTS = "hosts"
CHECK_FIX = "perfkit config check"


class Key(Struct, frozen=True):
    """One thing that may be set; `variable` sets it in the environment, "" where none does."""

    name: str
    kind: type
    default: Any
    help: str
    variable: str = ""


class Setting(Struct, frozen=True):
    """A value and its origin: "default", a file, or a variable of the environment."""

    name: str
    value: Any
    origin: str


class HostSetting(Struct, frozen=True):
    """A value for the hosts whose name matches a pattern."""

    pattern: str
    setting: Setting


class HostSettings(Struct, frozen=True):
    """How one host is reached."""

    agent: str = "perfkit-agent"
    sudo: bool = False
    ssh_options: tuple[str, ...] = ()


class Config(Struct, frozen=True):
    """All settings in effect; of what is set for a host, later ones win."""

    settings: tuple[Setting, ...]
    hosts: tuple[HostSetting, ...] = ()

    def get(self, name: str) -> Any:
        """The value in effect."""
        return next(one.value for one in self.settings if one.name == name)

    def for_host(self, host: str) -> HostSettings:
        """What all sections whose pattern matches the host come to."""
        fitting = (one.setting for one in self.hosts if fnmatchcase(host, one.pattern))
        return HostSettings(**{one.name: one.value for one in fitting})


KEYS = (
    Key("ssh.command", str, "ssh", "the program that reaches other hosts", "PERFKIT_SSH_COMMAND"),
    Key("ssh.options", list, (), "its options, for every host", "PERFKIT_SSH_OPTIONS"),
    Key("runs.folder", str, "", "where runs are kept; empty means as XDG", "PERFKIT_RUNS_FOLDER"),
    Key("runs.limit_mib", int, 1024, "beyond it the oldest runs go", "PERFKIT_RUNS_LIMIT_MIB"),
)
HOST_KEYS = (
    Key("agent", str, "perfkit-agent", "the path of perfkit-agent there; ~/ is the home"),
    Key("sudo", bool, False, "run it with sudo -n"),
    Key("ssh_options", list, (), "further options of ssh, for this host"),
)
PREFIX = "PERFKIT_"
UNKNOWN_LIMIT = 5
SHOWN_LIMIT = 40
# What Kubernetes and Docker put into the environment of whoever runs beside a service "perfkit".
_NOT_OURS = re.compile(r"PERFKIT_(\w+_)?(SERVICE_(HOST|PORT)|PORT|NAME|ENV)(_\w+)?")
_KIND_WORDS = {
    str: "a string",
    bool: "true or false",
    int: "a whole number above 0",
    list: 'a list of strings, as ["-4", "-v"]',
}


def find_files(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where configuration may lie, the one that wins last."""
    named = Path(environment.get("XDG_CONFIG_HOME", ""))
    if named.is_absolute():
        return SYSTEM_FILE, named / "perfkit" / "config.toml"
    try:
        return SYSTEM_FILE, Path.home() / ".config" / "perfkit" / "config.toml"
    except RuntimeError:
        return (SYSTEM_FILE,)


def load_config(
    files: tuple[Path, ...] | None = None, environment: Mapping[str, str] = os.environ
) -> Config:
    """Every setting in effect. Raises: `ConfigError` for the first thing that is wrong."""
    found = {key.name: Setting(key.name, key.default, DEFAULT) for key in KEYS}
    hosts: list[HostSetting] = []
    for path in find_files(environment) if files is None else files:
        problems, settings, sections = read_file(path)
        if problems:
            raise ConfigError(problems[0], fix=CHECK_FIX)
        found |= {one.name: one for one in settings}
        hosts += sections
    for key in KEYS:
        if environment.get(key.variable):
            found[key.name] = _from_environment(key, environment[key.variable])
    return Config(tuple(found.values()), tuple(hosts))


def list_unknown(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each variable that begins as a setting does and is none, a few at most."""
    known = [key.variable.removeprefix(PREFIX) for key in KEYS if key.variable]
    unknown = [
        name
        for name in sorted(environment)
        if name.startswith(PREFIX)
        and name[len(PREFIX) :] not in known
        and not _NOT_OURS.fullmatch(name)
    ]
    lines = [
        f"{name}: unknown setting{_suggest(name.removeprefix(PREFIX), known, PREFIX)}"
        for name in unknown[:UNKNOWN_LIMIT]
    ]
    if len(unknown) > UNKNOWN_LIMIT:
        lines.append(f"{len(unknown) - UNKNOWN_LIMIT} more {PREFIX}... variables are no settings")
    return lines


def read_file(path: Path) -> tuple[list[str], list[Setting], list[HostSetting]]:
    """All that is wrong with a file, a line each, and what it sets; nothing if it is absent."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_LIMIT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return [], [], []
    except OSError as error:
        if not os.access(path.parent, os.X_OK):
            # Somebody else's home, as `sudo -u` leaves it: whether there is a file is unknown.
            return [], [], []
        return [f"{path}: cannot be read: {(error.strerror or str(error)).lower()}"], [], []
    if len(raw) > FILE_LIMIT_BYTES:
        return [f"{path}: is over the limit of {FILE_LIMIT_BYTES} bytes"], [], []
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        return [f"{path}: is no TOML: {str(error) or 'nested too deeply'}"], [], []
    return _check(path, content)


def _check(
    path: Path, content: dict[str, Any]
) -> tuple[list[str], list[Setting], list[HostSetting]]:
    problems: list[str] = []
    settings, hosts = [], []
    for place, key, value in _walk(content):
        known = {one.name: one for one in (HOST_KEYS if place is not None else KEYS)}
        full = key if place is None else f'{HOSTS}."{place}".{key}'
        if key not in known:
            problems.append(f"{path}: {full}: unknown key{_suggest(key, list(known))}")
        elif not _fits(known[key].kind, value):
            wanted = _KIND_WORDS[known[key].kind]
            problems.append(f"{path}: {full}: must be {wanted}, not {_show(value)}")
        else:
            held = tuple(value) if isinstance(value, list) else value
            setting = Setting(key, held, str(path))
            if place is None:
                settings.append(setting)
            else:
                hosts.append(HostSetting(place, setting))
    return problems, settings, hosts


def _walk(content: dict[str, Any]) -> Iterator[tuple[str | None, str, Any]]:
    """Each value of a file: the host that it is for (None for all), its key, itself."""
    for name, section in content.items():
        if not isinstance(section, dict):
            yield None, name, section
        elif name != HOSTS:
            yield from ((None, f"{name}.{key}", value) for key, value in section.items())
        else:
            yield from _walk_hosts(section)


def _walk_hosts(section: dict[str, Any]) -> Iterator[tuple[str | None, str, Any]]:
    for pattern, told in section.items():
        if isinstance(told, dict):
            yield from ((pattern, key, value) for key, value in told.items())
        else:
            yield None, f"{HOSTS}.{pattern}", told


def _fits(kind: type, value: object) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind is int:
        return type(value) is int and value > 0
    return isinstance(value, kind)


def _suggest(key: str, known: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    names = [f"{prefix}{one}" for one in near or known]
    return f"; did you mean {names[0]}?" if near else f"; known are {', '.join(names)}"


def _show(value: object) -> str:
    """A value as it was written, or nearly so, and not at length."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN_LIMIT else f"{text[:SHOWN_LIMIT]} ..."


def _from_environment(key: Key, text: str) -> Setting:
    value: Any = text
    try:
        if key.kind is list:
            value = tuple(shlex.split(text))
        elif key.kind is int:
            value = int(text)
    except ValueError as error:
        raise _refuse(key, text) from error
    if key.kind is int and value <= 0:
        raise _refuse(key, text)
    return Setting(key.name, value, key.variable)


def _refuse(key: Key, text: str) -> ConfigError:
    """The error for a variable whose value does not fit."""
    wanted = "words as a shell splits them" if key.kind is list else _KIND_WORDS[key.kind]
    what = f"{key.variable}: must be {wanted}, not {_show(text)}"
    example = "-4" if key.kind is list else key.default
    return ConfigError(what, fix=f"{key.variable}={example}, or unset it")
