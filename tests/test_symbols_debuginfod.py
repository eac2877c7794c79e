"""A debuginfod server is asked only where the user set one, and is believed only so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from elf_programs import compile_program, run
from test_symbols import build_id_of, locate

from perfkit.symbols.debuginfod import Servers, parse_servers
from perfkit.symbols.symbolizer import Settings, Symbolizer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """A server on this host, which sends `program` for its build-id, and `tricks` for others."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / "served" / self.path.strip("/").replace("/", "_")
            self.send_response(200 if path.exists() else 404)
            self.end_headers()
            self.wfile.write(path.read_bytes() if path.exists() else b"")
            time.sleep(0.01)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    (tmp_path / "served").mkdir()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.parametrize(
    ("sent", "limit_bytes", "wanted"),
    [
        ("program", 1 << 30, "debuginfod"),
        ("other", 1 << 30, "sent build-id"),
        ("program", 1_000, "more than 1000 bytes"),
        ("", 1 << 30, "HTTP 404"),
    ],
)
def test_server_is_believed_by_build_id(
    tmp_path: Path, server: ThreadingHTTPServer, sent: str, limit_bytes: int, wanted: str
) -> None:
    """What is sent names functions if it has the build-id and a size that is allowed."""
    program = compile_program(tmp_path / "program")
    compile_program(tmp_path / "other", "-O0", "-Wl,-z,now")
    bare = tmp_path / "bare"
    run("strip", "-o", bare, program)
    served = tmp_path / "served" / f"buildid_{build_id_of(program)}_debuginfo"
    _ = sent and served.write_bytes((tmp_path / sent).read_bytes())
    url = f"http://127.0.0.1:{server.server_address[1]}"
    servers = Servers((url,), timeout_s=30, limit_bytes=limit_bytes)

    found = Symbolizer(Settings(servers=servers)).name(locate(bare, "hidden_work", of=program))

    assert wanted in (found.source or found.note)


def test_servers_are_those_of_the_variable() -> None:
    """Only what is reached by HTTP counts; a file or another scheme does not."""
    found = parse_servers("https://a/ file:///etc ftp://b http://c")

    assert found == ("https://a", "http://c")
