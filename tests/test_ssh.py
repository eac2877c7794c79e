"""Other hosts over ssh, against a real sshd: what comes back, and what is said if nothing does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from sshd import AGENT, Hosts, find_port, serving, to_environment, to_options

from perfkit.codec import MAGIC, decode
from perfkit.config import load_config
from perfkit.errors import FetchError, UsageError
from perfkit.fetch import ssh
from perfkit.fetch._inbox import NOISE_LIMIT_BYTES, Inbox, Journal
from perfkit.fetch.ssh import SshOptions, check_host, fetch

PERFKIT = (sys.executable, "-m", "perfkit")
HOST = "shard-7"
# A service: one listener, one connection, and some work.
SERVICE = """
import socket, threading, time
listener = socket.create_server(("127.0.0.1", 0))
mine = socket.create_connection(listener.getsockname())
theirs, _ = listener.accept()
def burn():
    while True:
        sum(range(2000)); time.sleep(0.002)
threading.Thread(target=burn, daemon=True).start()
print("ready", flush=True)
while True:
    mine.send(b"x"); theirs.recv(1); theirs.send(b"y"); mine.recv(1); time.sleep(0.005)
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """One sshd for all tests of this file: its folder and its port."""
    folder, port = tmp_path_factory.mktemp("sshd"), find_port()
    with serving(folder, "127.0.0.1", port):
        yield folder, port


def to_user(server: tuple[Path, int], home: Path) -> Hosts:
    """A user who knows one host, on which the agent is where it was installed."""
    folder, port = server
    found = Hosts(home, to_environment(home))
    found.add(HOST, *to_options(folder, "127.0.0.1", port))
    found.configure(HOST, f'agent = "{AGENT}"')
    return found


def run_perfkit(
    user: Hosts, arguments: tuple[str, ...], **more: Any
) -> subprocess.CompletedProcess[str]:
    """Runs perfkit as that user."""
    settings = {"capture_output": True, "text": True, "timeout": 60, **more}
    return subprocess.run([*PERFKIT, *arguments], check=False, env=user.environment, **settings)


@pytest.fixture
def hosts(server: tuple[Path, int], tmp_path: Path) -> Hosts:
    """A user of the test's own."""
    return to_user(server, tmp_path)


@pytest.fixture
def perfkit(hosts: Hosts) -> Run:
    """Runs perfkit as that user."""

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return run_perfkit(hosts, arguments, **more)

    return run


@pytest.fixture
def service(spawn: Callable[..., Any]) -> int:
    """The pid of a small service."""
    return int(spawn(SERVICE).pid)


def pretend(hosts: Hosts, text: str) -> None:
    """Puts another program in the agent's place."""
    hosts.configure(HOST, f'agent = "{hosts.script("pretender", text)}"')


def find_agents(word: str) -> list[psutil.Process]:
    """The agents that were asked by this name."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line[1:2] == [str(AGENT)] and word in line:
            found.append(process)
    return found


def find_samplers(pid: int) -> list[psutil.Process]:
    """What an agent starts to look at a process, and must end."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any("py-spy" in word for word in process.info["cmdline"] or [])
        and str(pid) in process.info["cmdline"]
    ]


def await_until(promise: Callable[[], Any], limit_s: float) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if promise():
            return True
        time.sleep(0.05)
    return False


# What comes back


class Diagnosed(NamedTuple):
    """One diagnosis of another host: of which process, what came of it, and how long it took."""

    pid: int
    folder: Path
    done: subprocess.CompletedProcess[str]
    took_s: float


@pytest.fixture(scope="module")
def diagnosed(
    server: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Diagnosed]:
    """A window of 2 s of a service behind the sshd, diagnosed once for all tests of its report."""
    folder = tmp_path_factory.mktemp("diagnosed")
    user = to_user(server, folder)
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        begin_s = time.monotonic()
        arguments = ("diagnose", HOST, "--pid", str(child.pid), "--seconds", "2", "--json")
        done = run_perfkit(user, arguments)
        yield Diagnosed(child.pid, folder, done, time.monotonic() - begin_s)
        child.kill()


