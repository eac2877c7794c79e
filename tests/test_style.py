"""The limits and names of the house style; a limit that is not checked is not kept."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from source_tree import ROOT, list_files, read_modules, to_name

FUNCTION_LIMIT_LINES = 70
FILE_LIMIT_LINES = 400
LINE_LIMIT = 100
ARGUMENT_LIMIT = 5
NESTING_LIMIT = 3
BANNED = {"data", "info", "manager", "util", "utils", "helper", "helpers", "node"}
# Words of others in our names: the kernel's and the C library's own.
FOREIGN = {"tcp_info", "siginfo", "meminfo", "mountinfo", "cpuinfo", "fdinfo", "numa_node"}
FOREIGN |= {"data_segments_in", "data_segments_out"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
# Functions whose arguments are what typer makes options of: the command line is the struct.
ARGUMENT_EXCEPTIONS = {
    "perfkit.cli.diagnose.diagnose",
    "perfkit.cli.flame.flame",
    "perfkit.cli.record.record",
    "perfkit.cli.report.report",
}
# Guards around one read each; taken apart they read worse.
NESTING_EXCEPTIONS = {"perfkit.agent.loop._watch", "perfkit.agent.target._find_siblings"}
# argparse knows no other way to word its errors.
HEIR_EXCEPTIONS = {"_Parser(argparse.ArgumentParser)"}

FILES = {to_name(path): path for path in list_files()}
SOURCES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    if name.endswith((".py", ".c", ".h", ".pyi"))
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def list_functions(name: str) -> list[tuple[str, Function]]:
    """Every function of a module, with its class in front of its name."""
    found: list[tuple[str, Function]] = []
    places: list[tuple[str, ast.AST]] = [(name, read_modules()[name])]
    while places:
        place, parent = places.pop()
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, Function):
                found.append((f"{place}.{child.name}", child))
            inner = getattr(child, "name", "")
            is_scope = isinstance(child, Function | ast.ClassDef)
            places.append((f"{place}.{inner}" if is_scope else place, child))
    return found


def measure_nesting(function: Function) -> int:
    """How deep blocks lie in one another; an `elif` is no deeper than its `if`."""
    deepest = 0
    places: list[tuple[int, ast.AST]] = [(0, child) for child in function.body]
    while places:
        depth, place = places.pop()
        is_block = isinstance(place, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.Match)
        depth += is_block
        deepest = max(deepest, depth)
        for child in ast.iter_child_nodes(place):
            is_elif = isinstance(place, ast.If) and place.orelse == [child] and _is_if(child)
            if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
                places.append((depth - is_elif, child))
    return deepest


def _is_if(child: ast.AST) -> bool:
    return isinstance(child, ast.If)


def list_names(name: str) -> set[str]:
    """The names that a module coins: its own, and those of its functions, classes and variables."""
    found = {name.rsplit(".", maxsplit=1)[-1]}
    for node in ast.walk(read_modules()[name]):
        if isinstance(node, Function | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, Function):
            given = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
            found |= {argument.arg for argument in given}
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def to_words(name: str) -> list[str]:
    """The words of a snake_case or CamelCase name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")


@pytest.mark.parametrize("name", sorted(FILES))
def test_file_is_short(name: str) -> None:
    """A file can be read at one sitting."""
    assert len(FILES[name].read_text().splitlines()) <= FILE_LIMIT_LINES


@pytest.mark.parametrize("name", sorted(FILES))
def test_functions_are_short(name: str) -> None:
    """A function fits a screen."""
    lengths = {
        place: (function.end_lineno or 0) - function.lineno + 1
        for place, function in list_functions(name)
    }

    assert {place for place, length in lengths.items() if length > FUNCTION_LIMIT_LINES} == set()


@pytest.mark.parametrize("name", sorted(FILES))
def test_functions_take_few_arguments(name: str) -> None:
    """Beyond five positional arguments a struct says what they are."""
    counts = {
        place: len([one for one in function.args.args if one.arg not in ("self", "cls")])
        for place, function in list_functions(name)
    }

    many = {place for place, count in counts.items() if count > ARGUMENT_LIMIT}
    assert many - ARGUMENT_EXCEPTIONS == set()


@pytest.mark.parametrize("name", sorted(FILES))
def test_functions_nest_little(name: str) -> None:
    """Nobody has to keep more than three conditions in mind."""
    depths = {place: measure_nesting(function) for place, function in list_functions(name)}

    deep = {place for place, depth in depths.items() if depth > NESTING_LIMIT}
    assert deep - NESTING_EXCEPTIONS == set()


@pytest.mark.parametrize("name", sorted(FILES))
def test_names_say_something(name: str) -> None:
    """Words that fit everything name nothing."""
    empty = {
        one
        for one in list_names(name)
        if one.lower().strip("_") not in FOREIGN and BANNED & set(to_words(one))
    }

    assert empty == set()


@pytest.mark.parametrize("name", sorted(FILES))
def test_public_functions_have_a_docstring(name: str) -> None:
    """What others call says what it does, in a full sentence."""
    tree = read_modules()[name]
    public = [
        one
        for one in ast.iter_child_nodes(tree)
        if isinstance(one, Function | ast.ClassDef) and not one.name.startswith("_")
    ]

    lacking = {
        one.name
        for one in public
        if not (ast.get_docstring(one) or "").split("\n\n")[0].rstrip().endswith((".", "!", "?"))
    }
    assert lacking == set()


@pytest.mark.parametrize("name", sorted(FILES))
def test_classes_inherit_nothing_but_values_and_errors(name: str) -> None:
    """Values are structs, errors are exceptions, choices are enums; nothing else has a parent."""
    allowed = re.compile(r"(Struct|NamedTuple|Protocol|\w*Enum|IntFlag|\w*Error|\w*Exception)")
    classes = [one for one in ast.walk(read_modules()[name]) if isinstance(one, ast.ClassDef)]

    heirs = {
        f"{one.name}({ast.unparse(base)})"
        for one in classes
        for base in one.bases
        if not allowed.fullmatch(ast.unparse(base).split(".")[-1])
    }
    assert heirs - HEIR_EXCEPTIONS == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_has_no_long_line_and_no_loose_end(path: Path) -> None:
    """Lines are at most 100 columns, and what is unfinished is not in the tree."""
    lines = path.read_text().splitlines()

    wrong = [
        f"{path.name}:{number}"
        for number, line in enumerate(lines, 1)
        if len(line) > LINE_LIMIT or (UNFINISHED.search(line) and path != Path(__file__))
    ]
    assert wrong == []
