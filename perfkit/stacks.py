"""Tables of stacks: profiles of any number of hosts added, compared and drawn, in C."""

from __future__ import annotations

from perfkit._native import StackTable, StackTree

__all__ = ["StackTable", "StackTree"]
