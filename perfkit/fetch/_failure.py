"""Says in one line why another host gave no capture, and what to do about it.

What ssh, sudo, the shell and the agent say is untrusted text; it is quoted, never obeyed.
"""

from __future__ import annotations

import shlex

from msgspec import Struct

from perfkit import __version__
from perfkit.agent.wire import PROTOCOL, Hello
from perfkit.config import HostSettings
from perfkit.errors import FetchError
from perfkit.fetch._inbox import Inbox, Journal
from perfkit.units import to_text

NOT_EXECUTABLE, NOT_FOUND, SSH_FAILED, USAGE = 126, 127, 255, 2
# What agents say, those of earlier versions and of this one, to a command line that is none.
_USAGE_WORDS = ("usage: ", "perfkit-agent --help")


class Failure(Struct, frozen=True):
    """How a call ended. `ending` is "flood", "silence", "end", or "" where all bytes came."""

    host: str
    settings: HostSettings
    inbox: Inbox
    journal: Journal
    code: int | None
    ending: str


def explain(failure: Failure) -> FetchError:
    """The error for a call that brought no whole capture."""
    host, journal = failure.host, failure.journal
    effect = f"nothing was measured on {host}"
    if journal.refusal is not None:
        told = journal.refusal
        error = FetchError(f"{host}: {told.what}", fix=told.fix, effect=told.effect or effect)
        error.exit_code = USAGE if told.exit_code == USAGE else FetchError.exit_code
        return error
    what, fix = _word(failure)
    return FetchError(what, fix=fix, effect=effect)


def _word(failure: Failure) -> tuple[str, str]:
    """What went wrong, and the fix."""
    host, inbox, hello = failure.host, failure.inbox, failure.journal.hello
    if failure.ending == "flood":
        count = inbox.noise_bytes + inbox.got_bytes + failure.journal.read_bytes
        words = f"{host} sent {to_text(count, 'bytes')} that are no capture"
        return words, f"look at what it prints: {_try(failure)}"
    if inbox.is_found:
        whole = "" if inbox.size_bytes is None else f" of {to_text(inbox.size_bytes, 'bytes')}"
        got = to_text(inbox.got_bytes, "bytes")
        return f"the capture of {host} was cut off: {got}{whole} came", "run it again"
    if hello is not None:
        return _word_agent(failure, hello)
    after = _word_remark(failure)
    if failure.ending == "silence":
        return f"no answer from {host}{after}", f"try it by hand: {_try(failure)}"
    if failure.code == SSH_FAILED:
        return f"cannot reach {host}{after}", f"make this work first: {_try(failure)}"
    return _word_shell(failure, after)


def _word_agent(failure: Failure, hello: Hello) -> tuple[str, str]:
    """The agent had begun, and sent nothing of its capture."""
    host, after = failure.host, _word_remark(failure)
    if hello.protocol != PROTOCOL:
        version = hello.perfkit_version[:40]
        words = f"perfkit-agent {version} on {host} does not fit perfkit {__version__} here"
        return words, "install the same version on both hosts"
    if failure.ending == "silence":
        return f"{host} went silent before its capture came", f"run it again, or: {_try(failure)}"
    if failure.code == SSH_FAILED:
        return f"the connection to {host} was lost before its capture came{after}", "run it again"
    words = f"perfkit-agent on {host} ended without a capture (exit code {failure.code}){after}"
    return words, f"run it there: {failure.settings.agent} record --seconds 1 -o /dev/null"


def _word_shell(failure: Failure, after: str) -> tuple[str, str]:
    """The host was reached, but nothing that speaks as an agent does was heard."""
    host, agent = failure.host, failure.settings.agent
    said = " ".join(failure.journal.remarks)
    if failure.settings.sudo and "sudo: " in said and failure.code == NOT_FOUND:
        words = f"sudo is not installed on {host}"
        return words, f'leave it out: [hosts."{host}"] sudo = false'
    if failure.code == NOT_FOUND or "command not found" in said:
        words = f"{agent} is not installed on {host}"
        return words, (
            f"pip install perfkit on {host}, or say where it is: in the configuration, "
            f'[hosts."{host}"] agent = "/path/to/perfkit-agent"'
        )
    if failure.settings.sudo and "sudo" in said:
        words = f"sudo on {host} did not run perfkit-agent{after}"
        return words, f"allow it without a password, in sudoers: USER ALL=(root) NOPASSWD: {agent}"
    if failure.code == NOT_EXECUTABLE:
        return f"{agent} cannot be run on {host}{after}", f"check its rights on {host}"
    if failure.code == USAGE and any(words in said for words in _USAGE_WORDS):
        words = f"perfkit-agent on {host} is another version and does not know what was asked"
        return words, f"install perfkit {__version__} on {host}"
    words = f"what ran on {host} is no perfkit-agent (exit code {failure.code}){after}"
    return words, f"look at what it prints: {_try(failure, f'{agent} --version')}"


def _word_remark(failure: Failure) -> str:
    """The last words on stderr."""
    remarks = failure.journal.remarks
    return f": {remarks[-1]}" if remarks else ""


def _try(failure: Failure, command: str = "true") -> str:
    options = "".join(f"{shlex.quote(one)} " for one in failure.settings.ssh_options)
    return f"ssh {options}-o BatchMode=yes -- {failure.host} {command}"
