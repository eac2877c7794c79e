"""The command line as a user meets it: run as a program, judged by its streams and exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace
from reports import HEALTHY, THROTTLED

from perfkit import __version__, discover
from perfkit.analysis.correlate import WINDOW_MIN_S
from perfkit.cli._command import Command
from perfkit.cli._live import JUDGED_MIN_S
from perfkit.cli._screen import Colour, wants_colour
from perfkit.cli._stopping import stopping
from perfkit.cli.diagnose import Threshold, judge
from perfkit.cli.main import main
from perfkit.codec import decode

PERFKIT = (sys.executable, "-m", "perfkit")
COMMANDS: dict[str, Command] = discover.load_all("perfkit.cli", "COMMAND")
RULES: dict[str, Any] = discover.load_all("perfkit.analysis.rules", "RULE")
HELP_LIMIT_S = 0.15
ESCAPE = "\x1b"
# Serves nobody, but burns CPU on two threads, so that there is something to tell.
BUSY = """
import threading, time
def burn():
    end = time.monotonic() + 60
    while time.monotonic() < end:
        sum(range(2000)); time.sleep(0.002)
for _ in range(2): threading.Thread(target=burn, daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of its own, shared by the tests of this file."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def perfkit(state: Path) -> Run:
    """Runs perfkit as a program, with a state folder of its own."""

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        environment = environ(state, **more.pop("env", {}))
        streams = {} if "stdout" in more else {"capture_output": True}
        settings = {"env": environment, "text": True, "timeout": 60, **streams, **more}
        return subprocess.run([*PERFKIT, *arguments], check=False, **settings)

    return run


@pytest.fixture
def inside(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs perfkit within this process, for what needs no process of its own."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**environ(state), **env}.items():
            monkeypatch.setenv(name, value)
        code = main(arguments)
        out, said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, said)

    return run


def environ(state: Path, **more: str) -> dict[str, str]:
    """The environment of a plain terminal session."""
    keep = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    return {**keep, "XDG_STATE_HOME": str(state), "TERM": "xterm", **more}


@pytest.fixture
def busy(spawn: Callable[..., Any]) -> int:
    """The pid of a busy process."""
    return int(spawn(BUSY).pid)


@pytest.fixture
def saved(perfkit: Run, state: Path, busy: int) -> str:
    """The id of a run recorded for real; one for all tests of this file."""
    folder = state / "perfkit" / "runs"
    found = sorted(folder.glob("*.capture")) if folder.exists() else []
    if found:
        return found[0].stem
    done = perfkit("record", ".", "--pid", str(busy), "--seconds", "2.5", "--quiet")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Help


def test_help_begins_with_examples(perfkit: Run) -> None:
    """The first thing that help shows is what to type."""
    lines = perfkit("--help").stdout.splitlines()

    assert lines[2].startswith("  perfkit diagnose .")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_names_every_command(inside: Run, name: str) -> None:
    """A command that exists is in the help, found by its file's name."""
    assert re.search(rf"^  {name}  +\w", inside("--help").stdout, re.M)


@pytest.mark.parametrize("arguments", [(), ("-h",)])
def test_help_comes_without_being_asked_for(perfkit: Run, arguments: tuple[str, ...]) -> None:
    """Whoever types only `perfkit` is shown what there is."""
    assert perfkit(*arguments).stdout == perfkit("--help").stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_a_command_is_plain(inside: Run, name: str) -> None:
    """The help of a command is plain text of at most 80 columns."""
    done = inside(name, "--help", COLUMNS="80")

    assert done.returncode == 0
    assert ESCAPE not in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    "example", [line for command in COMMANDS.values() for line, _ in command.examples]
)
def test_example_is_one_that_perfkit_has(inside: Run, example: str) -> None:
    """Every example of the help is parsed by the command line."""
    assert inside(*example.split()[1:], "--help").returncode == 0


def test_help_answers_at_once(state: Path) -> None:
    """`perfkit --help` is there within 150 ms (median of 9 runs)."""
    took_s = []
    for _ in range(9):
        begin_s = time.monotonic()
        subprocess.run([*PERFKIT, "--help"], env=environ(state), capture_output=True, check=True)
        took_s.append(time.monotonic() - begin_s)

    assert statistics.median(took_s) <= HELP_LIMIT_S


