"""A site's files as a server leaves them behind, for tests of what operators see. Nothing here runs."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

from fedrec.deploy.certificates import create_authority, issue_server
from fedrec.deploy.view import SiteView, Standing
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.phase import Phase
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic
from fedrec.privacy.terms import Budget, Mode

READER = {"adversary": "anyone who sees every released model (other clients included)", "unit": "user",
          "relation": "zero-out", "epsilon": 8.0, "delta": 1e-4}  # fmt: skip
SERVER = {**READER, "adversary": "the server that runs the rounds", "epsilon": 9.5}
ROWS = [
    {"round": 1, "bytes_down": 40_000, "bytes_up": 40_000, "seconds": 2.0, "clients": 9, "refused": {"not finite": 1}},
    {"round": 2, "bytes_down": 40_000, "bytes_up": 80_000, "seconds": 4.0, "clients": 8, "refused":
        {"not finite": 1, "out of bound": 2}, "spent": {**READER, "epsilon": 2.0}},
]  # fmt: skip


def claim(terms, **more):
    words = {"label": "user-distributed", "sentence": f"What is protected from {terms['adversary']}.",
             "assumptions": ["Most clients are honest."], "not_protected": ["That somebody takes part."]}  # fmt: skip
    return {**terms, **words, "mode": "user-distributed", **more}


def course(at, **changes):
    told = {"round": 3, "phase": "collecting", "since": at - 5, "deadline": at + 60, "attempt": 1, "asked": 10,
            "answered": 4, "accepted": 4, "refused": {}, "pid": 7, "beat": at - 1}  # fmt: skip
    return {name: value for name, value in {**told, **changes}.items() if value is not None}


def secret(at, **changes):
    """As the trainer writes it where the cohort is a secret."""
    return course(at, asked=None, answered=None, accepted=None, refused=None, **changes)


def write(path: Path, name: str, content):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(content if isinstance(content, str) else json.dumps(content))


def fill(path: Path, *, at: float | None = None) -> Path:
    """A site in its third round of twenty, at the time `at`."""
    at = time.time() if at is None else at
    write(path, "run/plan.toml", "[federation]\nrounds = 19\n[warm]\nenabled = true\n")
    write(path, "run/run.json", {
        "privacy": {"label": "user-distributed"}, "promises": ["(ε=8, δ=0.0001), zero-out user, against anyone"],
        "packages": {"fedrec": "0.1.0", "flwr": "1.41.0"},
    })  # fmt: skip
    write(path, "run/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    write(path, "run/statement.json", [claim(READER), claim(SERVER)])
    write(path, "state/round.json", course(at))
    write(path, "state/last.json", course(at, round=2, phase="finished", answered=9, accepted=8))
    write(path, "state/restarts.json", {"superlink": 2, "trainer": 0})
    write(path, "packs/1/pack.json", {"version": 1, "round": 1, "published": "2026-01-01T00:00:00Z"})
    write(path, "packs/2/pack.json", {"version": 2, "round": 2, "published": "2026-01-02T00:00:00Z"})
    write(path, "packs/latest", "2\n")
    certify(path, at)
    return path


def certify(path: Path, at: float) -> None:
    """A certificate made at the time `at`, good for 397 days."""
    keys = path / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    create_authority(keys, at=datetime.fromtimestamp(at, UTC))
    issue_server(keys, ("fedrec.test",), at=datetime.fromtimestamp(at, UTC))


def looked(path: Path, *, at: float | None = None, standing=None):
    """One look at the site in `path`."""
    return view(path, at=at, standing=standing).look()


def view(path: Path, *, at: float | None = None, standing=None):
    clock = time.time if at is None else lambda: at
    return SiteView(path, standing or (lambda: Standing(seats=12, enrolled=11, online=10)), clock=clock)


def small_plan():
    phase = Phase(rounds=2, schedule=Cyclic(1), clip=1.0, multiplier=4.0, grid=2**16)
    budget = Budget(epsilon=8.0, delta=1e-3, population=10)
    return PrivacyPlan(mode=Mode.USER_DISTRIBUTED, population=10, budget=budget, least=5, phases=(phase,))


def keep_ledger(path: Path, rounds: int = 1) -> Path:
    """The ledger of `small_plan` after so many releases."""
    file = path / "run" / "ledger.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with Ledger(file, small_plan()) as ledger:
        for number in range(1, rounds + 1):
            ledger.reserve(number)
            ledger.charge(number, "0" * 64)
            ledger.release(number, "0" * 64)
    return file
