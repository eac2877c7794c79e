"""How long `perfkit diagnose HOST` takes beside its window, over a real ssh to an sshd of its own.

Each run is one diagnosis of 10 s; the times are those from its start to the far end's agent, to the
window, and from the window's end to the end of the agent and to the printed report. In two cases a
relay between them delays what is sent by 50 ms each way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parents[1]))

import crowd
from measuring import alone
from sshd import AGENT, Hosts, find_port, serving, to_environment, to_options

HOST = "measured"
ADDRESS = "127.0.0.1"
FAR_DELAY_S = 0.05
SETTLE_S = 2.0
PERFKIT = (sys.executable, "-m", "perfkit")
COLUMNS = ("case", "runs", "ssh", "agent's start", "capture after", "report after", "verdict")


class Case(Struct, frozen=True):
    """The size of the service that is diagnosed, and whether the link to it is slow."""

    threads: int = 24
    sockets: int = 50
    is_far: bool = False


class Times(Struct, frozen=True):
    """The four parts of one run, and what it found."""

    ssh_s: float
    start_s: float
    capture_s: float
    report_s: float
    state: str


CASES = {
    "small": Case(),
    "small-far": Case(is_far=True),
    "large": Case(500, 4000),
    "large-far": Case(500, 4000, is_far=True),
}


# Passes bytes on, each a while after it came: a far host, as near as loopback gives one.
RELAY = """
import asyncio, sys
port, delay_s = int(sys.argv[1]), float(sys.argv[2])

async def copy(reader, writer):
    loop = asyncio.get_running_loop()
    while part := await reader.read(1 << 16):
        loop.call_later(delay_s, writer.write, part)
    await asyncio.sleep(delay_s)
    writer.close()

async def serve(reader, writer):
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def reach(case: Case, folder: Path, stack: ExitStack) -> Hosts:
    """Starts an sshd and gives the user who reaches it."""
    port = find_port()
    stack.enter_context(serving(folder, ADDRESS, port))
    if case.is_far:
        relay = stack.enter_context(crowd.python(RELAY, port, FAR_DELAY_S))
        port = int(crowd.read_word(relay))
    hosts = Hosts(folder, to_environment(folder))
    hosts.add(HOST, *to_options(folder, ADDRESS, port))
    log = folder / "times"
    text = f'date +%s.%N > {log}; {AGENT} "$@"; code=$?; date +%s.%N >> {log}; exit $code'
    hosts.configure(HOST, f'agent = "{hosts.script("timed-agent", text)}"')
    return hosts


def measure(hosts: Hosts, pid: int, seconds: float) -> Times:
    """One diagnosis of a service on the other host."""
    begin_s = time.time()
    named = ["--pid", str(pid), "--seconds", f"{seconds:g}", "--json", "-q"]
    command = [*PERFKIT, "diagnose", HOST, *named]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=hosts.environment, check=True)
    end_s = time.time()
    report = json.loads(done.stdout)
    window = report["window"]
    agent_s, sent_s = map(float, (hosts.folder / "times").read_text().split())
    closed_s = to_seconds(window["end"])
    return Times(
        agent_s - begin_s,
        to_seconds(window["start"]) - agent_s,
        sent_s - closed_s,
        end_s - closed_s,
        report["causes"][0]["id"] if report["causes"] else report["verdict"]["state"],
    )


def to_seconds(instant: str) -> float:
    """The UTC time of an RFC 3339 text."""
    return datetime.fromisoformat(instant).timestamp()


def to_cell(numbers: list[float]) -> str:
    """The median of some seconds, and their range."""
    ordered = sorted(numbers)
    return f"{statistics.median(ordered):.2f} s ({ordered[0]:.2f} to {ordered[-1]:.2f})"


def to_row(name: str, found: list[Times]) -> str:
    """One row of the table."""
    cells = [name, str(len(found))]
    for field in ("ssh_s", "start_s", "capture_s", "report_s"):
        cells.append(to_cell([getattr(one, field) for one in found]))
    cells.append(", ".join(sorted({one.state for one in found})))
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Measures the cases asked for and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(CASES), action="append", help="these cases")
    parser.add_argument("--runs", type=int, default=5, help="of each case")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each window")
    values = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |", flush=True)
    print("|---" * len(COLUMNS) + "|", flush=True)
    for name in values.only or CASES:
        case = CASES[name]
        with ExitStack() as stack:
            stack.enter_context(alone())
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="perfkit-bench-"))
            hosts = reach(case, Path(folder), stack)
            pid = stack.enter_context(crowd.serving(case.threads, case.sockets))
            time.sleep(SETTLE_S)
            found = [measure(hosts, pid, values.seconds) for _ in range(values.runs)]
            print(to_row(name, found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
