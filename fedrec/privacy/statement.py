"""What is protected from whom, in a sentence and in JSON; and, at equal length, what is not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedrec.privacy.accounting import accountant, renyi_epsilon
from fedrec.privacy.noise import SOURCES, Level
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.terms import Adversary, Budget, Guarantee, Mode, Unit

NON_PRIVATE = "non-private"

_ASSUMPTIONS = (
    "The unit is an enrolled client id with all it ever holds; a person with m clients has at least m times the ε.",
    "The server is trusted to clip, to add the noise, and to forget the updates.",
    "Each round's cohort was drawn by independent coins and kept secret.",
    "Whether a client answers does not depend on its data.",
    "Rate, rounds, clip norm and population were fixed in public, not computed from the clients.",
    "The item catalogue and the base model are public.",
)
_UNPROTECTED = (
    "A client's update from the server, which sees it without noise.",
    "Who took part, from the server and from whoever watches the network.",
    "What many people have in common: learning that is the purpose of the model.",
    "Choices made by looking at runs on the same clients (hyper-parameters, best round): they are not charged.",
)
_SIMULATED = (
    "Anything from whoever runs the simulation: that machine holds all the clients' data in one place.",
    "The accuracy figures beside this statement: the simulator computes them from raw data, without noise.",
)


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One adversary's view. `guarantee` is None where nothing is promised, and the label is then `non-private`.

    `plan` holds every public number; `assumptions` is what the guarantee needs, `not_protected` what it leaves out.
    """

    mode: Mode
    label: str
    adversary: Adversary
    guarantee: Guarantee | None
    sampling: str
    mechanism: str
    plan: dict[str, Any]
    accountants: tuple[dict[str, str | float], ...]
    noise: dict[str, str | int]
    assumptions: tuple[str, ...]
    not_protected: tuple[str, ...]
    ledger_head: str
    sentence: str

    def text(self) -> str:
        """A paragraph and two lists, in English."""
        numbers = [] if self.guarantee is None else [*_numbers(self), ""]
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


def statements(plan: PrivacyPlan | None, *, ledger_head: str = "", simulated: bool) -> tuple[Statement, ...]:
    """One statement for each adversary of a run: the readers of its models, then the server.

    `plan` is None in mode `none`. Replayable noise (level `test`) promises nothing and is labelled so.
    """
    left_out = (*_SIMULATED, *_UNPROTECTED) if simulated else _UNPROTECTED
    if plan is None:
        return (_open(left_out, ledger_head),)
    server = _server(plan, left_out, ledger_head)
    return (_readers(plan, server), server)


def _open(left_out: tuple[str, ...], ledger_head: str) -> Statement:
    sentence = (
        "There is no privacy mode: in every round each client of the cohort sends its update to the server in clear, "
        "neither clipped nor noised, and an update can reveal which items its user touched. No ε describes this run."
    )
    return Statement(
        mode=Mode.NONE, label=NON_PRIVATE, adversary=Adversary.SERVER, guarantee=None, sampling="any", mechanism="none",
        plan={}, accountants=(), noise={}, assumptions=(), ledger_head=ledger_head, sentence=sentence,
        not_protected=("Anything from anyone who sees an update or a model.", *left_out),
    )  # fmt: skip


def _server(plan: PrivacyPlan, left_out: tuple[str, ...], ledger_head: str) -> Statement:
    sentence = (
        "The server sees each client's clipped update before any noise, and knows who sent it. Against the server, and "
        "against whoever breaks into it, this mode gives no protection at all."
    )
    source = SOURCES[plan.level]
    return Statement(
        mode=plan.mode, label=NON_PRIVATE, adversary=Adversary.SERVER, guarantee=None, plan=plan.public(),
        sampling=f"Poisson, q={plan.sampler.rate:.6g}, secret cohort",
        mechanism="L2 clip, integer sum, Gaussian noise on the sum, public denominator",
        noise={"level": str(plan.level), "kind": source.kind, "rng": source.rng, "grid": plan.grid},
        accountants=(), assumptions=(), not_protected=left_out, ledger_head=ledger_head, sentence=sentence,
    )  # fmt: skip


def _readers(plan: PrivacyPlan, server: Statement) -> Statement:
    if not plan.private:
        replayable = "The noise of this run can be replayed from its seed: it hides nothing from whoever has the seed."
        return replace(server, adversary=Adversary.READER, sentence=replayable)
    sentence = (
        f"{_capital(Adversary.READER)} learns almost the same whether or not a given user ever enrolled: "
        f"(ε={plan.epsilon:.4g}, δ={plan.delta:.2g}), {plan.relation} {Unit.USER}, assuming that the server is trusted "
        f"to add the noise and that each round's cohort was drawn by independent coins with q={plan.sampler.rate:.4g} "
        f"and kept secret. It does not protect a user's updates from the server."
    )
    return replace(
        server, label=str(plan.mode), adversary=Adversary.READER, guarantee=plan.guarantee, sentence=sentence,
        accountants=_opinions(plan), assumptions=(*_ASSUMPTIONS, _precision(plan), *_overrides(plan.budget)),
    )  # fmt: skip


def _precision(plan: PrivacyPlan) -> str:
    if plan.level is Level.RESEARCH:
        return "Floating-point noise from a generator that is not a cipher is as good as ideal Gaussian noise."
    return f"Discrete noise {plan.sigma:.0f} grid steps wide is accounted as a continuous Gaussian."


def _opinions(plan: PrivacyPlan) -> tuple[dict[str, str | float], ...]:
    first = accountant(plan.epsilon)
    second = renyi_epsilon(plan.event, rounds=plan.rounds, delta=plan.delta)
    return ({**first, "epsilon": plan.epsilon}, {**first, "name": "dp_accounting RDP", "epsilon": second})


def _overrides(budget: Budget) -> tuple[str, ...]:
    if budget.epsilon <= Budget.CAP:
        return ()
    return (f"Someone chose an ε above {Budget.CAP:g} on purpose (over_cap): it protects next to nothing.",)


def _numbers(statement: Statement) -> list[str]:
    plan, (first, second) = statement.plan, statement.accountants
    return [
        f"Clip norm C={plan['clip']:g}, noise z={plan['multiplier']:.5g}·C on each sum ({statement.noise['kind']}; "
        f"{statement.noise['rng']}; {plan['grid']} grid steps per unit), T={plan['rounds']} rounds, "
        f"q={plan['rate']:.4g}, N={plan['population']} (public), target ε={plan['epsilon']:g}.",
        f"Accounted by {first['name']} {first['version']} (interval {first['interval']:g}): ε={first['epsilon']:.4f}. "
        f"Second opinion, {second['name']}: ε={second['epsilon']:.4f}.",
        f"Ledger head: {statement.ledger_head or 'none yet'}.",
    ]


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
