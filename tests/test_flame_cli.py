"""`perfkit flame`: of files, of runs by their names, of processes; and what it refuses."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_programs import needs
from native_rows import SERVER
from test_native_profile import capture_of, cpu_samples

from perfkit import codec
from perfkit.cli.main import main


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> str:
    """A capture's file with CPU samples."""
    path = tmp_path / "run.perfkit"
    path.write_bytes(codec.encode(capture_of(cpu_samples(f"hot@{SERVER}<main@{SERVER}"))))
    return str(path)


def test_flame_of_a_file_is_a_tree(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A saved run is shown without recording."""
    code = main(["flame", run])

    assert (code, "hot (server)" in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize("command", [["flame"], ["report"]])
def test_flame_and_report_write_the_same_folded_stacks(
    command: list[str], run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Merged stacks are what both show, on stdout and nothing else."""
    code = main([*command, run, "--to", "folded"])

    (line,) = capsys.readouterr().out.splitlines()
    assert code == 0
    assert re.fullmatch(r"[^;]+;main \(server\);hot \(server\) \d+", line)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--off-cpu", "--wall"], "different times"),
        (["--pid", "1"], "for sampling"),
        (["--seconds", "3"], "for sampling"),
        (["--to", "json"], "format of reports"),
        (["--to", "nothing"], "no format"),
        (["--wall"], "holds no wall-clock stacks"),
    ],
)
def test_flame_refuses_what_it_cannot_show(
    arguments: list[str], words: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what is wrong, and nothing is printed."""
    code = main(["flame", run, *arguments])

    said = capsys.readouterr()
    assert (code > 1, said.out, words in said.err) == (True, "", True)


def test_flame_of_a_run_by_its_name(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is the beginning of a saved run's id is that run, and no host."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "perfkit" / "runs"
    folder.mkdir(parents=True)
    (folder / "20260101-000000-host-1.capture").write_bytes(Path(run).read_bytes())

    code = main(["flame", "20260101"])

    assert (code, "perfkit flame 20260101-000000-host-1 --to" in capsys.readouterr().out) == (
        0,
        True,
    )


def test_flame_of_a_process_samples_it(
    spawn: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Folded stacks of a process that runs now go to stdout, and the run is kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    child = spawn("def burn():\n while True: pass\nprint('ready', flush=True)\nburn()")

    code = main(
        ["flame", ".", "--pid", str(child.pid), "--seconds", "1", "--to", "folded", "--quiet"]
    )

    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    assert re.search(r";burn \([^;]*\)(;[^;]*)? \d+$", said.out, re.M)
    assert len(list((tmp_path / "perfkit" / "runs").glob("*.capture"))) == 1


BURNING = r"""
#include <stdio.h>
#include <time.h>
static volatile unsigned long sink;
static long now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}
static void burn(long us) {
  for (long end = now_us() + us; now_us() < end;)
    for (int i = 0; i < 20000; i++) sink += i;
}
__attribute__((noinline)) void often(void) { burn(1400); sink++; }
__attribute__((noinline)) void seldom(void) { burn(700); sink++; }
int main(void) { puts("ready"); fflush(stdout); for (;;) { often(); seldom(); } }
"""


@pytest.mark.system
def test_flame_names_the_functions_of_a_program_in_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two functions that burn two thirds and one third have these shares, within 15 points."""
    needs("gcc")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "burning.c").write_text(BURNING)
    program = str(tmp_path / "burning")
    subprocess.run(["gcc", "-O1", "-o", program, f"{program}.c"], check=True)
    child = subprocess.Popen([program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        child.stdout.readline()
        code = main(["flame", ".", "--pid", str(child.pid), "--seconds", "3", "--to", "folded"])
    finally:
        child.kill()
        child.wait()
        child.stdout.close()

    spent: Counter[str] = Counter()
    told = r";(often|seldom) \(burning\).* (\d+)$"
    for name, count in re.findall(told, capsys.readouterr().out, re.M):
        spent[name] += int(count)
    assert code == 0
    assert spent["often"] / sum(spent.values()) == pytest.approx(2 / 3, abs=0.15)
