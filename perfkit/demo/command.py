"""The demo's command line: `run` for people; `service`, `shard` and `load` are its processes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from perfkit import discover
from perfkit.demo import control
from perfkit.demo.options import FAULTS, FRONTS, LoadOptions, Plan, ServiceOptions, WorldOptions
from perfkit.errors import PerfkitError

USAGE_EXIT_CODE = 2


class _Parser(argparse.ArgumentParser):
    """One clear line for a wrong command line, not the whole usage."""

    def error(self, message: str) -> Any:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(USAGE_EXIT_CODE)


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--front", choices=discover.names(FRONTS), default="threads")
    parser.add_argument("--worker-count", type=int, default=8, help="threads of the worker pool")
    parser.add_argument(
        "--candidate-count", type=int, default=1024, help="items ranked: the model's cost"
    )
    parser.add_argument("--pad-bytes", type=int, default=0, help="make each answer longer by this")


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loop", choices=("open", "closed"), default="open")
    parser.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--rate-hertz", type=float, default=40.0, help="arrivals of the open loop")
    parser.add_argument("--connection-count", type=int, default=16)
    parser.add_argument("--think-s", type=float, default=0.0, help="a closed loop's pause")


def _add_run(parser: argparse.ArgumentParser) -> None:
    faults = ("none", *discover.names(FAULTS))
    _add_service(parser)
    _add_load(parser)
    parser.add_argument("--fault", choices=faults, help="default: cpu_throttled where root may")
    parser.add_argument("--seed", type=int, default=1, help="draws the fault's strength and place")
    parser.add_argument("--mild", action="store_true", help="a near miss: present but harmless")
    parser.add_argument("--warm-up-s", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to stay")
    parser.add_argument("--diagnose", action="store_true", help="run perfkit diagnose, then end")
    parser.add_argument("--exec", default="", help="run this command instead, {pid} is filled in")
    parser.add_argument("--out", default="demo-out", help="folder for the Markdown report")
    parser.add_argument("--state-file", default="", help="keep ports and pids here, as JSON")


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser of the whole command line."""
    parser = _Parser(prog="perfkit.demo", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    _add_run(roles.add_parser("run", help="start everything, switch a fault on, look at it"))
    for role in ("service", "shard", "load", "burner"):
        child = roles.add_parser(role, help=f"one {role} process (started by run)")
        child.add_argument("--parent", type=int, default=0, help="die with this process")
        child.add_argument("--seed", type=int, default=1)
        if role == "service":
            _add_service(child)
            child.add_argument("--shard-ports", type=_ports, required=True)
            child.add_argument("--features-path", required=True)
        if role == "burner":
            child.add_argument("--duty", type=float, default=1.0, help="share of a CPU to burn")
            child.add_argument("--nice", type=int, default=0)
        if role == "load":
            _add_load(child)
            child.add_argument("--port", type=int, required=True)
    return parser


def _ports(text: str) -> tuple[int, ...]:
    return tuple(int(port) for port in text.split(","))


def _run_child(values: dict[str, Any]) -> int:
    role, parent_pid = values.pop("role"), values.pop("parent")
    if parent_pid:
        control.die_with(parent_pid)
    if role == "service":
        from perfkit.demo import service

        service.main(ServiceOptions(**values))
    elif role == "load":
        from perfkit.demo import load

        load.main(LoadOptions(**values))
    elif role == "burner":
        from perfkit.demo import burner

        burner.main(values["duty"], values["nice"])
    else:
        from perfkit.demo import shard

        shard.main(values["seed"])
    return 0


def _run_demo(values: dict[str, Any]) -> int:
    from perfkit.demo import run

    def pick(struct: Any) -> Any:
        fields = struct.__struct_fields__
        return struct(**{name: value for name, value in values.items() if name in fields})

    options = WorldOptions(pick(ServiceOptions), pick(LoadOptions), values["seed"], values["mild"])
    return run.run(options, pick(Plan))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one role; the exit code is 2 for a wrong command line, 1 where the demo failed."""
    values = vars(make_parser().parse_args(arguments))
    if values["role"] != "run":
        return _run_child(values)
    try:
        return _run_demo(values)
    except PerfkitError as error:
        sys.stderr.write(f"demo: {error.what}" + (f" ({error.fix})" if error.fix else "") + "\n")
        return 1