def test_help_loads_nothing_heavy() -> None:
    """What only the commands need is imported by them, not before."""
    program = (
        "import sys; from perfkit.cli.main import main; main(['--help']);"
        "print([m for m in ('numpy', 'rich', 'psutil', 'pydantic', 'msgspec', 'zstandard', 'typer')"
        " if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_told(perfkit: Run) -> None:
    """The version is one line."""
    assert perfkit("--version").stdout == f"perfkit {__version__}\n"


def test_shell_completion_knows_the_commands(perfkit: Run) -> None:
    """A shell completes the names of commands."""
    variables = {
        "_PERFKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": "perfkit re",
        "COMP_CWORD": "1",
    }

    done = perfkit(env=variables)

    assert done.stdout.split() == ["record", "report"]


def test_shell_completion_can_be_shown(perfkit: Run) -> None:
    """The script for a shell's start-up file is printed on request."""
    assert "_perfkit_completion" in perfkit("completion", "bash").stdout


# Errors


WRONG = [
    (("diagnos", "."), 2, "No such command 'diagnos'. Did you mean 'diagnose'?"),
    (("diagnose",), 2, "Missing argument 'TARGET'."),
    (("diagnose", ".", "--pid", "x"), 2, "Invalid value for '--pid'"),
    (("diagnose", ".", "--pid", "0"), 2, "Invalid value for '--pid'"),
    (("diagnose", ".", "--nope"), 2, "No such option: --nope"),
    (("diagnose", ".", "--only-pid"), 2, "--only-pid narrows --pid, which is missing"),
    (("diagnose", ".", "--seconds", "0"), 2, "a window of 0 s is not above 0 and at most"),
    (("diagnose", ".", "--seconds", "nan"), 2, "a window of nan s is not above 0 and at most"),
    (("diagnose", ".", "--fail-on", "note"), 2, "Invalid value for '--fail-on'"),
    (("diagnose", "48213"), 2, "'48213' is no host; a process is named with --pid"),
    (("diagnose", "\x1b[31m"), 2, r"'\x1b[31m' is no host's name"),
    (("diagnose", ".", "--pid", "4194304"), 3, "no process has the pid 4194304"),
    (("diagnose", ".", "--pid", "2"), 3, ""),
    (("report", "last", "--to", "pdf"), 2, "no format is called 'pdf'"),
    (("report", "no-such-run"), 3, "no "),
    (("report", "/dev/null"), 3, "/dev/null: not a perfkit capture: it is empty"),
    (("report", "/tmp/"), 3, "cannot read /tmp: is a directory"),
    (("diagnose", ".", "--seconds", "1"), 2, "a window of 1 s is too short to judge, 2 s is"),
    (("record", ".", "--rounds", "2"), 2, "--rounds counts the rounds of --every"),
    (("record", ".", "..", "-o", "x"), 2, ""),
    (("report", "/dev/zero"), 3, "/dev/zero: not a perfkit capture"),
    (("runs", "show"), 2, "perfkit runs show needs a RUN"),
    (("runs", "list", "x"), 2, "perfkit runs list takes no RUN"),
    (("runs", "destroy", "last"), 2, "Invalid value"),
    (("explain", "cpu_trottled"), 2, "no cause is called 'cpu_trottled'"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG)
def test_error_is_a_line_with_a_way_on(
    inside: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """Whatever is wrong, stderr says so in one line, then what to do; stdout stays empty."""
    done = inside(*arguments, "--quiet") if arguments[0] == "diagnose" else inside(*arguments)

    lines = done.stderr.splitlines()
    assert done.returncode == code
    assert done.stdout == ""
    assert lines[0].startswith(f"error: {message}")
    assert lines[1].startswith("  fix     ")
    assert "Traceback" not in done.stderr


def test_window_that_a_capture_cannot_be_judged_by_is_said(inside: Run, busy: int) -> None:
    """A capture too short for a verdict is kept, with a warning."""
    done = inside("record", ".", "--pid", str(busy), "--seconds", "0.3", "-o", os.devnull)

    assert done.returncode == 0
    assert done.stderr.startswith("warning: 0.3 s can be kept but not judged")
    assert JUDGED_MIN_S == WINDOW_MIN_S


def test_process_that_is_not_there_is_not_said_to_be_sampled(inside: Run) -> None:
    """A wrong pid is the error alone, with no word of a sampling that never began."""
    assert inside("diagnose", ".", "--pid", "4194304").stderr.startswith("error: no process")


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("diagnose", ".", "--pid"), "perfkit diagnose --help"),
        (("report", "last", "--to"), "perfkit report --help"),
        (("runs", "destroy"), "perfkit runs --help"),
        (("--nope",), "perfkit --help"),
    ],
)
def test_wrong_command_line_leads_to_the_help_of_its_command(
    inside: Run, arguments: tuple[str, ...], fix: str
) -> None:
    """What typer finds wrong is told like all else, without its own words for its insides."""
    done = inside(*arguments)

    assert (done.returncode, done.stderr.splitlines()[1]) == (2, f"  fix     {fix}")
    assert "Value error" not in done.stderr


