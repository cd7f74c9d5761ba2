"""Made-up findings for tests of reports: no training, figures with a known truth."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
from plans import CLIENTS, plan_of

from fedrec.presets import private
from fedrec.privacy.statement import statements
from fedrec.spec import Plan
from fedrec.study.cells import Cell, Choice, Cost, Failure, Measured
from fedrec.study.findings import Findings

METRICS = ("hr@10", "recall@10", "precision@10", "f1@10", "ndcg@10", "mrr@10", "ndcg@10/99", "hr@10/99")
LISTS = ("novelty@10", "diversity@10", "popularity@10", "miscalibration@10")
LEVELS = {"random": 0.02, "popularity": 0.06, "EASE (central)": 0.14, "federated": 0.16}
MANIFEST = {
    "created": "2026-01-02T03:04:05Z", "data": "d" * 64, "plan": "p" * 64, "task": "t" * 64,
    "encoder": {"name": "hash", "hash": "e" * 64}, "parameters": {"total": 1000, "maps": 1000},
    "packages": {"fedrec": "0.1.0", "torch": "2.13.0"}, "machine": {"python": "3.11", "system": "Linux", "cores": 2},
    "privacy": None, "promises": [],
}  # fmt: skip


def users_of(rng, level, people, persons):
    """One row a person: a metric is its level, plus what the person is like, plus noise."""
    frame = pd.DataFrame({
        "client": np.arange(people), "activity": 5 + np.arange(people) % 40, "quartile": 1 + np.arange(people) % 4,
        "taste": 1 + np.arange(people) % 3, "cold_user": np.arange(people) % 10 == 0, "targets": 1,
        "cold_targets": (np.arange(people) % 8 == 0).astype(int),
    })  # fmt: skip
    for name in (*METRICS, *LISTS):
        frame[name] = level + persons + rng.normal(0, 0.05, people)
    return frame


@cache
def promise_of(kind):
    """The privacy plan of a kind, None for no privacy."""
    return plan_of(kind, rounds=3, warm=True) if kind else None


@cache
def stated(kind):
    """Its statements as JSON; accounting takes a while."""
    return f"[{','.join(claim.json() for claim in statements(promise_of(kind), simulated=True))}]"


def cell_of(arm, epsilon, seed, level, *, mode="none", people=60, trained=True):
    """One cell whose metrics all have mean `level` or nearly so."""
    persons = np.random.default_rng(7).normal(0, 0.05, people)
    rng = np.random.default_rng([seed, len(arm), int(10 * (epsilon or 0))])
    users = users_of(rng, level, people, persons)
    summary = {name: float(users[name].mean()) for name in (*METRICS, *LISTS)}
    plan = Plan(clients=CLIENTS, seed=seed) if mode == "none" else private(Plan(clients=CLIENTS, seed=seed), mode)
    kind = {"user-central": "poisson", "layered": "layered", "user-local": "local"}.get(mode)
    promise = promise_of(kind)
    said = json.loads(stated(kind)) if trained else []
    spent = {"epsilon": epsilon, "delta": 1e-3, "unit": "user", "relation": "add-or-remove-one", "adversary": "reader"}
    rounds = [
        {"round": n, "bytes_down": 4000, "bytes_up": 4000, "ndcg@10": level * n / 4, "hr@10": level * n / 4}
        | ({"spent": spent | {"epsilon": epsilon * n / 4}} if epsilon else {"clients": 9, "refused": {"not finite": 1}})
        for n in range(5)
    ]
    return Cell(arm=arm, epsilon=epsilon, seed=seed, measured=Measured(
        plan=plan, users=users, summary=summary | {"coverage@10": level, "gini@10": 1 - level},
        manifest=MANIFEST | ({"privacy": promise.public(), "promises": ["(ε=…)"], "foreseen": {
            "noise over clip": {"warm start": 3.0 / epsilon, "training": 0.4 / epsilon}, "signal": 4.0 * epsilon}}
            if promise and epsilon else {}),
        protocol={"people": f"{people} of {people} with a target", "candidates": "100 of 100 items", "mask": "chosen",
                  "ties": "count against us", "negatives": "99 a target", "seed": seed, "k": [10], "evaluated": people,
                  "not evaluated": 0, "targets": people, "fewest negatives": 99, "cold user": "fewer than 5"},
        validation={"ndcg@10": level - 0.01, "hr@10": level - 0.01}, rounds=tuple(rounds) if trained else (),
        statements=tuple(said), choices=(Choice(setting="l2 = 20", value=0.1, chosen=False),
                                         Choice(setting="l2 = 50", value=0.12, chosen=True)),
        cost=Cost(seconds=12.5, bytes_down=4000, bytes_up=4000, device_seconds=0.02, participations=2.5)
        if trained else Cost(seconds=1.0),
    ))  # fmt: skip


def made_up(*, seeds=(0, 1, 2, 3, 4), epsilons=(0.5, 2.0, 8.0), people=60, failures=()):
    """Baselines, a federated reference, and two private arms whose accuracy rises with ε towards the reference."""
    cells = [cell_of(arm, None, seed, level, people=people, trained=arm == "federated")
             for arm, level in LEVELS.items() for seed in seeds]  # fmt: skip
    for arm, mode, best in (
        ("warm start, user-central", "user-central", 0.158),
        ("warm start, layered", "layered", 0.12),
    ):
        cells += [cell_of(arm, epsilon, seed, best * (1 - 0.2 / (1 + epsilon)), mode=mode, people=people)
                  for epsilon in epsilons for seed in seeds]  # fmt: skip
        cells += [cell_of(arm, None, seed, best, people=people) for seed in seeds]
    return Findings(
        name="made up", metric="ndcg@10", reference="federated", cells=tuple(cells), failures=tuple(failures),
        checks=("no history mentions its held-out item", "training negatives do not depend on what is held out"),
        audits=({"audit": "one release", "mode": "user-central", "adversary": "readers", "claim": "ε = 8",
                 "shown": "ε ≥ 1.2", "ceiling": "ε ≤ 9", "power": "found", "verdict": "not falsified"},),
        trials=10, command="fedrec sweep made-up.toml", study='name = "made up"\n',
        data={"name": "made up", "people": people, "items": 100, "events": 1000, "hash": "d" * 64},
    )  # fmt: skip


def broken(findings, **parts):
    """The same findings with other parts."""
    return replace(findings, **parts)


LOST = Failure(arm="warm start, layered", epsilon=8.0, seed=9, reason="the worker ran out of memory")
