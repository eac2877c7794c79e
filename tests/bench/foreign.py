"""perfkit judged on servers that are not ours: every fault, every form; prints a table.

Some hour for all of it; `--results FILE` keeps each outcome as a line of JSON and a run that is in
it already is not repeated, so that a matrix that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from foreign.lab import SERVERS, missing
from foreign.matrix import SEED_COUNT, Run, execute, list_runs, what_lacks
from foreign.run import print_table
from measuring import alone


def read_done(results: Path) -> set[Run]:
    """The runs that a results file holds."""
    lines = results.read_text().splitlines() if results.exists() else []
    rows = [json.loads(line) for line in lines]
    return {Run(row["server"], row["fault"], row["form"], row["seed"]) for row in rows}


def main() -> None:
    """Runs what is not done yet, and prints the table of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", choices=SERVERS)
    parser.add_argument("--seeds", type=int, default=SEED_COUNT)
    parser.add_argument("--results", type=Path, default=Path("demo-out/foreign.jsonl"))
    parser.add_argument("--keep", type=Path, help="a folder for the captures")
    options = parser.parse_args()
    more = ["--results", str(options.results.resolve())]
    more += ["--keep", str(options.keep.resolve())] if options.keep else []
    options.results.parent.mkdir(parents=True, exist_ok=True)
    done = read_done(options.results)
    for run in list_runs(tuple(options.server or SERVERS), options.seeds):
        lacks = missing(run.server) or what_lacks(run)
        if lacks or run in done:
            print(f"{run}: {lacks or 'done before'}", flush=True)
            continue
        with alone():
            ended = execute(run, *more)
        print(f"{run}: {ended.stdout.strip() or ended.stderr.strip()[-300:]}", flush=True)
    print_table(options.results)


if __name__ == "__main__":
    main()