def test_process_that_is_not_there_is_not_said_to_be_tried(inside: Run) -> None:
    """A wrong pid is doctor's only word, too, before any source is tried."""
    assert inside("doctor", "--pid", "4194304").stderr.startswith("error: no process")


@pytest.mark.parametrize(
    ("severity", "threshold", "code"),
    [("crit", "crit", 1), ("warn", "crit", 0), ("warn", "warn", 1), ("note", "warn", 0)],
)
def test_fail_on_is_met_from_its_severity_on(severity: str, threshold: str, code: int) -> None:
    """--fail-on gives exit code 1 where a finding is that severe or worse."""
    report = replace(HEALTHY, causes=(replace(THROTTLED, severity=severity),))

    assert judge(report, strict=False, fail_on=Threshold(threshold)) == code
    assert judge(HEALTHY, strict=False, fail_on=Threshold(threshold)) == 0


def test_suggestion_is_the_nearest_cause(inside: Run) -> None:
    """A misspelt cause is answered with the one that was probably meant."""
    assert "fix     perfkit explain cpu_throttled" in inside("explain", "cpu_trottled").stderr


def test_debug_shows_the_traceback(perfkit: Run) -> None:
    """With --debug the developer sees where it came from."""
    assert "Traceback" in perfkit("report", "no-such-run", "--debug").stderr


@pytest.mark.parametrize("module", ["typer", "numpy", "rich"])
def test_agent_only_installation_says_what_is_missing(state: Path, saved: str, module: str) -> None:
    """Without what only readers of captures need, one line says how to get it."""
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {module!r}:\n"
        f"            raise ModuleNotFoundError('No module named ' + repr(name), name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from perfkit.cli.main import main\n"
        f"sys.exit(main(['report', {saved!r}]))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environ(state),
    )

    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {module} is not installed")
    assert "pip install 'perfkit[cli]'" in done.stderr


def test_missing_extension_exits_with_the_fix(state: Path, busy: int) -> None:
    """Without the C extension nothing can be measured, and the way to build it is told."""
    program = (
        "import sys; sys.modules['perfkit._native'] = None\n"
        "from perfkit.cli.main import main\n"
        f"sys.exit(main(['diagnose', '.', '--pid', '{busy}', '-q']))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environ(state),
    )

    assert done.returncode == 3
    assert done.stderr.startswith("error: perfkit's C extension is not built")
    assert "pip install" in done.stderr


