"""The settings: which value holds, where it came from, and one clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.cli.main import main
from perfkit.config import (
    Config,
    HostSettings,
    find_files,
    list_unknown,
    load_config,
    read_file,
)
from perfkit.errors import ConfigError


def write(folder: Path, text: str, name: str = "config.toml") -> Path:
    """A configuration file with this text."""
    path = folder / name
    path.write_text(text)
    return path


def origin_of(config: Config, name: str) -> str:
    """Where a value came from."""
    return next(one.origin for one in config.settings if one.name == name)


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the user's file, with nothing there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "perfkit").mkdir()
    return tmp_path / "perfkit" / "config.toml"


def test_without_files_defaults_hold() -> None:
    """Nothing has to be configured."""
    config = load_config((), {})

    assert config.get("ssh.command") == "ssh"
    assert {one.origin for one in config.settings} == {"default"}


def test_later_file_wins_and_is_told(tmp_path: Path) -> None:
    """The user's file comes before the system's, and each value says which it is from."""
    system = write(tmp_path, '[ssh]\ncommand = "a"\noptions = ["-4"]\n', "system.toml")
    user = write(tmp_path, '[ssh]\ncommand = "b"\n', "user.toml")

    config = load_config((system, user), {})

    assert (config.get("ssh.command"), origin_of(config, "ssh.command")) == ("b", str(user))
    assert (config.get("ssh.options"), origin_of(config, "ssh.options")) == (("-4",), str(system))


def test_environment_wins_over_files(tmp_path: Path) -> None:
    """A variable of the environment comes last, split as a shell would."""
    path = write(tmp_path, '[ssh]\noptions = ["-4"]\n')

    config = load_config((path,), {"PERFKIT_SSH_OPTIONS": "-F '/tmp/a b'"})

    assert config.get("ssh.options") == ("-F", "/tmp/a b")
    assert origin_of(config, "ssh.options") == "PERFKIT_SSH_OPTIONS"


def test_sections_of_hosts_add_up(tmp_path: Path) -> None:
    """A host gets what every section that matches it says, the later one first."""
    text = '[hosts."*"]\nsudo = true\nagent = "a"\n[hosts."shard-*"]\nagent = "b"\n'
    config = load_config((write(tmp_path, text),), {})

    assert config.for_host("shard-7") == HostSettings(agent="b", sudo=True)
    assert config.for_host("web") == HostSettings(agent="a", sudo=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[ssh]\ncomand = 'x'", "ssh.comand: unknown key; did you mean ssh.command?"),
        ("[ssh]\ncommand = 7", "ssh.command: must be a string"),
        ("[ssh]\noptions = 'x'", "ssh.options: must be a list of strings"),
        ("[ssh]\noptions = [1]", "ssh.options: must be a list of strings"),
        ("[runs]\nlimit_mib = -1", "runs.limit_mib: must be a whole number above 0"),
        ("[runs]\nlimit_mib = true", "runs.limit_mib: must be a whole number above 0"),
        ("[hosts.a]\nsudo = 'yes'", 'hosts."a".sudo: must be true or false'),
        ("[hosts.a]\nport = 22", 'hosts."a".port: unknown key; known are agent, sudo'),
        ("[hosts]\nagent = 'x'", "hosts.agent: unknown key"),
        ("ssh = 'x'", "ssh: unknown key"),
        ("[colours]\na = 1", "colours.a: unknown key"),
        ("[ssh", "is no TOML: "),
        ("a = " + "[" * 100_000, "is no TOML: "),
    ],
)
def test_wrong_file_is_one_clear_line(tmp_path: Path, text: str, told: str) -> None:
    """Whatever is wrong, the line names the file and the key."""
    path = write(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        load_config((path,), {})

    assert caught.value.what.startswith(f"{path}: {told}")
    assert "\n" not in caught.value.what


def test_all_that_is_wrong_is_found_at_once(tmp_path: Path) -> None:
    """Nobody has to check a file twice for two mistakes."""
    problems, _, _ = read_file(write(tmp_path, "[ssh]\na = 1\nb = 2\n"))

    assert len(problems) == 2


def test_file_without_end_is_refused() -> None:
    """A device in the place of a file does not fill the memory."""
    problems, _, _ = read_file(Path("/dev/zero"))

    assert problems == ["/dev/zero: is over the limit of 1048576 bytes"]


def test_folder_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    """What is there but cannot be read is not taken for absent."""
    problems, _, _ = read_file(tmp_path)

    assert problems == [f"{tmp_path}: cannot be read: is a directory"]


@pytest.mark.parametrize("text", ["many", "0", "-3"])
def test_wrong_variable_is_one_clear_line(text: str) -> None:
    """The environment is checked as files are."""
    with pytest.raises(ConfigError, match=r"^PERFKIT_RUNS_LIMIT_MIB: must be a whole number"):
        load_config((), {"PERFKIT_RUNS_LIMIT_MIB": text})


def test_wrong_variable_says_what_it_holds_and_what_would_do() -> None:
    """Nobody has to look up what a variable was set to, or what it may be."""
    with pytest.raises(ConfigError) as caught:
        load_config((), {"PERFKIT_SSH_OPTIONS": "-F 'x"})

    assert caught.value.what == (
        'PERFKIT_SSH_OPTIONS: must be words as a shell splits them, not "-F \'x"'
    )
    assert caught.value.fix == "PERFKIT_SSH_OPTIONS=-4, or unset it"


def test_wrong_value_is_shown_and_cut(tmp_path: Path) -> None:
    """The line holds what was found, however long that is."""
    problems, _, _ = read_file(write(tmp_path, f"[ssh]\noptions = '{'x' * 999}'\n"))

    assert 'must be a list of strings, as ["-4", "-v"], not \'xxx' in problems[0]
    assert len(problems[0]) < 200


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("PERFKIT_RUN_FOLDER", "unknown setting; did you mean PERFKIT_RUNS_FOLDER?"),
        ("PERFKIT_SSH_COMAND", "unknown setting; did you mean PERFKIT_SSH_COMMAND?"),
        ("PERFKIT_9", "unknown setting; known are PERFKIT_SSH_COMMAND, PERFKIT_SSH_OPTIONS"),
    ],
)
def test_unknown_variable_is_named_with_the_nearest(name: str, told: str) -> None:
    """A misspelt variable is answered with the one that was probably meant."""
    lines = list_unknown({name: "x", "PATH": "/bin", "PERFKIT_RUNS_FOLDER": "/srv"})

    assert len(lines) == 1
    assert lines[0].startswith(f"{name}: {told}")


def test_variables_of_a_cluster_are_no_mistake() -> None:
    """Where a service is called perfkit, Kubernetes names its address so."""
    names = ["PERFKIT_SERVICE_HOST", "PERFKIT_PORT_80_TCP_ADDR", "PERFKIT_HUB_SERVICE_PORT_HTTP"]

    assert list_unknown(dict.fromkeys(names, "x")) == []


def test_many_unknown_variables_are_counted() -> None:
    """However full the environment is, what is said of it stays short."""
    lines = list_unknown({f"PERFKIT_X{number}": "" for number in range(30)})

    assert len(lines) == 6
    assert lines[-1] == "25 more PERFKIT_... variables are no settings"


def test_unknown_variable_is_said_once_by_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that does nothing is not passed over in silence; the command goes on."""
    monkeypatch.setenv("PERFKIT_RUN_FOLDER", "/srv")

    code = main(["explain"])

    assert code == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: PERFKIT_RUN_FOLDER: unknown setting; did you mean PERFKIT_RUNS_FOLDER?"
    ]


