"""The C parsers of /proc against their plain twins, and against hostile text."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path

import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import build

NATIVE = Path(__file__).parent.parent / "native"
LARGEST = (1 << 63) - 1
numbers = st.integers(0, LARGEST)
words = st.integers(0, (1 << 64) - 1)


class Schedstat(ctypes.Structure):
    """As pk_schedstat."""

    _fields_ = [(name, ctypes.c_int64) for name in ("run_ns", "wait_ns", "slice_count")]


class Syscall(ctypes.Structure):
    """As pk_syscall."""

    _fields_ = [
        ("number", ctypes.c_int64),
        ("arguments", ctypes.c_int64 * 6),
        ("stack_pointer", ctypes.c_int64),
        ("program_counter", ctypes.c_int64),
    ]


class Stat(ctypes.Structure):
    """As pk_stat."""

    _fields_ = [
        ("name", ctypes.c_char * 16),
        *(
            (name, ctypes.c_int64)
            for name in ("letter", "minor", "major", "nice", "start", "cpu", "policy")
        ),
    ]


class CpuStat(ctypes.Structure):
    """As pk_cpu_stat."""

    _fields_ = [(name, ctypes.c_int64) for name in ("periods", "throttled", "throttled_ns")]


@pytest.fixture(scope="module")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The parsers, compiled on their own: they know nothing of Python."""
    library = tmp_path_factory.mktemp("parsers") / "parsers.so"
    build(NATIVE / "pk_procfile.c", library, "-shared", "-fPIC")
    loaded = ctypes.CDLL(str(library))
    loaded.pk_procfile_parse_inode.restype = ctypes.c_int64
    return loaded


def call(parsers: ctypes.CDLL, kind: str, text: bytes, ret: ctypes.Structure) -> int:
    """Runs one parser on a buffer that ends exactly where the text does."""
    buffer = (ctypes.c_char * max(len(text), 1)).from_buffer_copy(text or b"\0")
    parse = getattr(parsers, f"pk_procfile_parse_{kind}")
    outcome: int = parse(buffer, ctypes.c_size_t(len(text)), ctypes.byref(ret))
    return outcome


@given(run=numbers, wait=numbers, slices=numbers)
def test_schedstat_equals_its_twin(parsers: ctypes.CDLL, run: int, wait: int, slices: int) -> None:
    """Every three numbers that fit 63 bits are read as the twin reads them."""
    text, found = f"{run} {wait} {slices}\n", Schedstat()

    outcome = call(parsers, "schedstat", text.encode(), found)

    read = (found.run_ns, found.wait_ns, found.slice_count)
    assert (outcome, read) == (0, oracles.parse_schedstat(text))


@given(number=st.integers(0, 500), arguments=st.lists(words, min_size=8, max_size=8))
def test_syscall_equals_its_twin(parsers: ctypes.CDLL, number: int, arguments: list[int]) -> None:
    """Number, arguments, stack pointer and program counter keep all their bits."""
    text = f"{number} {' '.join(f'{word:#x}' for word in arguments)}\n"
    found = Syscall()

    outcome = call(parsers, "syscall", text.encode(), found)

    pointers = found.stack_pointer, found.program_counter
    read = (found.number, tuple(found.arguments), *pointers)
    assert (outcome, read) == (0, oracles.parse_syscall(text))


@pytest.mark.parametrize("text", ["running\n", "-1 0x7ffc01 0x7f0001\n", "-1 0x0 0x0\n"])
def test_syscall_outside_equals_its_twin(parsers: ctypes.CDLL, text: str) -> None:
    """A thread that runs, or is blocked outside a system call, is told apart."""
    found = Syscall()

    outcome = call(parsers, "syscall", text.encode(), found)

    pointers = found.stack_pointer, found.program_counter
    read = (found.number, tuple(found.arguments), *pointers)
    assert (outcome, read) == (0, oracles.parse_syscall(text))


@given(
    name=st.text(st.sampled_from("ab )(R:1"), max_size=15),
    letter=st.sampled_from("RSDTtZXI"),
    fields=st.lists(st.integers(-5, (1 << 64) - 1), min_size=49, max_size=49),
    known=st.lists(st.integers(0, LARGEST), min_size=6, max_size=6),
)
def test_stat_equals_its_twin(
    parsers: ctypes.CDLL, name: str, letter: str, fields: list[int], known: list[int]
) -> None:
    """A name with brackets and blanks, and addresses beyond 63 bits, move no field."""
    for place, value in zip((6, 8, 15, 18, 35, 37), known, strict=True):
        fields[place] = value
    text = f"77 ({name}) {letter} {' '.join(map(str, fields))}\n"
    found = Stat()

    outcome = call(parsers, "stat", text.encode(), found)

    values = (found.minor, found.major, found.nice, found.start, found.cpu, found.policy)
    assert outcome == 0
    assert (found.name, chr(found.letter), *values) == oracles.parse_stat(text)


@pytest.mark.parametrize(
    "text",
    [
        "nr_periods 7\nnr_throttled 3\nthrottled_time 9123456\n",
        "usage_usec 5\nuser_usec 4\nnr_periods 7\nnr_throttled 3\nthrottled_usec 9123\n",
        "usage_usec 5\nuser_usec 4\nsystem_usec 1\n",
        "nr_periods 0\nnr_throttled 0\nthrottled_time 0\nnr_bursts 0\nburst_time 0\n",
    ],
)
def test_cpu_stat_equals_its_twin(parsers: ctypes.CDLL, text: str) -> None:
    """Both versions come out in ns, and lines that are missing as -1."""
    found = CpuStat()

    call(parsers, "cpu_stat", text.encode(), found)

    assert (found.periods, found.throttled, found.throttled_ns) == oracles.parse_cpu_stat(text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("schedstat", b""),
        ("schedstat", b"1 2"),
        ("schedstat", b"1 2 99999999999999999999"),
        ("syscall", b""),
        ("syscall", b"-2 0x0 0x0"),
        ("syscall", b"45 0x1 0x2 0x3"),
        ("syscall", b"45 0x1 0x2 0x3 0x4 0x5 0x6 0x11112222333344445"),
        ("stat", b"77 no brackets R 1"),
        ("stat", b"77 )( R 1"),
        ("stat", b"77 (a) R 1 2 3"),
    ],
)
def test_parser_refuses_what_it_does_not_understand(
    parsers: ctypes.CDLL, kind: str, text: bytes
) -> None:
    """Text that is cut short or overflows is refused, not guessed."""
    shapes = {"schedstat": Schedstat, "syscall": Syscall, "stat": Stat}

    outcome = call(parsers, kind, text, shapes[kind]())

    assert outcome == errno.EBADMSG


@pytest.mark.parametrize(
    ("link", "inode"),
    [
        (b"socket:[123]", 123),
        (b"pipe:[9]", 9),
        (b"socket:[-5]", 0),
        (b"socket:[ -5]", 0),
        (b"socket:[123", 0),
        (b"socket:[]", 0),
        (b"/tmp/socket:[5]", 0),
        (b"anon_inode:[eventpoll]", 0),
        (b"", 0),
    ],
)
def test_inode_is_that_of_sockets_and_pipes_only(
    parsers: ctypes.CDLL, link: bytes, inode: int
) -> None:
    """Other links give 0."""
    assert parsers.pk_procfile_parse_inode(link, ctypes.c_size_t(len(link))) == inode