def test_diagnosis_of_another_host_is_one_of_its_service(diagnosed: Diagnosed) -> None:
    """A host's name in the place of the dot gives the same report, with commands for that host."""
    report = json.loads(diagnosed.done.stdout)

    assert diagnosed.done.returncode == 0, diagnosed.done.stderr
    assert report["target"]["pid"] == diagnosed.pid
    assert report["target"]["reached_as"] == HOST
    assert f"sampled {HOST} pid {diagnosed.pid}" in diagnosed.done.stderr


def test_commands_that_are_printed_name_the_host(
    server: tuple[Path, int], diagnosed: Diagnosed
) -> None:
    """What the report says to type next works from where it was read."""
    done = run_perfkit(to_user(server, diagnosed.folder), ("report", "last"))

    assert f"perfkit diagnose {HOST} --pid {diagnosed.pid}" in done.stdout


def test_report_comes_within_5_s_after_the_window(diagnosed: Diagnosed) -> None:
    """Going through ssh costs little beside the window itself."""
    assert diagnosed.done.returncode == 0, diagnosed.done.stderr
    assert diagnosed.took_s < 2 + 5


def test_capture_is_kept_whole(perfkit: Run, service: int, tmp_path: Path) -> None:
    """`record` keeps what the agent recorded, with what it was asked for."""
    path = tmp_path / "one.capture"

    done = perfkit(
        *("record", HOST, "--pid", str(service), "--only-pid", "--seconds", "1", "--no-probe"),
        *("-o", str(path)),
    )

    header = decode(path.read_bytes()).header
    assert done.returncode == 0, done.stderr
    assert (header.reached_as, header.requested_s) == (HOST, 1.0)
    assert header.target.kind == "process"
    assert "switched off with --no-probe" in {one.reason for one in header.statuses}


def test_noise_around_the_capture_is_skipped(perfkit: Run, hosts: Hosts, service: int) -> None:
    """Banners and start-up files that print do no harm, before, beside or behind the capture."""
    pretend(hosts, f'echo "Welcome to PERFKIT"; echo hm >&2; {AGENT} "$@"; echo bye; sleep 0.2')

    done = perfkit("record", HOST, "--pid", str(service), "--seconds", "0.5")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(service))


