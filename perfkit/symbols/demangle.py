"""C++ names as their authors wrote them, short enough to read; Rust names at least not garbled.

The C++ runtime's own demangler does it, where libstdc++ is present. A name of a few dozen bytes can
stand for gigabytes, each substitution doubling what it names: names with many substitutions go to a
child process that has limits of time and memory, all of one call together.
"""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable

import msgspec

MANGLED_LIMIT_BYTES = 4_096
SHOWN_LIMIT = 100
DENSE_SUBSTITUTIONS = 24
OUTPUT_LIMIT = 65_536
CHILD_TIMEOUT_S = 60.0
CHILDREN_MAX = 4
_SUBSTITUTION = re.compile(r"[ST][0-9A-Z]*_|D[tT]")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_WORDS = {
    "SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ",",
}  # fmt: skip
_RUST_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_TOKEN = re.compile(r"operator(?:<=>|<<=?|>>=?|->\*?|[<>]=?|\(\))|\(anonymous namespace\)|.", re.S)
_CHILD = """
import ctypes, json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
run = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
run.restype = ctypes.c_void_p
free = ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]
for line in sys.stdin.buffer:
    got = run(line.rstrip(b"\\n"), None, None, None)
    text = ctypes.string_at(got)[:int(sys.argv[1])] if got else b""
    free(got)
    print(json.dumps(text.decode("utf-8", "backslashreplace")), flush=True)
"""


def demangle(names: Iterable[str]) -> dict[str, str]:
    """Each name as its author wrote it; unchanged where it is not mangled, or cannot be told."""
    asked = sorted(set(names))
    mangled = [one for one in asked if _is_mangled(one)]
    simple = [one for one in mangled if len(_SUBSTITUTION.findall(one)) <= DENSE_SUBSTITUTIONS]
    dense = [one for one in mangled if len(_SUBSTITUTION.findall(one)) > DENSE_SUBSTITUTIONS]
    run = _load()
    told = {one: run(_to_core(one).encode()) for one in simple} if run else {}
    told |= _demangle_apart(dense) if run and dense else {}
    return {one: _restore(one, told.get(one, "")) for one in asked}


def shorten(name: str, limit: int = SHOWN_LIMIT) -> str:
    """A demangled name of at most so many characters: template arguments go first, from inside.

    Then parameters go, then the middle. `<...>` and `(...)` stand for what was left out.
    """
    for depth in (4, 3, 2, 1, 0):
        if len(name) <= limit:
            return name
        name = _collapse(name, "<>", depth)
    if len(name) > limit:
        name = _collapse(name, "()", 0)
    half = (limit - 3) // 2
    if len(name) > limit:
        return f"{name[: limit - 3 - half]}...{name[len(name) - half :]}"
    return name


@functools.cache
def _load() -> Callable[[bytes], str] | None:
    """The C++ runtime's demangler, loaded once.

    Missing: None on hosts without libstdc++.
    """
    try:
        run = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
        free = ctypes.CDLL(None).free
    except (OSError, AttributeError):
        return None
    run.restype = ctypes.c_void_p
    run.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    free.argtypes = [ctypes.c_void_p]

    def call(mangled: bytes) -> str:
        got = run(mangled, None, None, None)
        if not got:
            return ""
        try:
            return ctypes.string_at(got)[:OUTPUT_LIMIT].decode("utf-8", "backslashreplace")
        finally:
            free(got)

    return call


def _is_mangled(name: str) -> bool:
    return name.startswith(("_Z", "___Z")) and len(name) <= MANGLED_LIMIT_BYTES and name.isascii()


def _to_core(name: str) -> str:
    """What the demangler takes: no `@plt`, and no newline, which would part it in two."""
    return name.removesuffix("@plt").replace("\n", "")


def _demangle_apart(names: list[str]) -> dict[str, str]:
    """The names that children with limits can tell; one goes on behind what ended the last."""
    told: dict[str, str] = {}
    for _ in range(CHILDREN_MAX):
        if not names:
            break
        answers = _ask_child(names)
        told |= dict(zip(names, answers, strict=False))
        names = names[len(answers) + 1 :]
    return told


def _ask_child(names: list[str]) -> list[str]:
    """What a child with limits says to these names, up to the one that is too much for it."""
    given = b"".join(_to_core(one).encode() + b"\n" for one in names)
    command = [sys.executable, "-I", "-S", "-c", _CHILD, str(OUTPUT_LIMIT)]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, check=False, timeout=CHILD_TIMEOUT_S
        )
        return [msgspec.json.decode(line, type=str) for line in done.stdout.splitlines()]
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError):
        return []


def _restore(name: str, told: str) -> str:
    """The demangled name with what had been taken off; Rust's own escapes are resolved."""
    if not told:
        return name
    if _RUST_HASH.search(told):
        told = _RUST_HASH.sub("", told).replace("..", "::")
        told = _RUST_ESCAPE.sub(_resolve, told)
        told = told.replace("::_<", "::<").removeprefix("_") if "<" in told else told
    return told + "@plt" * name.endswith("@plt")


def _resolve(escape: re.Match[str]) -> str:
    word = escape[1]
    if word in _RUST_WORDS:
        return _RUST_WORDS[word]
    code = int(word[1:], 16)
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else escape[0]


def _collapse(name: str, brackets: str, depth_max: int) -> str:
    """Leaves out what lies deeper in brackets than `depth_max`; operators are no brackets."""
    opening, closing = brackets[0], brackets[1]
    depth = 0
    out: list[str] = []
    for token in _TOKEN.findall(name):
        if token == opening:
            depth += 1
            out += [opening, "..."] if depth == depth_max + 1 else []
        is_shown = depth <= depth_max
        if token == closing and depth:
            is_shown = depth <= depth_max + 1
            depth -= 1
        if is_shown and not (token == opening and depth == depth_max + 1):
            out.append(token)
    return "".join(out)
