"""Finds what a package offers by the names of its files; imports a file only when it is used."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any


def names(package: str) -> tuple[str, ...]:
    """The modules of a package by file name, sorted; a leading underscore makes one private."""
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    found = (entry.name for entry in os.scandir(folder) if entry.name.endswith(".py"))
    return tuple(sorted(name[:-3] for name in found if not name.startswith("_")))


def load(package: str, name: str, attribute: str) -> Any:
    """Imports `package.name` and gives its `attribute`."""
    return getattr(importlib.import_module(f"{package}.{name}"), attribute)


def find(package: str, name: str, attribute: str) -> Any:
    """Imports `package.name` and gives its `attribute`; None where it has none."""
    return getattr(importlib.import_module(f"{package}.{name}"), attribute, None)


def load_all(package: str, attribute: str) -> dict[str, Any]:
    """Every module of the package that has `attribute`, by file name, in sorted order."""
    found = {}
    for name in names(package):
        module = importlib.import_module(f"{package}.{name}")
        if hasattr(module, attribute):
            found[name] = getattr(module, attribute)
    return found
