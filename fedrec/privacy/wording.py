"""The sentences of statements: what each mode's guarantee means, needs and leaves out."""

from __future__ import annotations

from fedrec.privacy.noise import Level
from fedrec.privacy.phase import Phase
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Fixed, Poisson
from fedrec.privacy.terms import Adversary, Guarantee, Mode, Relation, Unit

OPEN = (
    "There is no privacy mode: in every round each client of the cohort sends its update to the server in clear, "
    "neither clipped nor noised, and an update can reveal which items its user touched. No ε describes this run."
)
REPLAYABLE = "The noise of this run can be replayed from its seed: it hides nothing from whoever has the seed."
SERVER_SEES_ALL = (
    "The server sees each client's clipped update before any noise, and knows who sent it. Against the server, and "
    "against whoever breaks into it, this mode gives no protection at all."
)
USERS_ARE_OPEN = (
    "About a user as a whole nothing is promised: whether somebody takes part, what they generally like, and anything "
    "that many of their interactions have in common can be learnt from what their device sends."
)

_NEIGHBOURS = {
    Relation.ADD_OR_REMOVE: "whether or not a given user ever enrolled",
    Relation.ZERO_OUT: "whether a given enrolled user contributes what their device holds, or nothing",
    Relation.REPLACE_ONE: "whether a given user's device holds what it holds, or anything else",
}
_ABOUT_INTERACTIONS = {
    Relation.ADD_OR_REMOVE: "whether or not a given interaction is in a device's history",
    Relation.ZERO_OUT: "whether a given interaction in a device's history counts, or not",
    Relation.REPLACE_ONE: "whatever happened within one window of the public clock in a device's history",
}
_USER_UNIT = (
    "The unit is an enrolled client id with all it ever holds; a person with m clients has at least m times the ε."
)
_COMMON = (
    "The item catalogue and the base model are public.",
    "Whether a client answers does not depend on its data.",
    "Schedule, rounds, clip norms and population were fixed in public, not computed from the clients.",
)


def sentence(plan: PrivacyPlan, given: Guarantee) -> str:
    """The promise in one sentence, with everything that its two numbers mean nothing without."""
    neighbours = _ABOUT_INTERACTIONS if given.unit is Unit.INTERACTION else _NEIGHBOURS
    said = (
        f"{_capital(given.adversary)} learns almost the same {neighbours[given.relation]}: "
        f"(ε={given.epsilon:.4g}, δ={given.delta:.2g}), {given.relation} {given.unit}"
    )
    return f"{said}, {_because(plan, given)}."


def sampling(plan: PrivacyPlan) -> str:
    """Who comes, phase by phase."""
    return "; ".join(f"{phase.purpose}: {_schedule(phase, plan.population)}" for phase in plan.phases)


def mechanism(plan: PrivacyPlan, unit: Unit) -> str:
    """What is clipped and noised where."""
    if unit is Unit.INTERACTION:
        parts = plan.interaction and (plan.interaction.statistics, plan.interaction.terms)
        shown = [f"C={part.clip:g}, z={part.multiplier:.5g}, q={part.rate:.4g}, {part.steps} steps"
                 for part in parts or () if part]  # fmt: skip
        return "DP-SGD on the device, each example clipped: " + "; ".join(shown)
    where = {
        Mode.USER_CENTRAL: "noise of z·C on the sum",
        Mode.USER_LOCAL: "noise of z·C on each update",
        Mode.INTERACTION_LOCAL: "no noise about users",
    }.get(plan.mode, f"noise of z·C/√{plan.least} on each update")
    shown = [f"{phase.purpose}: C={phase.clip:g}{' at first, adaptive' if phase.adaptive else ''}, "
             f"z={phase.multiplier:.5g}{f', {phase.bands} bands' if phase.bands > 1 else ''}, "
             f"{phase.grid} grid steps per unit" for phase in plan.phases]  # fmt: skip
    return f"L2 clip, integers, {where}, public denominator; " + "; ".join(shown)