def test_missing_extension_does_not_keep_runs_from_being_read(state: Path, saved: str) -> None:
    """A host where perfkit could not be compiled reads the captures of others."""
    program = (
        "import sys; sys.modules['perfkit._native'] = None\n"
        "from perfkit.cli.main import main\n"
        f"sys.exit(main(['report', {saved!r}]))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environ(state),
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "\nVerdict  " in done.stdout


# Saved runs


def test_report_ends_with_verdict_saved_and_next(inside: Run, saved: str) -> None:
    """A run that is read again shows the report, its name and what to type next."""
    text = inside("report", saved).stdout

    assert re.search(rf"^Verdict  .*^Saved    {saved} .*^Next     perfkit ", text, re.M | re.S)


@pytest.mark.parametrize("name", ["last", "prefix", "path"])
def test_run_has_several_names(inside: Run, state: Path, saved: str, name: str) -> None:
    """A run is found by `last`, by the beginning of its id, and by its file."""
    path = state / "perfkit" / "runs" / f"{saved}.capture"
    names = {"last": "last", "prefix": saved[:-1], "path": str(path)}

    done = inside("report", names[name])

    assert (done.returncode, done.stderr) == (0, "")
    assert "\nVerdict  " in done.stdout


def test_run_read_again_gives_the_same_bytes(perfkit: Run, saved: str) -> None:
    """Reading is deterministic: the same capture gives the same JSON."""
    first = perfkit("report", saved, "--to", "json").stdout

    assert perfkit("report", saved, "--to", "json").stdout == first


def test_json_of_a_real_run_keeps_the_contract(inside: Run, saved: str) -> None:
    """What a program reads is valid by the schema in the package."""
    schema = json.loads(files("perfkit.report").joinpath("schema.json").read_text())
    document = json.loads(inside("report", saved, "--to", "json").stdout)

    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    assert document["run"] == saved


@pytest.mark.parametrize("name", ["terminal", "json", "markdown"])
def test_report_goes_to_a_file(inside: Run, saved: str, tmp_path: Path, name: str) -> None:
    """Every format can be written to a file, and then stdout stays empty."""
    path = tmp_path / "report"

    done = inside("report", saved, "--to", name, "-o", str(path), FORCE_COLOR="1")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ESCAPE not in path.read_text()


def test_file_in_a_folder_that_is_not_there_is_said(inside: Run, saved: str) -> None:
    """A report that cannot be written is an error that names the place."""
    done = inside("report", saved, "-o", "/no/such/folder/report.md")

    assert done.returncode == 3
    assert done.stderr == (
        "error: cannot write /no/such/folder/report.md: no such file or directory\n"
        "  fix     name a file, in a folder that is there and may be written\n"
    )


@pytest.mark.parametrize("cut", [1, 100, 0.5])
def test_damaged_run_is_said(
    inside: Run, state: Path, saved: str, tmp_path: Path, cut: float
) -> None:
    """A truncated capture is an error in words."""
    raw = (state / "perfkit" / "runs" / f"{saved}.capture").read_bytes()
    path = tmp_path / "cut.capture"
    path.write_bytes(raw[: int(cut if cut >= 1 else cut * len(raw))])

    done = inside("report", str(path))

    assert done.returncode == 3
    assert re.match(rf"error: {path}: (not a perfkit capture|damaged)", done.stderr)
    assert "fix     perfkit runs" in done.stderr


def test_pipe_without_a_writer_is_not_waited_for(inside: Run, tmp_path: Path) -> None:
    """A FIFO is no capture, and does not hang the command."""
    os.mkfifo(tmp_path / "pipe")

    assert "not a perfkit capture" in inside("report", str(tmp_path / "pipe")).stderr


def test_capture_on_stdin_is_reported(state: Path, saved: str) -> None:
    """`report -` reads a capture from a pipe, and finds in it what the saved run holds."""
    raw = (state / "perfkit" / "runs" / f"{saved}.capture").read_bytes()
    command = (*PERFKIT, "report", "-", "--to", "json")
    done = subprocess.run(command, input=raw, capture_output=True, check=False)
    named = subprocess.run(
        (*PERFKIT, "report", saved, "--to", "json"),
        capture_output=True,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(state)},
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) | {"run": saved} == json.loads(named.stdout)


@pytest.mark.parametrize("raw", [b"", b"ssh: banner\n", b"\0" * 100_000])
def test_rubbish_on_stdin_is_said(raw: bytes) -> None:
    """What comes on stdin and is no capture is an error in words."""
    done = subprocess.run((*PERFKIT, "report", "-"), input=raw, capture_output=True, check=False)

    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"error: -: not a perfkit capture")
    assert (b"stdin is empty" in done.stderr) is (not raw)