def test_check_finds_unknown_variables(
    user_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config check` tells of variables as it does of files, and not twice."""
    monkeypatch.setenv("PERFKIT_RUN_FOLDER", "/srv")

    code = main(["config", "check"])

    out, said = capsys.readouterr()
    assert code == 2
    assert out.splitlines()[-1].startswith("error: PERFKIT_RUN_FOLDER: unknown setting; did you")
    assert said == ""


def test_relative_config_home_is_no_place() -> None:
    """As XDG has it, a relative path is ignored."""
    assert all(path.is_absolute() for path in find_files({"XDG_CONFIG_HOME": "here"}))


def test_show_says_where_each_value_came_from(
    user_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line a setting: name, value, origin."""
    user_file.write_text('[hosts."shard-*"]\nsudo = true\n')
    monkeypatch.setenv("PERFKIT_RUNS_LIMIT_MIB", "7")

    code = main(["config", "show"])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert ["ssh.command", '"ssh"', "default"] in lines
    assert ["runs.limit_mib", "7", "PERFKIT_RUNS_LIMIT_MIB"] in lines
    assert ['hosts."shard-*".sudo', "true", str(user_file)] in lines


def test_check_finds_what_is_wrong(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each mistake is a line, and the exit code is that of a wrong command line."""
    user_file.write_text("[ssh]\na = 1\nb = 2\n")

    code = main(["config", "check"])

    out = capsys.readouterr().out
    assert code == 2
    assert out.count(f"error: {user_file}: ssh.") == 2


def test_check_is_silent_about_nothing(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is right is said to be."""
    user_file.write_text('[ssh]\ncommand = "ssh"\n')

    code = main(["config", "check"])

    assert code == 0
    assert f"{user_file}: fine, 1 setting\n" in capsys.readouterr().out


def test_path_says_where_files_would_lie(
    user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever wants to write a file learns where."""
    main(["config", "path"])

    assert f"{user_file}  (absent)" in capsys.readouterr().out.splitlines()


def test_name_in_a_file_is_escaped(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text from a file cannot steer the terminal."""
    user_file.write_text('[hosts."\\u001b[31m"]\nsudo = true\n')

    main(["config", "show"])

    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [("runs",), ("diagnose", "host-1"), ("config", "show")])
def test_wrong_file_stops_what_needs_it(
    user_file: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """A command that needs the settings does not go on with half of them."""
    user_file.write_text("[ssh]\na = 1\n")

    code = main(command)

    said = capsys.readouterr().err.splitlines()
    assert code == 2
    assert said[0].startswith(f"error: {user_file}: ssh.a: unknown key")
    assert said[1].split() == ["fix", "perfkit", "config", "check"]


def test_runs_lie_where_the_settings_say(
    user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of the runs is a setting."""
    user_file.write_text(f'[runs]\nfolder = "{tmp_path}/kept"\n')

    main(["runs"])

    assert capsys.readouterr().out.strip() == f"no runs in {tmp_path}/kept"
