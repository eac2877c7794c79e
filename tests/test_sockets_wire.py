"""Netlink bytes and text tables are hostile: read within bounds, and equal to a plain twin."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import _native
from perfkit.collectors._socket_text import parse_table
from perfkit.collectors.sockets import parse_socket_inode

ROOT = Path(__file__).parent.parent
FACT, DONE, ERROR = 0, 1, 2
FIELDS = ("44I", "52I", "56I", "200Q", "128Q", "156I", "152I", "68I", "148I", "100I", "224I")
FIELDS += ("176Q", "184Q", "168Q", "24I", "228I", "96I", "160Q")
MINIMUM_RTT = 8


def to_datagram(tcp_info: bytes, *, family: int = socket.AF_INET, type_: int = 20) -> bytes:
    """One reply of the kernel: header, inet_diag_msg, and tcp_info as its only attribute."""
    message = struct.pack("<BBBB", family, 1, 0, 0) + struct.pack(">HH", 80, 81)
    message += bytes(32) + struct.pack("<III", 0, 7, 9) + struct.pack("<IIIII", 0, 5, 6, 0, 77)
    attribute = struct.pack("<HH", 4 + len(tcp_info), 2) + tcp_info
    attribute += bytes(-len(attribute) % 4)
    size = 16 + len(message) + len(attribute)
    return struct.pack("<IHHII", size, type_, 0, 3, 0) + message + attribute


def read_counters(tcp_info: bytes) -> list[int]:
    """The plain twin of pk_sockdiag_read_tcp_info, in the order of the table's columns."""
    values = []
    for at, field in enumerate(FIELDS):
        offset, code = int(field[:-1]), field[-1]
        value = -1
        if offset + struct.calcsize("<" + code) <= len(tcp_info):
            value = min(struct.unpack_from("<" + code, tcp_info, offset)[0], 2**63 - 1)
        none_yet = at == MINIMUM_RTT and value == 2**32 - 1
        values.append(-1 if none_yet else value)
    return values


@given(st.binary(max_size=400))
def test_tcp_info_is_read_as_far_as_it_goes(tcp_info: bytes) -> None:
    """Fields that a kernel does not report are -1, the others equal a plain reading."""
    kind, sequence, error, family, state, inode, counters = _native.parse_sock_diag(
        to_datagram(tcp_info)
    )[0]

    assert (kind, sequence, error, family, state, inode) == (FACT, 3, 0, 2, 1, 77)
    assert array("q", counters).tolist() == [5, 6, *read_counters(tcp_info)]


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_within_bounds(datagram: bytes) -> None:
    """Random bytes give some list of messages, never more than could fit."""
    messages = _native.parse_sock_diag(datagram)

    assert len(messages) <= len(datagram) // 16


@given(st.data())
def test_damaged_datagrams_are_parsed_within_bounds(data: st.DataObject) -> None:
    """A reply that is cut or has flipped bytes gives at most as many messages as it held."""
    whole = bytearray(to_datagram(bytes(232)) * 2)
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])

    messages = _native.parse_sock_diag(cut)

    assert len(messages) <= len(cut) // 16


def test_errors_and_the_end_of_a_dump_are_told_apart() -> None:
    """NLMSG_ERROR carries an errno, NLMSG_DONE ends a dump."""
    error = struct.pack("<IHHIIi", 20, 2, 0, 5, 0, -2)
    done = struct.pack("<IHHIIi", 20, 3, 0, 6, 0, 0)

    messages = _native.parse_sock_diag(error + done)

    assert messages == [(ERROR, 5, 2), (DONE, 6, 0)]


def call(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, whatever that is."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.system
def test_parser_and_table_survive_the_sanitizers(tmp_path: Path) -> None:
    """300,000 damaged datagrams and 300,000 steps of the table raise no fault under ASan, UBSan."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    sources = [ROOT / "tests/native/fuzz_sockets.c", ROOT / "native/pk_sockdiag.c"]
    parts = ("address", "batch", "peers", "rows", "table")
    sources += [ROOT / f"native/pk_socket_{name}.c" for name in parts]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=all", f"-I{ROOT / 'native'}"]
    program = tmp_path / "fuzz"
    built = call([gcc, *flags, *sources, "-o", program])
    if "cannot find" in built.stderr:
        pytest.skip("needs gcc's sanitizer libraries")
    assert built.returncode == 0, built.stderr

    seed = int.from_bytes(os.urandom(4))
    ran = call([program, str(seed), "300000"])

    assert ran.returncode == 0, f"seed {seed}: {ran.stderr}"


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 4242 1 0
   1: 0100007F:1F90 0200007F:C350 01 0000000A:00000005 00:00000000 00000000     0        0 77 1 0
   2: not a line
"""


def test_text_table_tells_queues_and_inodes() -> None:
    """A line of /proc/PID/net/tcp gives addresses, state, queues and inode; bad lines are left."""
    listener, connection = parse_table(TABLE, "tcp4")

    assert (listener.local, listener.state, listener.receive_queue_bytes) == (
        ("127.0.0.1", 8080),
        10,
        3,
    )
    assert connection.peer == ("127.0.0.2", 50000)
    assert (connection.send_queue_bytes, connection.receive_queue_bytes) == (10, 5)
    assert connection.inode == 77


@given(st.text(max_size=300))
def test_any_text_is_a_table(text: str) -> None:
    """Whatever a table says, reading it raises nothing."""
    assert len(parse_table(text, "tcp6")) <= len(text)


@pytest.mark.parametrize(
    ("link", "inode"),
    [
        ("socket:[123]", 123),
        ("socket:[x]", 0),
        ("socket:[" + "9" * 40 + "]", 0),
        ("pipe:[5]", 0),
        ("", 0),
    ],
)
def test_only_socket_links_have_an_inode(link: str, inode: int) -> None:
    """Links are text of another process's making: only exact socket links count."""
    assert parse_socket_inode(link) == inode