def test_closed_stdout_is_said(state: Path, saved: str) -> None:
    """With stdout closed from the start, one line says so."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m perfkit report {saved} >&-"],
        env=os.environ | {"XDG_STATE_HOME": str(state)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr.splitlines()[0]) == (
        3,
        "error: cannot write to stdout: it is closed",
    )


@pytest.mark.parametrize("delay_s", [0.03, 0.06, 0.1, 0.2])
def test_early_interrupt_leaves_no_traceback(delay_s: float, state: Path) -> None:
    """Ctrl-C while perfkit still loads ends it quietly; before that Python speaks for itself."""
    with subprocess.Popen(
        [*PERFKIT, "diagnose", ".", "--seconds", "20"],
        env=os.environ | {"XDG_STATE_HOME": str(state)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        time.sleep(delay_s)
        started.send_signal(signal.SIGINT)
        _, told = started.communicate(timeout=30)

    # What loads an editable installation lies in the environment, and is Python's own start.
    assert not re.search(r'File "[^"]*/perfkit/(?!\.venv/)[^"]*"', told), told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["perfkit.cli.main", "typer"])
def test_signal_while_loading_is_an_interrupt(number: int, module: str, state: Path) -> None:
    """Whatever is being imported when it is told to stop, perfkit ends quietly with 130."""
    code = (
        "import os, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Stop())\n"
        "sys.argv = ['perfkit', 'report', 'last']\n"
        "from perfkit.__main__ import start\n"
        "start()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XDG_STATE_HOME": str(state)},
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_runs_lists_what_is_saved(inside: Run, saved: str) -> None:
    """The list names each run and its size."""
    assert re.search(rf"^{saved} .*\d[\d.]* [kM]?B$", inside("runs").stdout, re.M)


def test_runs_show_tells_how_the_sources_fared(inside: Run, saved: str) -> None:
    """One run is shown with its host, its target and each source's status."""
    text = inside("runs", "show", saved).stdout

    assert re.search(r"^target +(service|process) python", text, re.M)
    assert re.search(r"^threads +ok", text, re.M)


def test_runs_are_pinned_and_deleted(inside: Run, state: Path, saved: str) -> None:
    """A copy of a run is pinned, unpinned and deleted."""
    folder = state / "perfkit" / "runs"
    shutil.copy(folder / f"{saved}.capture", folder / "copy.capture")

    told = [inside("runs", action, "copy").stdout for action in ("pin", "unpin", "delete")]

    assert told == ["pinned copy\n", "unpinned copy\n", "deleted copy\n"]
    assert list(folder.glob("copy*")) == []


def test_reader_that_leaves_early_is_no_error(state: Path, saved: str) -> None:
    """`perfkit report | head` ends without a word."""
    command = f"{' '.join(PERFKIT)} report {saved} -v | true; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=environ(state)
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_full_stdout_is_said(perfkit: Run, saved: str) -> None:
    """A report that cannot be written out is an error, not silence."""
    with Path("/dev/full").open("w") as full:
        done = perfkit("report", saved, stdout=full, stderr=subprocess.PIPE)

    assert done.returncode == 3
    assert done.stderr == (
        "error: cannot write to stdout: no space left on device\n"
        "  fix     -o FILE, or let stdout lead where there is room\n"
    )


# Explain


@pytest.mark.parametrize("cause", sorted(rule.id for rule in RULES.values()))
def test_cause_is_explained(inside: Run, cause: str) -> None:
    """Every cause that can be found is explained: meaning, detection, fix, verification."""
    text = inside("explain", cause, COLUMNS="72").stdout

    titles = ["What it means", "How it is found", "How to fix it", "How to verify"]
    assert [title for title in titles if f"\n{title}\n  " not in text] == []
    assert [line for line in text.splitlines() if len(line) > 72] == []


def test_causes_are_listed(inside: Run) -> None:
    """Without an argument, every cause that this version looks for is listed."""
    text = inside("explain").stdout

    assert [rule.id for rule in RULES.values() if rule.id not in text] == []


# Live


