"""Records the captures that rules are tested with: `python tests/record_captures.py [NAME ...]`.

Each is a real run of the demo service, cut to a few seconds and redacted: host, paths and boot id
say nothing of the machine it was made on but its CPU, its cores and its kernel. Run it on a quiet
machine, as root; NAME picks some, such as `cpu_throttled.fires.threads`.
`--from FILE NAME` takes the capture of another service, such as `foreign/run.py --keep` leaves.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from msgspec import structs

from perfkit import codec, discover
from perfkit.demo.look import find_perfkit
from perfkit.demo.options import FAULTS
from perfkit.model import Capture, ColumnType, ProcessRef, Table

FOLDER = Path(__file__).parent / "captures"
SECONDS = 4.0
# Where everything moves at every tick, less of it shows as much.
SECONDS_OF = {"load_saturation": 3.2}
COMPRESSION_LEVEL = 19
SIZE_LIMIT_BYTES = 100_000
FRONTS = ("threads", "asyncio")
# A front that shows a cause in no way that differs from another's is left out.
FRONTS_OF = {
    "event_loop_blocked": ("asyncio",),
    "lock_contention": ("threads",),
    "spin_lock_contention": ("threads",),
    "thread_pool_exhausted": ("threads",),
}
# An event loop and its executor on one CPU do wait for it: no mild form is harmless there.
NOT_MILD = {("cpu_affinity", "asyncio")}
# What no rule reads, and what tells most about a machine.
LEFT_OUT = ("sampler_ticks",)
KEPT_METRICS = ("cpu_seconds_total",)


def names() -> dict[str, list[str]]:
    """Every capture's name and the demo's arguments that make it."""
    wanted = {}
    for front in FRONTS:
        wanted[f"healthy.{front}"] = ["--front", front, "--fault", "none"]
        for rule in discover.names(FAULTS):
            if front not in FRONTS_OF.get(rule, FRONTS):
                continue
            arguments = ["--front", front, "--fault", rule]
            wanted[f"{rule}.fires.{front}"] = arguments
            if (rule, front) not in NOT_MILD:
                wanted[f"{rule}.near_miss.{front}"] = [*arguments, "--mild"]
    return wanted


def redact(capture: Capture) -> Capture:
    """Takes out what identifies the machine."""
    header = capture.header
    processes = tuple(_redact_process(process) for process in header.target.processes)
    return structs.replace(
        capture,
        header=structs.replace(
            header,
            host="host-1",
            clock=structs.replace(header.clock, boot_id=""),
            target=structs.replace(header.target, processes=processes, siblings=()),
        ),
        tables={
            name: cut_series(table, capture.strings) if name == "series" else table
            for name, table in capture.tables.items()
            if name not in LEFT_OUT
        },
        strings=tuple(_redact_text(text) for text in capture.strings),
    )


def cut_series(table: Table, strings: tuple[str, ...]) -> Table:
    """Keeps the rows of the metrics that rules read."""
    names = [column.name for column in table.columns]
    metric = np.frombuffer(table.packed[names.index("metric")], dtype="<u4")
    kept = np.isin(metric, [place for place, text in enumerate(strings) if text in KEPT_METRICS])
    packed = []
    for column, values in zip(table.columns, table.packed, strict=True):
        size = 4 if column.type is ColumnType.TEXT else 8
        packed.append(np.frombuffer(values, dtype=f"V{size}")[kept].tobytes())
    return structs.replace(table, packed=tuple(packed), row_count=int(kept.sum()))


def _redact_process(process: ProcessRef) -> ProcessRef:
    return structs.replace(process, exe=_redact_text(process.exe))


def _redact_text(text: str) -> str:
    """Keeps the last part of file paths; cgroups of the demo and addresses stay as they are."""
    is_path = text.startswith("/") and not text.startswith("/perfkit-demo")
    if not is_path or text == "/":
        return text
    path = Path(text)
    # Of a package the name is its folder's.
    parts = path.parts[-2:] if path.name == "__init__.py" else path.parts[-1:]
    return "/".join(("/redacted", *parts))


def record(name: str, arguments: list[str]) -> None:
    """Runs the demo, records its service and writes the redacted capture."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        seconds = SECONDS_OF.get(name.partition(".")[0], SECONDS)
        command = f"{find_perfkit()} record . --pid {{pid}} --seconds {seconds} -o {raw}"
        run = [sys.executable, "-m", "perfkit.demo", "run", *arguments, "--exec", command]
        subprocess.run(run, check=True)
        keep(name, raw)


def keep(name: str, raw: Path) -> None:
    """Writes a capture, redacted."""
    packed = codec.encode(redact(codec.decode(raw.read_bytes())), COMPRESSION_LEVEL)
    if len(packed) > SIZE_LIMIT_BYTES:
        raise SystemExit(f"{name}: {len(packed)} bytes is over the limit of {SIZE_LIMIT_BYTES}")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.perfkit").write_bytes(packed)
    print(f"{name}: {len(packed)} bytes")


def main(chosen: list[str]) -> None:
    """Records the chosen captures, or all."""
    for name, arguments in names().items():
        if not chosen or name in chosen:
            record(name, arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--from"]:
        keep(sys.argv[3], Path(sys.argv[2]))
    else:
        main(sys.argv[1:])
