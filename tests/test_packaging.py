"""What is installed is what is here: wheel, source archive, and a wheel from the source archive."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from source_tree import ROOT, list_files

BUILD_TIMEOUT_S = 300


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that was built from it, from tracked files."""
    source = tmp_path_factory.mktemp("source") / "perfkit"
    made = tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout
    if not listed:
        pytest.skip("needs a git checkout, to build from what is tracked")
    source.mkdir()
    copy = subprocess.run(
        ["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=listed, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(source)], input=copy.stdout, check=True)
    # Without the build backend at hand, it is fetched into an environment of its own.
    isolation = ["--no-isolation"] if find_spec("scikit_build_core") else []
    done = subprocess.run(
        [sys.executable, "-m", "build", *isolation, "-o", str(made), str(source)],
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return made


@pytest.fixture(scope="module")
def in_wheel(built: Path) -> set[str]:
    """The names of the wheel's files."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def in_source(built: Path) -> set[str]:
    """The names of the source archive's files, without its top folder."""
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def test_wheel_fits_every_python_from_3_11_on(built: Path) -> None:
    """One wheel of the stable ABI does for all versions of Python."""
    (wheel,) = built.glob("*.whl")

    assert wheel.name.startswith("perfkit-0.1.0-cp311-abi3-linux_")


def test_wheel_holds_the_extension(in_wheel: set[str]) -> None:
    """A wheel without its C extension would install, and measure nothing."""
    assert "perfkit/_native.abi3.so" in in_wheel


def test_wheel_holds_every_module(in_wheel: set[str]) -> None:
    """Everything that can be imported here can be imported there, collectors included."""
    wanted = {str(path.relative_to(ROOT)) for path in list_files()}

    assert wanted - in_wheel == set()


def test_wheel_holds_what_is_not_python(in_wheel: set[str]) -> None:
    """The schema and the mark of a typed package go along."""
    assert {"perfkit/report/schema.json", "perfkit/py.typed"} - in_wheel == set()


def test_wheel_holds_the_headers_for_servers(in_wheel: set[str]) -> None:
    """Servers in C and C++ find what they include, all of it."""
    names = {path.name for path in (ROOT / "native").glob("perfkit_histogram*.h")}

    assert {f"perfkit/include/{name}" for name in names} - in_wheel == set()


def test_wheel_holds_nothing_else(in_wheel: set[str]) -> None:
    """No second top-level package: a folder named `collectors` belongs to somebody else."""
    tops = {name.split("/")[0] for name in in_wheel}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"perfkit"}
    assert [name for name in in_wheel if "__pycache__" in name or name.endswith(".o")] == []


def test_source_archive_holds_what_is_built_from(in_source: set[str]) -> None:
    """Collectors, C sources, licence and readme are in the source archive."""
    native = {f"native/{path.name}" for path in (ROOT / "native").glob("*.[ch]")}
    collectors = {f"collectors/{path.name}" for path in (ROOT / "collectors").glob("*.py")}

    wanted = native | collectors | {"native/CMakeLists.txt", "LICENSE", "README.md"}
    assert wanted - in_source == set()


def test_wheel_works_where_nothing_else_is(built: Path, tmp_path: Path) -> None:
    """From another folder, with only the wheel on the path, perfkit and its collectors import."""
    (wheel,) = built.glob("*.whl")
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    (tmp_path / "collectors").mkdir()
    # An editable install answers for perfkit before the path is asked.
    program = (
        f"import sys; sys.path.insert(0, {str(place)!r}); "
        "sys.meta_path = [f for f in sys.meta_path if 'Redirecting' not in type(f).__name__]; "
        "import perfkit, perfkit._native, perfkit.collectors.cpu, perfkit.cli.main as cli; "
        f"assert perfkit.__file__.startswith({str(place)!r}), perfkit.__file__; "
        "cli.main(['--version'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert (done.stdout, done.stderr) == ("perfkit 0.1.0\n", "")


def test_collectors_are_reached_through_a_relative_link() -> None:
    """Type checkers and editors see the collectors where they are imported from."""
    link = ROOT / "perfkit" / "collectors"

    assert link.is_symlink()
    assert str(link.readlink()) == "../collectors"