@pytest.mark.system
def test_diagnose_reports_on_stdout_and_talks_on_stderr(
    perfkit: Run, busy: int, tmp_path: Path
) -> None:
    """Piped, stdout holds the report alone and stderr two plain lines; the run is saved."""
    place = {"XDG_STATE_HOME": str(tmp_path)}
    done = perfkit("diagnose", ".", "--pid", str(busy), "--seconds", "2.2", env=place)

    said = done.stderr.splitlines()
    assert done.returncode == 0
    assert ESCAPE not in done.stdout + done.stderr
    assert [line.split()[0] for line in said] == ["sampling", "sampled"]
    run = re.search(r"^Saved    (\S+)", done.stdout, re.M)
    assert run and (tmp_path / "perfkit" / "runs" / f"{run[1]}.capture").is_file()


@pytest.mark.system
def test_live_findings_are_those_of_the_saved_run(perfkit: Run, busy: int, tmp_path: Path) -> None:
    """The live report and the one of the saved run are the same document."""
    place = {"XDG_STATE_HOME": str(tmp_path)}
    live = perfkit("diagnose", ".", "--pid", str(busy), "--seconds", "2", "--json", env=place)

    again = perfkit("report", "last", "--to", "json", env=place)

    assert again.stdout == live.stdout


@pytest.mark.system
def test_full_disk_costs_the_run_but_not_the_report(
    perfkit: Run, busy: int, tmp_path: Path
) -> None:
    """Where the run cannot be saved, a warning says so and the report comes all the same."""
    (tmp_path / "perfkit").write_text("in the way")

    done = perfkit(
        "diagnose",
        ".",
        "--pid",
        str(busy),
        "--seconds",
        "2.2",
        env={"XDG_STATE_HOME": str(tmp_path)},
    )

    assert done.returncode == 0
    assert "warning: the run could not be saved in" in done.stderr
    assert "\nSaved    not saved " in done.stdout


@pytest.mark.system
def test_strict_gives_4_for_a_window_that_was_cut_short(
    perfkit: Run, spawn: Callable[..., Any], tmp_path: Path
) -> None:
    """With --strict, a target that went away in mid-window is an incomplete answer."""
    child = spawn("import time; print('ready', flush=True); time.sleep(1.5)")

    done = perfkit(
        "diagnose",
        ".",
        "--pid",
        str(child.pid),
        "--seconds",
        "5",
        "--strict",
        env={"XDG_STATE_HOME": str(tmp_path)},
    )

    assert done.returncode == 4
    assert "\nVerdict  " in done.stdout


@pytest.mark.system
def test_record_writes_a_capture_to_stdout(perfkit: Run, busy: int, tmp_path: Path) -> None:
    """`record -o -` gives the capture's bytes to whatever reads stdout."""
    path = tmp_path / "piped.capture"
    with path.open("wb") as out:
        perfkit(
            "record",
            ".",
            "--pid",
            str(busy),
            "--seconds",
            "0.5",
            "-o",
            "-",
            stdout=out,
            stderr=subprocess.DEVNULL,
            text=False,
        )

    assert decode(path.read_bytes()).header.target.main_pid == busy


@pytest.mark.system
def test_interrupt_reports_what_there_is(state: Path, busy: int, tmp_path: Path) -> None:
    """Ctrl-C ends the window early: the report is printed, the run saved, the exit code 130."""
    with subprocess.Popen(
        [*PERFKIT, "diagnose", ".", "--pid", str(busy), "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(tmp_path),
    ) as child:
        time.sleep(3.5)
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=20)

    assert child.returncode == 130
    assert "Traceback" not in said
    assert re.search(r"based on \d\.\d of 60 s", out)
    assert "\nVerdict  " in out
    assert len(list((tmp_path / "perfkit" / "runs").glob("*.capture"))) == 1


