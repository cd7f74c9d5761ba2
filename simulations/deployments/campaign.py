"""Every fault that a deployment must survive, on the real thing: `python -m simulations.deployments.campaign`.

Each federation is a server and three client processes on this machine. The table is in results/faults.md beside this
file; with --only, it gets new rows for those faults and keeps the others.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from simulations.deployments.faults import FAULTS, QUICK
from simulations.deployments.trial import Outcome

RESULTS = Path(__file__).parent / "results" / "faults.md"
_HEAD = """# Faults and what came of them

Made by `python -m simulations.deployments.campaign`: a site and six devices (ten where some are lost) in three
processes, over TLS on the loopback. Rounds are masked, mode `user-distributed` at the replayable noise level `test`,
unless the row says otherwise.

*Model* compares the last model with that of the same task in one process, byte for byte: with everybody, or without
those whose updates a fault kept out of a sum. *Ledger* holds the server's charges against its releases, and every
device's own count against the sums that it is in.

Not here: power cuts, for a killed process leaves what it wrote in the hands of the kernel.

| fault | finished | model | ledger | seconds | |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Run the faults, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--only", nargs="+", choices=[*FAULTS], metavar="NAME", help=f"only these: {', '.join(FAULTS)}")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the federations there")
    asked = parser.parse_args()
    for name in asked.only or (QUICK if asked.quick else [*FAULTS]):
        line = row(name, keep=asked.keep)
        print(line, flush=True)
        write({**known(), name: line})


def row(name: str, *, keep: bool = False) -> str:
    """One fault as a line of the table."""
    folder = Path(tempfile.mkdtemp(prefix="fault-"))
    began = time.monotonic()
    try:
        outcome = FAULTS[name](folder)
    except Exception:
        traceback.print_exc()
        outcome = Outcome(False, "—", "—", time.monotonic() - began, "the campaign itself failed")
    if keep:
        print(folder, flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    cells = [name, "yes" if outcome.finished else "**no**", outcome.model, outcome.ledger, f"{outcome.seconds:.0f}"]
    return f"| {' | '.join([*cells, outcome.notes])} |"


def known() -> dict[str, str]:
    """The rows of the table as it is, by fault."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    return {name: line for name, line in rows.items() if name in FAULTS}


def write(rows: Mapping[str, str]) -> None:
    """The table, in the order of `FAULTS`."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(_HEAD + "".join(f"{rows[name]}\n" for name in FAULTS if name in rows))


if __name__ == "__main__":
    main()
