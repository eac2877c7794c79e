"""Who may import whom: native < floor < collectors < agent < fetch < cli, and
floor < analysis < report < export < cli, and floor < symbols < report. The Capture is all that lies
between the two sides."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from source_tree import list_imports, read_modules

FLOOR = (
    "__init__",
    "allowance",
    "model",
    "units",
    "errors",
    "interrupts",
    "config",
    "codec",
    "dump",
    "host",
    "discover",
    "findings",
    "histogram",
    "losses",
    "shared_histograms",
    "stacks",
)
# A layer may import itself and these.
ALLOWED = {
    "_native": (),
    "floor": ("_native",),
    "collectors": ("floor", "_native"),
    "agent": ("floor", "_native", "collectors"),
    "fetch": ("floor", "agent"),
    "analysis": ("floor",),
    "symbols": ("floor",),
    "report": ("floor", "analysis", "symbols"),
    "export": ("floor", "analysis", "report", "symbols"),
    "store": ("floor", "analysis"),
    "fleet": ("floor", "analysis"),
    "cli": ("floor", "agent", "fetch", "analysis", "symbols", "report", "export", "store", "fleet"),
    "__main__": ("floor", "cli"),
    "demo": ("floor", "cli"),
}
# Analysis is a function of captures: no files, no clock, no chance, no output.
OUTSIDE = (
    "asyncio",
    "ctypes",
    "glob",
    "importlib",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "psutil",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
)
OUTSIDE_CALLS = ("open", "print", "input", "exec", "eval", "now", "utcnow", "today")
MODULES = sorted(read_modules())


def layer_of(module: str) -> str:
    """The layer of a module of ours, by its dotted name; names behind it do not matter."""
    part = [*module.split("."), "__init__"][1]
    if part in ALLOWED:
        return part
    # `from perfkit import x` takes x from the floor, unless x is a package.
    return "floor"


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_from_the_layers_below(name: str) -> None:
    """No module reaches up or across."""
    own = layer_of(name)
    ours = [one for one in list_imports(name, read_modules()[name]) if one[0].startswith("perfkit")]

    wrong = [
        f"{name}:{line} imports {target}"
        for target, line in ours
        if layer_of(target) not in (own, *ALLOWED[own])
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [one for one in MODULES if layer_of(one) == "floor"])
def test_floor_is_known(name: str) -> None:
    """A new module at the top of the package is part of the floor by decision, not by accident."""
    assert [*name.split("."), "__init__"][1] in FLOOR


@pytest.mark.parametrize("name", [one for one in MODULES if layer_of(one) == "analysis"])
def test_analysis_does_not_touch_the_world(name: str) -> None:
    """Analysis imports nothing that reads a file, a clock or chance."""
    targets = list_imports(name, read_modules()[name])

    wrong = [f"{name}:{line} {one}" for one, line in targets if one.split(".")[0] in OUTSIDE]
    assert wrong == []


@pytest.mark.parametrize("name", [one for one in MODULES if layer_of(one) == "analysis"])
def test_analysis_calls_nothing_from_the_world(name: str) -> None:
    """Analysis opens nothing, prints nothing, asks no clock, and seeds what it draws."""
    calls = [one for one in ast.walk(read_modules()[name]) if isinstance(one, ast.Call)]

    wrong = [
        f"{name}:{call.lineno} {called}"
        for call in calls
        for called in [getattr(call.func, "id", getattr(call.func, "attr", ""))]
        if called in OUTSIDE_CALLS
        or (called == "default_rng" and not call.args and not call.keywords)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "package",
    ["perfkit.collectors", "perfkit.analysis", "perfkit.export", "perfkit.agent", "perfkit.cli"],
)
def test_top_level_collectors_is_never_imported(package: str) -> None:
    """`collectors` at the top is the name of other people's folders; ours is perfkit.collectors."""
    program = (
        "import importlib, sys; from perfkit import discover\n"
        f"for name in discover.names({package!r}):\n"
        f"    importlib.import_module({package!r} + '.' + name)\n"
        "print('collectors' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "False"