def assumptions(plan: PrivacyPlan, given: Guarantee) -> tuple[str, ...]:
    """What must be true for the sentence to hold."""
    lines = [_USER_UNIT if given.unit is Unit.USER else _interaction_unit(given)]
    if plan.mode is Mode.USER_CENTRAL:
        lines.append("The server is trusted to clip, to add the noise, and to forget the updates.")
    if given.adversary is Adversary.READER and _draws(plan):
        lines.append("Each round's cohort was drawn at random and kept secret.")
        if plan.masking:
            lines.append("Clients who come in one round, and learn that from the keys of their masks, do not tell.")
    if plan.mode.shares_noise and given.unit is Unit.USER:
        lines.append(f"At least {plan.least} honest clients add their share in every round that is released.")
    if plan.masking and given.adversary is Adversary.SERVER:
        lines.append("The server follows the protocol and enrols no made-up clients, and nobody breaks the masks.")
    return (*lines, *_COMMON, _precision(plan))


def not_protected(plan: PrivacyPlan | None, given: Guarantee | None, *, simulated: bool) -> tuple[str, ...]:
    """What a statement leaves out; `plan` is None in mode `none`."""
    mode = plan.mode if plan else Mode.NONE
    lines = [] if given else ["Anything from this adversary who sees an update or a model."]
    if simulated:
        lines += [
            "Anything from whoever runs the simulation: that machine holds all the clients' data in one place.",
            "The accuracy figures beside this statement: the simulator computes them from raw data, without noise.",
        ]
    if mode is Mode.USER_CENTRAL:
        lines.append("A client's update from the server, which sees it without noise.")
    if plan and plan.required and not plan.masking:
        lines.append("A user as a whole from the server, beyond the statement about it: no masks hide single updates.")
    if mode.protects_interactions and (given is None or given.unit is Unit.INTERACTION):
        lines.append("What many interactions of one user have in common: their taste, and that they take part.")
    among = ", and from some of the others who did" if plan and plan.masking else ""
    return (
        *lines,
        f"Who took part, from the server and from whoever watches the network{among}.",
        "What many people have in common: learning that is the purpose of the model.",
        "Choices made by looking at runs on the same clients (hyper-parameters, best round): they are not charged.",
    )


def _draws(plan: PrivacyPlan) -> bool:
    """Whether the account counts on nobody knowing who came."""
    everybody = (Poisson(1.0), Fixed(plan.population))
    return any(not isinstance(schedule, Cyclic) and schedule not in everybody for schedule in plan.schedules)


def _because(plan: PrivacyPlan, given: Guarantee) -> str:
    if given.unit is Unit.INTERACTION:
        return "because the device trains with noise of its own. It says nothing about a user as a whole"
    if given.adversary is Adversary.ANYONE:
        return "because the device adds all the noise itself"
    if given.adversary is Adversary.SERVER:
        if plan.masking:
            return "because it sees sums only, in which the shares of noise add up"
        return (
            f"which is next to nothing: without masks the server sees each update under a share of the noise only, "
            f"one part in √{plan.least} of it"
        )
    if plan.mode is Mode.USER_CENTRAL:
        secret = " and each round's cohort is kept secret" if _draws(plan) else ""
        return (
            f"assuming that the server is trusted to add the noise{secret}. It does not protect a user's updates from "
            f"the server"
        )
    return f"because every client adds a share of the noise, sized for {plan.least} survivors"


def _interaction_unit(given: Guarantee) -> str:
    if given.relation is Relation.REPLACE_ONE:
        return "The unit is everything that happens on a device within one window of the public clock."
    return "The unit is one recorded interaction; one act recorded m times has m times the ε."


def _schedule(phase: Phase, population: int) -> str:
    match phase.schedule:
        case Poisson(rate):
            who = f"Poisson with q={rate:.4g}"
        case Fixed(size):
            who = f"{size} clients without replacement"
        case Cyclic(groups):
            who = f"min-sep: {groups} public group{'s' if groups > 1 else ''} in turn, k={phase.participations}"
    return f"{who}, T={phase.rounds} rounds, N={population} (public)"


def _precision(plan: PrivacyPlan) -> str:
    if plan.level is Level.RESEARCH:
        return (
            "Floating-point noise from a generator that is not a cipher is as good as ideal Gaussian noise, and a "
            "floating-point sum of clipped updates, rounded to the grid, as good as the sum of rounded ones."
        )
    return (
        "Discrete noise is accounted as a continuous Gaussian, from which it differs by far less than δ. Where "
        "nobody is sampled, the second opinion holds for the discrete noise itself (Canonne, Kamath, Steinke 2020)."
    )


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