def test_agent_in_a_folder_of_any_name_is_run(
    perfkit: Run, hosts: Hosts, service: int, tmp_path: Path
) -> None:
    """The far end's shell reads nothing into the path of the agent."""
    script = hosts.script("a b/$(touch pwned);'c/agent", f'exec {AGENT} "$@"')
    hosts.configure(HOST, f"agent = {json.dumps(str(script))}")

    done = perfkit("record", HOST, "--pid", str(service), "--seconds", "0.5", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert not (Path.home() / "pwned").exists()
    assert not (tmp_path / "pwned").exists()


def test_connection_that_ssh_keeps_is_not_waited_for(
    perfkit: Run, hosts: Hosts, server: tuple[Path, int], service: int
) -> None:
    """A shared connection that stays open in the background does not hold up the report."""
    folder, port = server
    socket_path = hosts.folder / "s"
    hosts.add(
        "kept",
        *to_options(folder, "127.0.0.1", port),
        *("ControlMaster auto", f"ControlPath {socket_path}", "ControlPersist 60"),
    )
    hosts.configure("kept", f'agent = "{AGENT}"')
    begin_s = time.monotonic()

    done = perfkit("record", "kept", "--pid", str(service), "--seconds", "0.5")

    took_s = time.monotonic() - begin_s
    leave = ["ssh", "-F", str(hosts.folder / "ssh_config"), "-O", "exit", "kept"]
    subprocess.run(leave, check=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert took_s < 10


# What is refused before anything runs


@pytest.mark.parametrize(
    "host",
    [
        "-oProxyCommand=touch pwned",
        "--",
        "a;touch pwned",
        "$(touch pwned)",
        "a b",
        "a\nb",
        "\x1b[31m",
        "a`b`",
        "a/b",
        "",
        "h" * 300,
        "b\u00fccher",
    ],
)
def test_what_is_no_host_name_is_refused(host: str) -> None:
    """No option, no shell's word and no control character is ever handed to ssh."""
    with pytest.raises(UsageError, match="is no host's name"):
        check_host(host)


@pytest.mark.parametrize(
    "host",
    ["host-123", "root@10.0.0.7", "a.b_c", "ssh://root@h:2222", "fe80::1%eth0", "[::1]"],
)
def test_host_names_are_accepted(host: str) -> None:
    """Whatever ssh takes for a host is one."""
    check_host(host)


def test_number_is_taken_for_a_forgotten_option(perfkit: Run) -> None:
    """Whoever types a pid in the host's place is shown how to say it, and nothing is asked."""
    done = perfkit("diagnose", "48213")

    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: '48213' is no host; a process is named with --pid"
    )
    assert "perfkit diagnose . --pid 48213" in done.stderr


def test_option_in_the_place_of_a_host_is_never_run(perfkit: Run, tmp_path: Path) -> None:
    """A name that begins with a dash reaches no program."""
    done = perfkit("diagnose", "--", f"-oProxyCommand=touch {tmp_path}/pwned")

    assert done.returncode == 2
    assert not (tmp_path / "pwned").exists()


# What goes wrong, a clear line each


TROUBLE = {
    "not installed": ("exec no-such-agent", 3, f" is not installed on {HOST}"),
    "other version": (
        f'exec {AGENT} record --no-such-option "$@"',
        3,
        f"perfkit-agent on {HOST} is another version and does not know what was asked",
    ),
    "no agent": ("echo hello; exit 0", 3, f"what ran on {HOST} is no perfkit-agent (exit code 0)"),
    "flood": ("yes", 3, "B that are no capture"),
    "flood of words": ("yes perfkit >&2", 3, "B that are no capture"),
    "cut": (
        f'{AGENT} "$@" | head -c 2000',
        3,
        f"the capture of {HOST} was cut off: 2.00 kB of ",
    ),
    "dies": (
        """echo '@perfkit {"type":"hello","protocol":1,"perfkit_version":"0"}' >&2; exit 7""",
        3,
        f"perfkit-agent on {HOST} ended without a capture (exit code 7)",
    ),
    "later protocol": (
        """echo '@perfkit {"type":"hello","protocol":2,"perfkit_version":"9.1"}' >&2; exit 0""",
        3,
        f"perfkit-agent 9.1 on {HOST} does not fit perfkit ",
    ),
    "later capture": (
        "printf 'PERFKIT\\n\\xff\\x00                  '; "
        'echo \'@perfkit {"type":"sending","size_bytes":28}\' >&2; sleep 0.3',
        3,
        f"{HOST}: capture of version 255, this perfkit reads up to 1",
    ),
    "nonsense": (
        "printf 'PERFKIT\\n\\x01\\x00\\xff\\xff\\xff\\xff          '; "
        'echo \'@perfkit {"type":"sending","size_bytes":24}\' >&2; sleep 0.3',
        3,
        f"{HOST}: damaged or truncated capture",
    ),
    "steering": (r"printf '\x1b[31mred\n' >&2; exit 9", 3, r"(exit code 9): \x1b[31mred"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_one_clear_line(perfkit: Run, hosts: Hosts, service: int, name: str) -> None:
    """Whatever the far end does, one line says what happened, and the next what to do."""
    text, code, told = TROUBLE[name]
    pretend(hosts, text)

    done = perfkit("record", HOST, "--pid", str(service), "--seconds", "0.5", "--quiet")

    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert lines[0].startswith("error: ") and told in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["effect", "fix"]
    assert "\x1b" not in done.stderr
    assert done.stdout == ""


def test_missing_agent_says_how_to_get_one(perfkit: Run, hosts: Hosts) -> None:
    """Without configuration the agent is looked for on the far end's PATH."""
    hosts.configure(HOST, 'agent = "perfkit-agent-of-nobody"')

    done = perfkit("diagnose", HOST, "--seconds", "2.2", "--quiet")

    assert done.stderr.splitlines()[0] == (
        f"error: perfkit-agent-of-nobody is not installed on {HOST}"
    )
    assert f'[hosts."{HOST}"] agent = "/path/to/perfkit-agent"' in done.stderr


def test_far_ends_own_error_is_passed_on(perfkit: Run) -> None:
    """A pid that is gone there is told as it is here, with the host's name."""
    done = perfkit("diagnose", HOST, "--pid", "4194303", "--seconds", "2.2", "--quiet")

    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == f"error: {HOST}: no process has the pid 4194303"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'sudo: a password is required' >&2; exit 1", "sudo: a password is required"),
        ("echo 'sudo: perfkit-agent: command not found' >&2; exit 1", "is not installed on"),
    ],
)
def test_sudo_that_refuses_is_told(
    perfkit: Run, hosts: Hosts, server: tuple[Path, int], script: str, told: str
) -> None:
    """Without the right to run it as root, the line says what sudo said."""
    hosts.script("bin/sudo", script)
    folder, port = server
    hosts.add("as-root", *to_options(folder, "127.0.0.1", port))
    hosts.configure("as-root", f'agent = "{AGENT}"', "sudo = true")
    bashrc = f"export PATH={hosts.folder}/bin:$PATH"
    wrapper = hosts.script("ssh", f'last="${{@: -1}}"; exec ssh "${{@:1:$#-1}}" "{bashrc}; $last"')
    hosts.environment["PERFKIT_SSH_COMMAND"] = str(wrapper)

    done = perfkit("diagnose", "as-root", "--seconds", "2.2", "--quiet")

    assert done.returncode == 3
    assert told in done.stderr.splitlines()[0]


def test_agent_is_run_by_sudo_where_that_is_said(
    perfkit: Run, hosts: Hosts, service: int, tmp_path: Path
) -> None:
    """`sudo = true` puts `sudo -n` before the agent, and the capture comes through it."""
    tried = ["sudo", "-n", "true"]
    if shutil.which("sudo") is None or subprocess.run(tried, check=False).returncode:
        pytest.skip("needs sudo without a password")
    log = tmp_path / "who"
    script = hosts.script("as-whom", f'echo "$SUDO_COMMAND" > {log}; exec {AGENT} "$@"')
    hosts.configure(HOST, f'agent = "{script}"', "sudo = true")

    done = perfkit("record", HOST, "--pid", str(service), "--seconds", "0.5")

    assert done.returncode == 0, done.stderr
    assert log.read_text().startswith(f"{script} record -o - --attached")


def test_closed_port_is_told_in_the_words_of_ssh(perfkit: Run, hosts: Hosts) -> None:
    """A host that refuses is told from one that lacks the agent."""
    hosts.add("closed", "HostName 127.0.0.1", f"Port {find_port()}")

    done = perfkit("diagnose", "closed", "--quiet")

    assert done.returncode == 3
    assert done.stderr.startswith("error: cannot reach closed: ssh: connect to host 127.0.0.1")
    assert "ssh -o BatchMode=yes -- closed true" in done.stderr


def test_unknown_name_is_told_in_the_words_of_ssh(perfkit: Run) -> None:
    """A name that nobody knows is no traceback."""
    done = perfkit("diagnose", "no-such-host.invalid", "--quiet")

    assert done.returncode == 3
    assert "error: cannot reach no-such-host.invalid: ssh: Could not resolve" in done.stderr


def test_missing_ssh_is_told(perfkit: Run, hosts: Hosts) -> None:
    """Without ssh the line says what to install."""
    hosts.environment["PERFKIT_SSH_COMMAND"] = "ssh-of-nobody"

    done = perfkit("diagnose", HOST, "--quiet")

    assert done.returncode == 3
    assert done.stderr.startswith("error: cannot run 'ssh-of-nobody': no such file or directory")


def options_of(hosts: Hosts, **more: Any) -> SshOptions:
    """What to ask the host for, as that user."""
    config = load_config((hosts.folder / "perfkit" / "config.toml",), hosts.environment)
    return SshOptions(host=HOST, config=config, **more)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cat > /dev/null", f"no answer from {HOST}"),
        (
            """echo '@perfkit {"type":"hello","protocol":1,"perfkit_version":"0"}' >&2; """
            "cat > /dev/null",
            f"{HOST} went silent before its capture came",
        ),
        (
            f'{AGENT} "$@" | (head -c 2000; cat <&3 > /dev/null) 3<&0',
            f"the capture of {HOST} was cut off",
        ),
    ],
)
def test_host_that_hangs_is_given_up(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    """Nothing is waited for without end, and no ssh stays behind."""
    pretend(hosts, text)
    monkeypatch.setattr(ssh, "ANSWER_LIMIT_S", 3.0)
    monkeypatch.setattr(ssh, "SILENCE_LIMIT_S", 1.5)
    begin_s = time.monotonic()

    with pytest.raises(FetchError) as caught:
        fetch(options_of(hosts, seconds=0.3))

    assert told in caught.value.what
    assert time.monotonic() - begin_s < 12


def test_flood_behind_the_magic_is_cut_off(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A far end that never ends its capture fills no memory."""
    pretend(hosts, "printf 'PERFKIT\\n\\x01\\x00'; yes")
    monkeypatch.setattr("perfkit.fetch._inbox.CAPTURE_LIMIT_BYTES", 1 << 20)

    with pytest.raises(FetchError, match="that are no capture"):
        fetch(options_of(hosts, seconds=0.3))


# The end


def test_ctrl_c_gives_a_report_of_what_there_is(hosts: Hosts, service: int) -> None:
    """The first Ctrl-C ends the window on the other host, and its capture still comes."""
    child = subprocess.Popen(
        [*PERFKIT, "diagnose", HOST, "--pid", str(service), "--seconds", "50", "--json"],
        env=hosts.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert await_until(lambda: find_agents(HOST), 10)
    time.sleep(2.0)

    os.killpg(child.pid, signal.SIGINT)
    out, said = child.communicate(timeout=20)

    assert child.returncode == 130, said
    assert json.loads(out)["window"]["interrupted"].startswith("stopped after ")
    assert await_until(lambda: not find_agents(HOST), 5)


def test_ctrl_c_before_an_answer_ends_at_once(hosts: Hosts) -> None:
    """A host that does not answer is not waited for by somebody who has had enough."""
    pretend(hosts, "cat > /dev/null")
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    begin_s = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        fetch(options_of(hosts, seconds=5.0, stop=stop))

    assert time.monotonic() - begin_s < 6


@pytest.mark.parametrize("victim", ["perfkit", "ssh"])
def test_agent_ends_when_nobody_waits_for_it(hosts: Hosts, service: int, victim: str) -> None:
    """Whoever is killed, nothing is left running on the other host."""
    child = subprocess.Popen(
        [*PERFKIT, "record", HOST, "--pid", str(service), "--seconds", "50", "--quiet"],
        env=hosts.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert await_until(lambda: find_agents(HOST), 10)
    time.sleep(1.0)
    clients = psutil.Process(child.pid).children()

    (child if victim == "perfkit" else clients[0]).kill()

    assert await_until(lambda: not find_agents(HOST), 8)
    assert await_until(lambda: not find_samplers(service), 3)
    assert await_until(lambda: not any(one.is_running() for one in clients), 5)
    child.wait(10)


# Many hosts


def test_several_targets_give_a_run_each(perfkit: Run, hosts: Hosts, service: int) -> None:
    """One that is silent is named, and the others are kept."""
    hosts.add("closed", "HostName 127.0.0.1", f"Port {find_port()}")

    done = perfkit("record", HOST, ".", "closed", "--pid", str(service), "--seconds", "1")

    targets = {line.split()[0] for line in done.stdout.splitlines()}
    assert done.returncode == 4
    assert targets == {HOST, "."}
    assert "error: cannot reach closed: " in done.stderr
    assert done.stderr.splitlines()[-1] == "kept 2 runs; none from closed (1x)"


def test_rounds_stand_on_the_wall_clock(perfkit: Run, hosts: Hosts, service: int) -> None:
    """The second round begins where the clock says, a little jitter and a connection later."""
    done = perfkit(
        *("record", HOST, "--pid", str(service), "--seconds", "0.5"),
        *("--every", "6s", "--rounds", "2"),
    )

    folder = hosts.folder / "state" / "perfkit" / "runs"
    starts = sorted(
        decode(path.read_bytes()).header.clock.start_utc_ns / 1e9
        for path in folder.glob("*.capture")
    )
    assert done.returncode == 0, done.stderr
    assert len(starts) == 2
    assert starts[1] % 6 < 3
    assert starts[1] - starts[0] < 14
    assert done.stderr.splitlines()[-1] == "kept 2 runs"


def test_ctrl_c_ends_a_periodic_job_after_its_round(hosts: Hosts, service: int) -> None:
    """The round that runs is finished and kept, and a summary says what there is."""
    command = ["record", HOST, "--pid", str(service), "--seconds", "1", "--every", "1h"]
    child = subprocess.Popen(
        [*PERFKIT, *command],
        env=hosts.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert await_until(lambda: find_agents(HOST), 15)

    os.killpg(child.pid, signal.SIGINT)
    out, said = child.communicate(timeout=20)

    assert child.returncode == 130, said
    assert said.splitlines()[-1] == "kept 1 run"
    assert out.startswith(f"{HOST}  ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--every", "2s"),
        ("--every", "often"),
        ("--every", "30d"),
        ("--rounds", "3"),
        ("--every", "1m", "-o", "x"),
        ("--every", "1h", "--seconds", "-1"),
    ],
)
def test_periods_without_sense_are_refused(perfkit: Run, arguments: tuple[str, ...]) -> None:
    """A round must fit its period, and what belongs together must stand together."""
    done = perfkit("record", HOST, *arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


# What is taken in


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_magic_is_found_however_it_is_cut(size: int) -> None:
    """Where the pieces of a stream begin and end does not matter."""
    stream = b"noise PERF PERFKIT\nPERFKIT" + MAGIC + b"\x01\x00rest and more"
    inbox = Inbox(ssh.CAPTURE_START)
    inbox.size_bytes = len(MAGIC) + 6

    parts = [stream[place : place + size] for place in range(0, len(stream), size)]
    [inbox.take(part) for part in parts]

    assert inbox.to_bytes() == MAGIC + b"\x01\x00rest"
    assert inbox.is_whole


def test_noise_has_a_limit() -> None:
    """What never becomes a capture is not gathered."""
    inbox = Inbox(ssh.CAPTURE_START)

    inbox.take(b"x" * (NOISE_LIMIT_BYTES + 100))

    assert inbox.is_flooded


@pytest.mark.parametrize(
    "line",
    [
        b"@perfkit ",
        b"@perfkit {}",
        b"@perfkit [[[[",
        b'@perfkit {"type":"later","x":1}',
        b'@perfkit {"type":"step"}',
        b'@perfkit {"type":"sending","size_bytes":-1}',
        b'@perfkit {"type":"sending","size_bytes":99999999999999999999999}',
        b"\xff\xfe",
        b"x" * 100_000,
    ],
)
def test_lines_that_make_no_sense_are_noise(line: bytes) -> None:
    """Hostile lines change nothing and grow nothing."""
    journal = Journal()

    journal.take(line + b"\n")

    assert (journal.hello, journal.progress, journal.size_bytes) == (None, None, None)
    assert sum(len(one) for one in journal.remarks) < 1000


def test_numbers_of_progress_are_kept_within_bounds() -> None:
    """What is shown is finite and short, whatever the far end says."""
    journal = Journal()

    journal.take(
        b'@perfkit {"type":"step","elapsed_s":1e300,"requested_s":-5,"ok_count":99999999,'
        b'"source_count":-3,"cost_percent":1e300,"note":"' + b"x" * 5000 + b'"}\n'
    )

    step = journal.progress
    assert step is not None
    assert (step.elapsed_s, step.requested_s) == (1e6, 0.0)
    assert (step.ok_count, step.source_count, len(step.note)) == (999, 0, 200)
