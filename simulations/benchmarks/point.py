"""One private simulation over people on disk, timed: `python point.py PEOPLE OUT --clients N --cohort C`.

`PEOPLE` is a folder that `fedrec data shard` wrote; a plan with fewer clients takes the first of them. The engine is
`stacked`. Written are the seconds before the first round, of each round, and of the evaluation if there is one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from fedrec.population.simulate import Simulation
from fedrec.spec import Plan


def plan(people: Path, *, clients: int, cohort: int, rounds: int, encoder: str) -> Plan:
    """The default model under `user-central`. Its ε is not the subject here, so noise may drown what is learnt."""
    return Plan.of({
        "name": "scaling", "clients": clients, "data": {"source": "shards", "path": str(people)},
        "model": {"encoder": encoder}, "privacy": {"mode": "user-central", "force": True},
        "federation": {"rounds": rounds, "cohort": cohort},
        "evaluation": {"every": 0, "baselines": "none", "people": 2000},
    })  # fmt: skip


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clients", type=int, default=0, help="0 for everybody")
    parser.add_argument("--cohort", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--evaluate", action="store_true", help="measure the model at the end, on 2,000 people")
    given = parser.parse_args()
    began = time.perf_counter()
    sized = plan(
        given.people, clients=given.clients, cohort=given.cohort, rounds=given.rounds, encoder=given.encoder
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=given.out.parent) as place:
        simulation = Simulation.start(sized, Path(place) / "run")
        _ = simulation.fleet.bank  # what everybody wrote goes through the tower once, before the first round
        opened, stamps = time.perf_counter() - began, list[float]()
        simulation.train(lambda row: stamps.append(time.perf_counter()))
        found = {"opened": opened, "seconds": np.diff(stamps).tolist()}
        if given.evaluate:
            results = simulation.finish(lambda arm: None)
            found |= {"evaluated": time.perf_counter() - stamps[-1], "summary": results.evaluations["fedrec"].summary}
            found |= {"statement": [json.loads(claim.json()) for claim in results.statements]}
    given.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