@pytest.mark.system
def test_second_interrupt_leaves_at_once(state: Path) -> None:
    """Whoever presses Ctrl-C twice wants out, whatever perfkit is busy with."""
    program = (
        "import signal, threading, time\n"
        "from perfkit.cli._stopping import stopping\n"
        "with stopping(threading.Event()):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(30)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline()
        child.send_signal(signal.SIGINT)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        child.wait(timeout=3)

    assert child.returncode == 130


@pytest.mark.system
def test_an_interrupt_that_another_thread_takes_asks_for_an_end_too(state: Path) -> None:
    """Libraries such as numpy begin threads that block no signal: the kernel may choose these."""
    program = (
        "import threading, time\n"
        "from perfkit.cli._stopping import stopping\n"
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        "stop = threading.Event()\n"
        "with stopping(stop):\n"
        "    print('ready', flush=True)\n"
        "    stop.wait(20)\n"
        "print('stopped', stop.is_set(), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline()
        begin_s = time.monotonic()
        child.send_signal(signal.SIGINT)
        said = child.stdout.read()
        child.wait(timeout=3)

    assert (said, child.returncode) == ("stopped True\n", 0)
    assert time.monotonic() - begin_s < 10


def test_stopping_gives_the_signals_back() -> None:
    """After a command, signals do what they did before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.getsignal(signal.SIGINT)

    with stopping(threading.Event()):
        assert signal.getsignal(signal.SIGINT) is not handler

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert signal.getsignal(signal.SIGINT) is handler


# Terminal


def read_terminal(arguments: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Runs perfkit on a pseudo-terminal and gives its exit code and all that it wrote there."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*PERFKIT, *arguments], stdin=slave, stdout=slave, stderr=slave, env=env
    ) as child:
        os.close(slave)
        seen = b"".join(_read_all(master))
        os.close(master)
    return child.returncode, seen.decode()


def _read_all(descriptor: int) -> Iterator[bytes]:
    while select.select([descriptor], [], [], 30)[0]:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            return
        if not part:
            return
        yield part


@contextlib.contextmanager
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Makes stdout a pseudo-terminal for a while; afterwards what was written there is known."""
    master, slave = pty.openpty()
    seen: list[bytes] = []
    # Somebody has to read meanwhile: a terminal holds few bytes.
    reader = threading.Thread(target=lambda: seen.extend(_read_all(master)))
    reader.start()
    with os.fdopen(slave, "w") as out, monkeypatch.context() as place:
        place.setattr(sys, "stdout", out)
        yield seen
    reader.join()
    os.close(master)


@pytest.mark.system
def test_progress_on_a_terminal_leaves_no_trace(busy: int, tmp_path: Path) -> None:
    """On a terminal progress is one line that is cleared before the report is printed."""
    code, seen = read_terminal(
        ["diagnose", ".", "--pid", str(busy), "--seconds", "2.2"], environ(tmp_path)
    )

    before, _, after = seen.rpartition("\r\x1b[2K")
    assert code == 0
    assert f"sampling pid {busy} " in before
    assert "\n" not in before
    assert "Verdict" in after and "sampling" not in after


@pytest.mark.parametrize(
    "case",
    [
        ([], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        (["--color", "always"], {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ([], {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ([], {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colour_on_a_terminal_is_the_users_choice(
    inside: Run,
    monkeypatch: pytest.MonkeyPatch,
    saved: str,
    case: tuple[list[str], dict[str, str], bool],
) -> None:
    """The flag comes first, then NO_COLOR, FORCE_COLOR and TERM."""
    arguments, env, expected = case

    with on_terminal(monkeypatch) as seen:
        inside("report", saved, *arguments, **env)

    text = b"".join(seen).decode()
    assert "Verdict" in text
    assert (ESCAPE in text) is expected


def test_piped_report_is_not_coloured(inside: Run, saved: str) -> None:
    """A report that goes into a file or a pipe holds no escape code."""
    assert ESCAPE not in inside("report", saved).stdout


def test_forced_colour_is_heeded_in_a_pipe(inside: Run, saved: str) -> None:
    """FORCE_COLOR colours a report that goes into a pager."""
    assert ESCAPE in inside("report", saved, FORCE_COLOR="1").stdout


def test_automatic_colour_asks_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is no terminal."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with (tmp_path / "x").open("w") as out:
        assert not wants_colour(Colour.AUTO, out)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_real_report_is_never_wider_than_columns(inside: Run, saved: str, width: int) -> None:
    """A real report keeps to COLUMNS, but for commands, which are never broken."""
    lines = inside("report", saved, COLUMNS=str(width)).stdout.splitlines()

    wide = [line for line in lines if len(line) > width and not line.startswith("perfkit ")]
    assert wide == []
