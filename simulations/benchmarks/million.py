"""A million people on this machine: `python simulations/benchmarks/million.py`.

One private simulation, `user-central`, 10,000 clients a round for 20 rounds over people on disk, with an evaluation on
2,000 of them, all in one process under GNU time (`point.py`). The folder of people is made if it is not there, by
`fedrec data shard`, in ten minutes. Writes `million.md` and `million.json` into simulations/results; with `--quick`
into the work folder.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import machine, over_people, watched
from scaling import shards
from tables import million_table
from workload import WARM_UP

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Run:
    """How much there is to do."""

    people: int = 1_000_000
    cohort: int = 10_000
    rounds: int = 20
    encoder: str = "minilm"


QUICK = Run(people=2000, cohort=100, rounds=3, encoder="hash")


def main() -> None:
    """Run, measure, write."""
    given = over_people(__doc__)
    asked, work, facts = QUICK if given.quick else Run(), given.work.resolve(), machine()
    people = shards(given.people or work / f"people-{asked.people}", asked.people)
    out = work / "million.point.json"
    flags = [f"--cohort={asked.cohort}", f"--rounds={asked.rounds}", f"--encoder={asked.encoder}", "--evaluate"]
    usage = watched([sys.executable, HERE / "point.py", people, out, *flags], work / "million.log")
    found = json.loads(out.read_text())
    document = {"machine": facts} | asdict(asked) | asdict(usage) | found | {"seconds": found["seconds"][WARM_UP:]}
    place = work if given.quick else given.out
    (place / "million.json").write_text(json.dumps(document, indent=2) + "\n")
    (place / "million.md").write_text(text := million_table(document))
    print(text)


if __name__ == "__main__":
    main()
