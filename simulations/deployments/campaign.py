"""Every fault that a deployment must survive, on the real thing: `python -m simulations.deployments.campaign`.

Each federation is a server, three client processes and six devices on this machine. Without --only, all faults; the
table goes to results/faults.md beside this file.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import traceback
from pathlib import Path

from simulations.deployments.faults import FAULTS, QUICK
from simulations.deployments.trial import Outcome

RESULTS = Path(__file__).parent / "results" / "faults.md"
_HEAD = """# Faults and what came of them

`python -m simulations.deployments.campaign`: a site and six devices in three processes, over TLS on the loopback;
masked `user-distributed` rounds at the replayable noise level `test`, unless the row says otherwise. *Model* compares
the last model with that of the same task in one process, byte for byte: with everybody, or without those whose
updates a fault kept out of a sum. *Ledger* holds the server's charges against its releases, and every device's own
count against the sums that it is in.

| fault | finished | model | ledger | seconds | |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Run the faults, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--only", nargs="+", choices=[*FAULTS], help="only these; the table is printed, not written")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the federations there")
    asked = parser.parse_args()
    names = asked.only or (QUICK if asked.quick else [*FAULTS])
    rows = [row(name, keep=asked.keep) for name in names]
    if not asked.only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(_HEAD + "\n".join(rows) + "\n")


def row(name: str, *, keep: bool = False) -> str:
    """One fault as a line of the table, which is also printed."""
    folder = Path(tempfile.mkdtemp(prefix="fault-"))
    began = time.monotonic()
    try:
        outcome = FAULTS[name](folder)
    except Exception:
        traceback.print_exc()
        outcome = Outcome(False, "—", "—", time.monotonic() - began, "the campaign itself failed")
    cells = [name, "yes" if outcome.finished else "**no**", outcome.model, outcome.ledger, f"{outcome.seconds:.0f}"]
    line = f"| {' | '.join([*cells, outcome.notes])} |"
    print(line, flush=True)
    if keep:
        print(folder, flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return line


if __name__ == "__main__":
    main()
