"""Captures in, a Report out: no I/O, no clock, no chance. `analyse` is the one way in."""

from __future__ import annotations

from perfkit.analysis.analyse import analyse

__all__ = ["analyse"]
