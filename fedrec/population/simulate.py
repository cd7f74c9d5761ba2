"""A whole run on one machine: train over a grid in this process, watch validation, measure on test, keep it all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec.datasets.dataset import Dataset
from fedrec.device.policy import Policy
from fedrec.errors import DataError
from fedrec.exchange.serve import serve
from fedrec.exchange.strategy import Progress
from fedrec.model.pack import write_pack
from fedrec.population.engines import opened, spending_of
from fedrec.population.states import DeviceStates
from fedrec.population.workers import one_thread
from fedrec.population.world import Fleet, ModelScorer, World, accepted
from fedrec.privacy.statement import Statement, statements, written
from fedrec.rounds.checkpoint import CHECKPOINT
from fedrec.runs import Row, Run
from fedrec.spec import Plan
from fedrec.speed import DEFAULT, Engine, Speed
from fedrec.study.arms import Arm, Contestant, arms, baseline
from fedrec.study.cells import FEDERATED, RESULTS, USERS, Choice
from fedrec.study.evaluate import Evaluation, Ranking, Scorer, evaluate
from fedrec.study.holdouts import Holdout
from fedrec.study.report import table, write_curve
from fedrec.study.seal import Seal, fingerprint
from fedrec.task import Task
from fedrec.tracking.services import Service
from fedrec.tracking.tracked import tracked

Told = Callable[[dict[str, Any]], None]

_PROBED = 32  # people whose scores tell one model from another


@dataclass(frozen=True, eq=False)
class Results:
    """What a finished run shows: one evaluation per arm, the model's own first, and one statement per adversary.

    `whole` is empty unless items were hidden: then `evaluations` ranks these among themselves, `whole` among all.
    """

    run: Run
    evaluations: dict[str, Evaluation]
    whole: dict[str, Evaluation]
    statements: tuple[Statement, ...]


@dataclass(frozen=True, eq=False)
class Simulation:
    """A run folder with everything that is needed to work on it.

    `policy` is what every virtual device accepts; None accepts the plan whatever it is. `speed` changes no result.
    """

    run: Run
    task: Task
    world: World
    policy: Policy | None = None
    speed: Speed = DEFAULT

    @classmethod
    def start(
        cls, plan: Plan, path: Path, policy: Policy | None = None, speed: Speed = DEFAULT, *,
        dataset: Dataset | None = None,
    ) -> Simulation:  # fmt: skip
        """A new run of `plan` in `path`. The plan written there says what is done: all clients, possible cohorts.

        `dataset` is what the plan names, if it is already loaded.
        """
        world = World.of(dataset, plan) if dataset else World.open(plan)
        task = Task(_resolved(plan, len(world.population)), world.dataset.catalogue, speed.device)
        _check(task, world)
        accepted(task, policy)
        return cls(Run.create(path, task, data=world.dataset.hash), task, world, policy, speed)

    @classmethod
    def resume(
        cls, path: Path, policy: Policy | None = None, speed: Speed = DEFAULT, *, dataset: Dataset | None = None
    ) -> Simulation:
        """A run that was started before, on the data it was started on."""
        run = Run.open(path)
        task = Task.open(path, speed.device)
        run.check_plan(task.plan)
        world = World.of(dataset, task.plan) if dataset else World.open(task.plan)
        run.check_data(world.dataset.hash)
        return cls(run, task, world, policy, speed)

    @cached_property
    def fleet(self) -> Fleet:
        """The virtual devices, with what they keep on disk."""
        folder, clients = self.run.path / "devices", len(self.world.population)
        states = DeviceStates(folder, clients, self.task.plan.model.dim)
        spending = spending_of(folder, self.task, self.policy, self.speed)
        return Fleet(self.task, self.world, states, spending, self.policy)

    def train(self, told: Told, track: Sequence[Service] = ()) -> None:
        """All rounds that are still to do. `told` gets each row of the metrics as it is written; `track` as well."""

        def observe(progress: Progress) -> None:
            if not self.run.told_last(progress.round):
                tell(self._tell(progress.public()))

        def tell(row: Row) -> None:
            log(row)
            told(row)

        with self.run.locked(), self._threads(), tracked(self.run, self.task, track) as log:
            self._begin(tell)
            with opened(self.fleet, self.run.path, self.speed) as (grid, crew):
                serve(self.task, grid, self.run.path, [observe], crew=crew)

    def _threads(self) -> AbstractContextManager[None]:
        # One client is too little work for two threads.
        alone = self.speed.engine is Engine.LOOP or self.speed.threads == 1
        return one_thread() if alone else nullcontext()

    def finish(self, told: Callable[[str], None]) -> Results:
        """Measure the trained model and its baselines on the test items, and write what a reader needs."""
        scorer, shared = self._trained()
        own = Arm(FEDERATED, lambda: Contestant(scorer))
        measured = self._measure([own, *arms(self.fleet)], told)
        claims = statements(self.task.privacy, ledger_head=self.run.ledger_head(self.task), simulated=True)
        results = Results(self.run, measured.figures, measured.whole, claims)
        self._write(results, shared)
        self._record(measured)
        return results

    def measure(self, name: str) -> None:
        """Measure one baseline alone, on a run that nobody trains."""
        self._record(self._measure([baseline(self.fleet, name)], lambda arm: None))

    def validate(self, scorer: Scorer) -> Evaluation:
        """Rank the validation items with `scorer`, as often as wanted."""
        spec = self.task.plan.evaluation
        ranking = Ranking(k=(spec.k,), negatives=0, seed=self.task.plan.seed, people=spec.people)
        return self._evaluate(scorer, self.world.split.validation, ranking)

    def test(self, name: str, scorer: Scorer, *, whole: bool = False) -> Evaluation:
        """Rank the test items with the one model that contestant `name` has; another one is a `DataError`.

        Hidden items are asked for among themselves, or in the `whole` catalogue.
        """
        spec, split = self.task.plan.evaluation, self.world.split
        cold = split.cold_items if not whole and split.cold_items.any() else None
        tags = self.task.catalogue.tags
        ranking = Ranking(
            k=(spec.k,), negatives=spec.negatives if cold is None else 0, seed=self.task.plan.seed, candidates=cold,
            vectors=self.pooled, people=spec.people, tags=tags if any(tags) else None,
        )  # fmt: skip
        Seal(self.run.path).look(name, self._identity(scorer))
        return self._evaluate(scorer, split.test, ranking)

    def _identity(self, scorer: Scorer) -> str:
        """Which model this is: by its parameters, or by what it answers to the first of those who are asked."""
        if isinstance(scorer, ModelScorer):
            return fingerprint(scorer.shared)
        test = self.world.split.test
        asked = np.flatnonzero(test.targets.sizes)[:_PROBED]
        people = self.world.population.take(asked)
        return fingerprint(scorer(asked, [people[n].before(int(cut)) for n, cut in enumerate(test.cuts[asked])]))

    def _evaluate(self, scorer: Scorer, holdout: Holdout, ranking: Ranking) -> Evaluation:
        return evaluate(scorer, self.world.population, holdout, train=self.world.trained, ranking=ranking)

    def _measure(self, contestants: Iterable[Arm], told: Callable[[str], None]) -> _Measured:
        """Test figures of every contestant, and the validation figures of the model that was trained."""
        found = _Measured()
        with one_thread():
            for arm in contestants:
                told(arm.name)
                contestant = arm.build()
                found.choices[arm.name] = contestant.choices
                if arm.name == FEDERATED and self.task.plan.split.fit == "train":
                    found.validation[arm.name] = self.validate(contestant.scorer).summary
                found.figures[arm.name] = self.test(arm.name, contestant.scorer)
                if self.world.split.cold_items.any():
                    found.whole[arm.name] = self.test(arm.name, contestant.scorer, whole=True)
        return found

    @property
    def pooled(self) -> NDArray[np.float32]:
        """(item, width) frozen text vectors, in which diversity is measured whatever was trained."""
        return self.task.model.adapter.encoder.encode(self.task.catalogue.texts, public=True)

    def _trained(self) -> tuple[ModelScorer, NDArray[np.float32]]:
        number, shared = self.run.model(self.task)
        return ModelScorer(self.fleet, shared, number), shared

    def _begin(self, told: Told) -> None:
        """Tell where an old run stands, or how good the model is before a new one."""
        rows = self.run.metrics()
        if rows:
            told(rows[-1])
        elif not (self.run.path / CHECKPOINT).exists():
            told(self._tell({"round": 0}))

    def _tell(self, row: Row) -> Row:
        """Note a row of the metrics, with what the validation items say where that is due."""
        plan, number = self.task.plan, row["round"]
        due = plan.evaluation.every and (number % plan.evaluation.every == 0 or number == plan.rounds)
        if due and plan.split.fit == "train":
            # Validation items are training data to a run that fits them: there is no curve to draw then.
            scorer, _ = self._trained()
            summary = self.validate(scorer).summary
            row |= {name: summary[name] for name in summary if name.startswith(("ndcg@", "hr@"))}
        self.run.tell(row)
        return row

    def _write(self, results: Results, shared: NDArray[np.float32]) -> None:
        run = self.run
        write_curve(run, results.evaluations, run.path / "curve.png")
        run.write("statement.json", written(results.statements))
        run.write("statement.txt", "\n\n".join(claim.text() for claim in results.statements) + "\n")
        run.write("table.md", table(results.evaluations))
        number, beside = run.metrics()[-1]["round"], run.beside(self.task)
        write_pack(run.path / "pack", self.task, shared, results.statements, round=number, beside=beside)

    def _record(self, found: _Measured) -> None:
        """Everything that was measured. The results come last: a run that has them is finished."""
        first = next(iter(found.figures.values()))
        people = [figures.users.assign(arm=name) for name, figures in found.figures.items()]
        pd.concat(people, ignore_index=True).to_parquet(self.run.path / USERS)
        content = {
            "summary": {name: figures.summary for name, figures in found.figures.items()},
            "whole catalogue": {name: figures.summary for name, figures in found.whole.items()},
            "validation": found.validation,
            "choices": {name: [asdict(one) for one in each] for name, each in found.choices.items()},
            "groups": json.loads(first.groups.to_json(orient="index")),
            "protocol": first.protocol,
            "looks": Seal(self.run.path).looks,
            "notes": list(self.world.dataset.notes.lines()),
        }
        self.run.write(RESULTS, json.dumps(content, indent=2, default=str))


@dataclass(frozen=True, eq=False)
class _Measured:
    """What contestants achieved, by name."""

    figures: dict[str, Evaluation] = field(default_factory=dict)
    whole: dict[str, Evaluation] = field(default_factory=dict)
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    choices: dict[str, tuple[Choice, ...]] = field(default_factory=dict)


def _resolved(plan: Plan, clients: int) -> Plan:
    # A private plan's cohort decides its noise: too large a one is refused, not changed.
    cohort = plan.federation.cohort if plan.privacy.mode != "none" else min(plan.federation.cohort, clients)
    return plan.override({"clients": clients, "federation": {"cohort": cohort}})


def _check(task: Task, world: World) -> None:
    """Everything that could stop the run later stops it before a folder is made."""
    for name, holdout in (("validation", world.split.validation), ("test", world.split.test)):
        if not holdout.targets.sizes.any():
            remedy = "Bring people with at least three distinct choices, or use another split.kind."
            kind, clients = task.plan.split.kind, task.plan.clients
            raise DataError(f"a split has a {name} item for somebody", remedy=remedy, split=kind, clients=clients)
    _ = task.model  # opens the encoder
    task.check_widths()
