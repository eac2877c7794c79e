"""A real sshd on loopback, with keys and configuration of its own, and perfkit pointed at it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

AGENT = Path(sys.executable).with_name("perfkit-agent")
START_LIMIT_S = 5.0
# Where Debian's sshd wants an empty folder when it runs as root.
PRIVILEGE_FOLDER = Path("/run/sshd")


@dataclass
class Hosts:
    """Names that ssh knows, and the environment in which perfkit does too."""

    folder: Path
    environment: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)

    def configure(self, host: str, *lines: str) -> None:
        """Says what perfkit is told about a host, in the place of what it was told before."""
        self.settings[host] = "\n".join([f'[hosts."{host}"]', *lines])
        path = self.folder / "perfkit" / "config.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(self.settings.values()))

    def script(self, name: str, text: str) -> Path:
        """Makes a program that stands in the agent's place."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def add(self, alias: str, *lines: str) -> None:
        """Adds a name for ssh."""
        path = self.folder / "ssh_config"
        with path.open("a") as out:
            out.write(f"Host {alias}\n" + "".join(f"  {line}\n" for line in lines))


def find_sshd() -> str:
    """The path of sshd, or the test is skipped."""
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd and ssh (openssh-server, openssh-client)")
    if not AGENT.exists():
        pytest.skip(f"needs {AGENT}, which installing perfkit makes")
    if os.geteuid() == 0:
        PRIVILEGE_FOLDER.mkdir(exist_ok=True)
    return found


def make_key(path: Path) -> Path:
    """A key without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@contextlib.contextmanager
def serving(folder: Path, address: str, port: int, *prefix: str) -> Iterator[None]:
    """Runs sshd until the end; `prefix` is what starts it elsewhere, e.g. in a namespace."""
    sshd = find_sshd()
    key = folder / "user_key"
    if not key.exists():
        make_key(key)
        (folder / "authorized").write_bytes(key.with_suffix(".pub").read_bytes())
    host_key = make_key(folder / f"host_key_{address}_{port}")
    config = folder / f"sshd_{address}_{port}"
    config.write_text(
        f"ListenAddress {address}\nPort {port}\nHostKey {host_key}\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nPrintMotd no\nMaxStartups 100\n"
    )
    command = [*prefix, sshd, "-D", "-e", "-f", str(config)]
    log = (folder / f"log_{address}_{port}").open("w")
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        await_port(address, port)
        yield
    finally:
        # What stands before sshd in a namespace does not heed the signal, and is killed with it.
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.kill()
        child.wait()
        log.close()


def await_port(address: str, port: int) -> None:
    """Waits until somebody listens."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection((address, port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                pytest.skip("sshd does not start here")
            time.sleep(0.05)


def find_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def to_options(folder: Path, address: str, port: int) -> list[str]:
    """What ssh must know of a host."""
    return [
        f"HostName {address}",
        f"Port {port}",
        f"User {getpass.getuser()}",
        f"IdentityFile {folder}/user_key",
        "IdentitiesOnly yes",
        f"UserKnownHostsFile {folder}/known_hosts",
        "StrictHostKeyChecking accept-new",
        "LogLevel ERROR",
    ]


def to_environment(folder: Path) -> dict[str, str]:
    """The environment of a user whose ssh and perfkit know these hosts."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    return {
        **kept,
        "TERM": "xterm",
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder),
        "PERFKIT_SSH_OPTIONS": f"-F {folder}/ssh_config",
    }
