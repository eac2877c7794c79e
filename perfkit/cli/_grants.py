"""The exact grant that makes sources readable, in the words of the place where perfkit runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from perfkit.agent.doctor import Check, Place

PLACES: tuple[Place, ...] = ("bare metal", "systemd", "docker", "kubernetes")
PLACE_WORDS: dict[Place, str] = {
    "bare metal": "Bare metal or a virtual machine",
    "systemd": "systemd, in the unit",
    "docker": "Docker",
    "kubernetes": "Kubernetes, in the pod's spec",
}
_CAPABILITY = re.compile(r"CAP_[A-Z_]+")
_KERNEL_LOG = "CAP_SYSLOG"


def find_capabilities(checks: Iterable[Check]) -> list[str]:
    """The capabilities that the grants of all checks name."""
    return sorted({name for check in checks for name in _CAPABILITY.findall(check.grant)})


def find_others(checks: Iterable[Check]) -> list[str]:
    """Grants that are no capability: packages, parameters of the kernel."""
    grants = (f"{one.source}: {one.grant}" for one in checks if one.grant)
    return [grant for grant in grants if not _CAPABILITY.search(grant)]


def to_grant(place: Place, capabilities: list[str], host: str) -> list[str]:
    """The lines to write, for one place; `host` is "." or the name by which it was reached."""
    if place == "bare metal":
        return _bare_metal(host)
    if place == "systemd":
        return _systemd(capabilities)
    return (_docker if place == "docker" else _kubernetes)(capabilities)


def _bare_metal(host: str) -> list[str]:
    if host == ".":
        return ["sudo perfkit diagnose ."]
    return [f'[hosts."{host}"]', "sudo = true", "# in the file that perfkit config path names"]


def _systemd(capabilities: list[str]) -> list[str]:
    names = " ".join(capabilities)
    logs = ["ProtectKernelLogs=no", "PrivateDevices=no"] if _KERNEL_LOG in capabilities else []
    return [
        "[Service]",
        f"AmbientCapabilities={names}",
        f"CapabilityBoundingSet={names}",
        "ProtectProc=default",
        "PrivateUsers=no",
        *logs,
    ]


def _docker(capabilities: list[str]) -> list[str]:
    log = ["--device=/dev/kmsg"] if _KERNEL_LOG in capabilities else []
    flags = ["--user=0", "--pid=host", "--cgroupns=host", *log]
    flags += [f"--cap-add={name.removeprefix('CAP_')}" for name in capabilities]
    return ["docker run \\", *(f"  {flag} \\" for flag in flags), "  IMAGE perfkit diagnose ."]


def _kubernetes(capabilities: list[str]) -> list[str]:
    names = ", ".join(name.removeprefix("CAP_") for name in capabilities)
    return [
        "spec:",
        "  hostPID: true",
        "  containers:",
        "  - name: perfkit",
        "    securityContext:",
        "      runAsUser: 0",
        "      capabilities:",
        f"        add: [{names}]",
    ]
