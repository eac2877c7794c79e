"""perfkit-agent as a program: what it needs, what it says, and that it ends with its pipe."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfkit import __version__
from perfkit.agent.wire import Hello, Refusal, Sending, Step, parse_line, to_line
from perfkit.codec import decode

START = (sys.executable, "-c", "from perfkit.agent.command import start; start()")
# What only readers of captures need; an agent host has none of it.
READER = ("typer", "click", "rich", "numpy", "perfkit.cli", "perfkit.analysis", "perfkit.export")
IDLE = "import time; print('ready', flush=True); time.sleep(60)"

Agent = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def agent() -> Agent:
    """Runs the agent with its stdin at an end."""

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        settings = {"capture_output": True, "timeout": 30, "stdin": subprocess.DEVNULL, **more}
        return subprocess.run([*START, *arguments], check=False, **settings)

    return run


@pytest.fixture
def idle(spawn: Callable[..., Any]) -> str:
    """The pid of a process that does nothing."""
    return str(spawn(IDLE).pid)


def attach(*arguments: str) -> subprocess.Popen[bytes]:
    """An agent at the other end of a pipe."""
    return subprocess.Popen(
        [*START, *arguments, "--attached"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def hear(said: bytes) -> list[Any]:
    """The messages among the lines of stderr."""
    return [one for one in map(parse_line, said.splitlines()) if one is not None]


def test_version_is_told(agent: Agent) -> None:
    """Whoever installs agents can ask which one there is."""
    assert agent("--version").stdout.decode().strip() == f"perfkit-agent {__version__}"


@pytest.mark.parametrize("command", ["record", "doctor"])
def test_reader_is_never_imported(command: str, idle: str) -> None:
    """An agent host needs none of the packages that reports need."""
    program = (
        "import sys\nfrom perfkit.agent.command import main\n"
        f"main([{command!r}, '--pid', {idle!r}] + ['--seconds', '0.2'] * ({command!r} == 'record'))"
        f"\nprint([one for one in {READER!r} if one in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stderr.decode().splitlines()[-1] == "[]"


def test_capture_goes_to_stdout(agent: Agent, idle: str) -> None:
    """Without further words the capture is what stands on stdout, and nothing else."""
    done = agent("record", "--pid", idle, "--seconds", "0.3")

    assert done.returncode == 0, done.stderr
    assert decode(done.stdout).header.target.main_pid == int(idle)
    assert done.stderr == b""


def test_capture_goes_to_a_file(agent: Agent, idle: str, tmp_path: Path) -> None:
    """-o FILE writes the file whole, and leaves no draft."""
    path = tmp_path / "one.capture"

    done = agent("record", "--pid", idle, "--seconds", "0.3", "-o", str(path))

    assert done.stdout == b""
    assert decode(path.read_bytes()).header.requested_s == 0.3
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_absent_is_told(agent: Agent, idle: str) -> None:
    """A capture that cannot be written is a line, not a traceback."""
    done = agent("record", "--pid", idle, "--seconds", "0.3", "-o", "/no/such/folder/x")

    assert done.returncode == 3
    assert done.stderr.startswith(b"error: cannot write /no/such/folder/x: no such file")
    assert b"\n  fix     name a file in a folder that is there" in done.stderr


def test_terminal_is_spared(idle: str) -> None:
    """Bytes of a capture never reach a terminal."""
    master, slave = pty.openpty()

    done = subprocess.run(
        [*START, "record", "--pid", idle], stdout=slave, stderr=subprocess.PIPE, check=False
    )

    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: a capture is not for a terminal")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("record", "--pid", "4194303"), 3, "error: no process has the pid 4194303"),
        (("record", "--seconds", "0"), 2, "error: a window of 0 s is not above 0"),
        (("record", "--seconds", "nan"), 2, "error: a window of nan s is not above 0"),
        (("record", "--only-pid"), 2, "error: --only-pid narrows --pid"),
        (("doctor", "--pid", "4194303"), 3, "error: no process has the pid 4194303"),
        ((), 2, "error: the following arguments are required: COMMAND"),
        (("recrod",), 2, "error: argument COMMAND: invalid choice: 'recrod'"),
        (("record", "--nope"), 2, "error: unrecognized arguments: --nope"),
        (("record", "--pid", "x"), 2, "error: argument --pid: invalid int value: 'x'"),
    ],
)
def test_error_is_a_line(agent: Agent, arguments: tuple[str, ...], code: int, told: str) -> None:
    """What is wrong is one line; what to do stands below it."""
    done = agent(*arguments)

    assert done.returncode == code
    assert done.stderr.decode().startswith(told)
    assert done.stderr.decode().splitlines()[1].startswith("  fix     ")
    assert b"Traceback" not in done.stderr


def test_wrong_command_line_leads_to_the_help(agent: Agent) -> None:
    """Whoever mistypes on an agent host is sent to the help of the command."""
    assert agent("record", "--nope").stderr.splitlines()[1] == b"  fix     perfkit-agent --help"


def test_doctor_writes_json(agent: Agent, idle: str) -> None:
    """Every source has its line, on the process that was named."""
    found = json.loads(agent("doctor", "--pid", idle).stdout)

    assert found["schema"] == "perfkit.doctor/1"
    assert {one["source"] for one in found["checks"]} >= {"cpu", "threads", "sockets"}
    assert found["target"].startswith(f"pid {idle} ")


def test_ctrl_c_keeps_what_there_is(idle: str) -> None:
    """Stopped by hand, the agent still writes its capture."""
    child = subprocess.Popen(
        [*START, "record", "--pid", idle, "--seconds", "50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(2.0)

    child.send_signal(signal.SIGINT)
    out, said = child.communicate(timeout=10)

    assert child.returncode == 130, said
    assert decode(out).header.interrupted.startswith("stopped after ")


# At the other end of a pipe


def test_attached_agent_says_how_it_goes(idle: str) -> None:
    """Hello first, then how far it is, then how much is coming, then just that."""
    child = attach("record", "--pid", idle, "--seconds", "1.2", "--reached-as", "host-1")
    assert child.stdout is not None and child.stderr is not None and child.stdin is not None

    out, said = child.stdout.read(), child.stderr.read()

    child.stdin.close()
    child.wait()
    messages = hear(said)
    assert [type(one) for one in messages[:2]] == [Hello, Step]
    assert messages[-1] == Sending(len(out))
    assert decode(out).header.reached_as == "host-1"


def test_attached_agent_refuses_in_the_same_way() -> None:
    """The program at the other end learns what a user would read."""
    child = attach("record", "--pid", "4194303")

    _, said = child.communicate(timeout=10)

    assert child.returncode == 3
    assert isinstance(hear(said)[-1], Refusal)
    assert hear(said)[-1].what == "no process has the pid 4194303"


def test_line_on_stdin_asks_for_an_early_end(idle: str) -> None:
    """The capture of the time so far still comes, whole."""
    child = attach("record", "--pid", idle, "--seconds", "50")
    time.sleep(2.0)
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None

    child.stdin.write(b"stop\n")
    child.stdin.flush()
    out = child.stdout.read()

    child.stderr.close()
    child.stdout.close()
    child.stdin.close()
    child.wait()
    assert decode(out).header.interrupted.startswith("stopped after ")


@pytest.mark.parametrize("end", ["stdin", "stdout"])
def test_agent_ends_with_its_pipe(idle: str, end: str) -> None:
    """When either end closes, nobody waits any more, and the agent is gone within seconds."""
    child = attach("record", "--pid", idle, "--seconds", "50")
    time.sleep(1.5)
    begin_s = time.monotonic()

    getattr(child, end).close()
    code = child.wait(timeout=10)

    took_s = time.monotonic() - begin_s
    for stream in (child.stdin, child.stdout, child.stderr):
        assert stream is not None
        stream.close()
    assert code == 130
    assert took_s < 5


def test_agent_whose_reader_stops_reading_ends_too(idle: str) -> None:
    """A reader that hangs and then dies does not leave a writer behind."""
    child = attach("record", "--pid", idle, "--seconds", "0.5")
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    time.sleep(2.5)

    child.stdin.close()
    code = child.wait(timeout=10)

    child.stdout.close()
    child.stderr.close()
    assert code in (0, 130)


@pytest.mark.parametrize(
    "message",
    [
        Hello(1, "0.1.0"),
        Step(1.0, 10.0, 3, 4, 2.5, 'n"ote\n'),
        Sending(7),
        Refusal("what", "fix", "effect", 2),
    ],
)
def test_message_is_one_line_and_comes_back(message: Any) -> None:
    """What is written is what is read, whatever text it holds."""
    line = to_line(message)

    assert line.count(b"\n") == 1
    assert parse_line(line.rstrip(b"\n")) == message
