"""What is protected from whom, in a sentence and in JSON; and, at equal length, what is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedrec.privacy import wording
from fedrec.privacy.accounting import accountant, renyi_epsilon
from fedrec.privacy.noise import SOURCES
from fedrec.privacy.plan import PrivacyPlan, Promise
from fedrec.privacy.terms import Adversary, Budget, Guarantee, Mode, Unit

NON_PRIVATE = "non-private"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One adversary's view. `guarantee` is None where nothing is promised, and the label is then `non-private`.

    `plan` holds every public number, and `k_max` is how often one client can come; `assumptions` is what the guarantee
    needs, `not_protected` what it leaves out.
    """

    mode: Mode
    label: str
    adversary: Adversary
    guarantee: Guarantee | None
    sampling: str
    mechanism: str
    k_max: int | None
    plan: dict[str, Any]
    accountants: tuple[dict[str, str | float], ...]
    noise: dict[str, str]
    assumptions: tuple[str, ...]
    not_protected: tuple[str, ...]
    ledger_head: str
    sentence: str

    def text(self) -> str:
        """A paragraph and two lists, in English."""
        numbers = [] if self.guarantee is None else [*self._numbers(), ""]
        assumed = ["It assumes:", *(f"  - {line}" for line in self.assumptions), ""] if self.assumptions else []
        return "\n".join([
            f"[{self.label}] {self.sentence}", "", *numbers, *assumed,
            "It does not protect:", *(f"  - {line}" for line in self.not_protected),
        ])  # fmt: skip

    def json(self) -> str:
        """Every field under a stable name; unit, relation, ε and δ at the top level, null when nothing is promised."""
        promise = {} if self.guarantee is None else asdict(self.guarantee)
        terms = {name: promise.get(name) for name in ("unit", "relation", "epsilon", "delta")}
        content = {**terms, **asdict(self)}
        del content["guarantee"]
        return json.dumps(content, indent=2, ensure_ascii=False)

    def _numbers(self) -> list[str]:
        opinions = "; ".join(
            f"{said['name']} {said['version']} (interval {said['interval']:g}): ε={said['epsilon']:.4f}"
            for said in self.accountants
        )
        return [
            f"{self.mechanism}. {self.sampling}. Noise: {self.noise['kind']}; {self.noise['rng']}.",
            f"Accounted by {opinions}.", f"Ledger head: {self.ledger_head or 'none yet'}.",
        ]  # fmt: skip


def written(claims: Sequence[Statement]) -> str:
    """Statements as one list in JSON."""
    return json.dumps([json.loads(claim.json()) for claim in claims], indent=2)


def statements(plan: PrivacyPlan | None, *, ledger_head: str = "", simulated: bool) -> tuple[Statement, ...]:
    """One statement for each promise of a run, then one for each adversary of whom nothing can be promised.

    `plan` is None in mode `none`. Replayable noise (level `test`) promises nothing and is labelled so.
    """
    if plan is None:
        return (_open(simulated, ledger_head),)
    found = [
        _promised(plan, promise, simulated, ledger_head) if plan.private
        else _nothing(plan, promise.guarantee.adversary, wording.REPLAYABLE, simulated, ledger_head)
        for promise in plan.promises
    ]  # fmt: skip
    if plan.mode is Mode.USER_CENTRAL:
        found.append(_nothing(plan, Adversary.SERVER, wording.SERVER_SEES_ALL, simulated, ledger_head))
    if plan.mode is Mode.INTERACTION_LOCAL:
        found.append(_nothing(plan, Adversary.ANYONE, wording.USERS_ARE_OPEN, simulated, ledger_head))
    return tuple(found)


def _open(simulated: bool, ledger_head: str) -> Statement:  # noqa: FBT001  (private)
    return Statement(
        mode=Mode.NONE, label=NON_PRIVATE, adversary=Adversary.SERVER, guarantee=None, sampling="any", mechanism="none",
        k_max=None, plan={}, accountants=(), noise={}, assumptions=(), ledger_head=ledger_head, sentence=wording.OPEN,
        not_protected=wording.not_protected(None, None, simulated=simulated),
    )  # fmt: skip


def _nothing(
    plan: PrivacyPlan, adversary: Adversary, sentence: str, simulated: bool, ledger_head: str  # noqa: FBT001
) -> Statement:  # fmt: skip
    return Statement(
        mode=plan.mode, label=NON_PRIVATE, adversary=adversary, guarantee=None, sampling=wording.sampling(plan),
        mechanism=wording.mechanism(plan, Unit.USER), k_max=_most(plan), plan=plan.public(),
        accountants=(), noise=_noise(plan), assumptions=(), ledger_head=ledger_head, sentence=sentence,
        not_protected=wording.not_protected(plan, None, simulated=simulated),
    )  # fmt: skip


def _promised(plan: PrivacyPlan, promise: Promise, simulated: bool, ledger_head: str) -> Statement:  # noqa: FBT001
    given = promise.guarantee
    return Statement(
        mode=plan.mode, label=str(plan.mode), adversary=given.adversary, guarantee=given,
        sampling=wording.sampling(plan), mechanism=wording.mechanism(plan, given.unit), k_max=_most(plan),
        plan=plan.public(),
        accountants=_opinions(promise), noise=_noise(plan),
        assumptions=(*wording.assumptions(plan, given), *_overrides(plan, given)),
        not_protected=wording.not_protected(plan, given, simulated=simulated),
        ledger_head=ledger_head, sentence=wording.sentence(plan, given),
    )  # fmt: skip


def _most(plan: PrivacyPlan) -> int:
    return sum(phase.participations for phase in plan.phases)


def _noise(plan: PrivacyPlan) -> dict[str, str]:
    source = SOURCES[plan.level]
    return {"level": str(plan.level), "kind": source.kind, "rng": source.rng}


def _opinions(promise: Promise) -> tuple[dict[str, str | float], ...]:
    given = promise.guarantee
    first = accountant(promise.charges, given.epsilon)
    second = renyi_epsilon(promise.charges, delta=given.delta)
    return (
        {**first, "epsilon": given.epsilon},
        {**first, "name": "dp_accounting RDP", "interval": 0.0, "epsilon": second},
    )


def _overrides(plan: PrivacyPlan, given: Guarantee) -> tuple[str, ...]:
    if given.unit is Unit.USER:
        chosen = plan.budget is not None and plan.budget.epsilon > Budget.CAP
    else:
        chosen = plan.interaction is not None and plan.interaction.budget > Budget.CAP
    if not chosen:
        return ()
    return (f"Someone chose an ε above {Budget.CAP:g} on purpose (over_cap): it protects next to nothing.",)
