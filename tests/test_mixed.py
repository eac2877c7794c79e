"""Native and Python frames in one stack: where each run of Python functions belongs."""

from __future__ import annotations

import pytest

from perfkit.analysis.mixed import MixedFrame, hide_interpreter, mix
from perfkit.dump import PythonFrame

LOOP = "_PyEval_EvalFrameDefault"


def to_native(*names: str) -> list[MixedFrame]:
    """Frames by name; those in capitals or with an underscore are the interpreter's."""
    return [
        MixedFrame(name, "libpython" if "Py" in name else "libc", is_interpreter="Py" in name)
        for name in names
    ]


def to_python(*names: str) -> list[PythonFrame]:
    """Functions by name; a star says that C called it."""
    return [PythonFrame(name.rstrip("*"), "a.py", name.endswith("*")) for name in names]


def words(frames: tuple[MixedFrame, ...]) -> list[str]:
    """The names, Python ones with a prefix."""
    return [f"py {one.function}" if one.is_python else one.function for one in frames]


def test_runs_take_the_places_of_the_loops() -> None:
    """Each loop of the interpreter is replaced by the functions that it runs."""
    native = to_native("recv", "PySock", LOOP, "PyCall", "sort", f"{LOOP}.cold", "main")
    python = to_python("inner", "outer*", "key*")

    mixed = mix(native, python, is_exact=True, is_whole=True)

    expected = ["recv", "PySock", "py inner", "py outer", "PyCall", "sort", "py key", "main"]
    assert (words(mixed.frames), mixed.grade) == (expected, "exact")


@pytest.mark.parametrize(
    ("is_exact", "loops", "is_whole", "grade"),
    [
        (True, 2, True, "exact"),
        (False, 2, True, "near"),
        (True, 1, True, "near"),
        (True, 3, True, "near"),
        (True, 1, False, "exact"),
        (True, 0, False, "near"),
    ],
)
def test_grade_says_how_sure_it_is(is_exact: bool, loops: int, is_whole: bool, grade: str) -> None:
    """Frames are only called exact where both kinds match and nothing has moved."""
    native = to_native("recv", *[LOOP] * loops)
    python = to_python("inner*", "outer*")

    mixed = mix(native, python, is_exact=is_exact, is_whole=is_whole)

    assert mixed.grade == grade
    assert [one.function for one in mixed.frames if one.is_python] == ["inner", "outer"]


@pytest.mark.parametrize(
    ("native", "python", "grade"), [(["a"], [], "native"), ([], ["b*"], "python")]
)
def test_one_kind_alone_is_what_it_is(native: list[str], python: list[str], grade: str) -> None:
    """A thread that runs no Python, and one whose native stack is unknown, are told as such."""
    mixed = mix(to_native(*native), to_python(*python), is_exact=True, is_whole=True)

    assert (len(mixed.frames), mixed.grade) == (1, grade)


def test_hiding_keeps_what_the_author_wrote() -> None:
    """Only the interpreter's own ways of calling are left out, and what started it."""
    native = to_native(
        "recv", "PySock", "PyObject_Vectorcall", LOOP, "PyCall", "sort", LOOP, "main"
    )
    mixed = mix(native, to_python("f*", "g*"), is_exact=True, is_whole=True)

    shown = hide_interpreter(mixed.frames)

    assert words(shown) == ["recv", "PySock", "py f", "sort", "py g"]
