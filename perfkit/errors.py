"""Every error that perfkit raises on purpose.

PerfkitError            exit code 3, nothing could be measured (unless a subclass says otherwise)
  UsageError            exit code 2, the command line is wrong
  ConfigError           exit code 2, a configuration file is wrong
  CaptureError          exit code 3, bytes that are not a readable capture
  NativeMissing         exit code 3, the C extension is not built
  TargetError           exit code 3, no such process, or it died before the window began
  RunError              exit code 3, a saved run cannot be found, read or written
  FetchError            exit code 3, another host gave no capture
Unavailable             not an error: this host lacks a source, or refuses it to us

Only the entry point of the CLI catches PerfkitError; Unavailable is caught by the agent's loop,
which writes it into the capture as the collector's status.
"""

from __future__ import annotations


class PerfkitError(Exception):
    """Something the user can act on: what went wrong, where, and what to do about it."""

    exit_code = 3

    def __init__(self, what: str, *, fix: str = "", effect: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.effect = effect


class UsageError(PerfkitError):
    """The command line cannot be carried out as it stands."""

    exit_code = 2


class ConfigError(PerfkitError):
    """A configuration file cannot be read, or holds what no setting is."""

    exit_code = 2


class CaptureError(PerfkitError):
    """Bytes that are no capture, a damaged one, or one of a later version."""


class NativeMissing(PerfkitError):  # noqa: N818 (a state of the installation)
    """The C extension is absent, so nothing can be sampled on this host."""


class TargetError(PerfkitError):
    """The target does not exist, or was gone before anything was measured."""


class RunError(PerfkitError):
    """A saved run is missing, ambiguous, unreadable or could not be written."""


class FetchError(PerfkitError):
    """Another host could not be reached, or did not give a whole capture."""


class Unavailable(Exception):  # noqa: N818 (not an error)
    """A source that this host lacks or refuses; `grant` says what would make it readable.

    `is_silent` marks a file that did not answer when it was read, and is not tried again.
    """

    def __init__(self, reason: str, *, grant: str = "", is_silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.grant = grant
        self.is_silent = is_silent
