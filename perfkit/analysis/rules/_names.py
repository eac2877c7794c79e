"""How rules call a process of the service."""

from __future__ import annotations

from perfkit.analysis.case import Case


def name_process(case: Case, pid: int) -> str:
    """The name of a process with its pid; untrusted text, "?" where it was never told."""
    names = {process.pid: process.name for process in case.aligned.header.target.processes}
    return f"{names.get(pid) or case.thread_names.get((pid, pid), '?')} ({pid})"
