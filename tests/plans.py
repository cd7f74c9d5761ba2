"""Plans of every mode and schedule for tests. Nothing is calibrated: that takes seconds, and few tests hang on it."""

from fedrec.privacy.inside import InteractionPromise
from fedrec.privacy.interaction import InteractionTerms
from fedrec.privacy.noise import Level
from fedrec.privacy.phase import Phase, Purpose
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Fixed, Poisson
from fedrec.privacy.terms import Budget, Mode

CLIENTS, COHORT, GROUPS, LEAST, Z, GRID = 40, 10, 4, 6, 4.0, 2**10
KINDS = {
    "poisson": (Mode.USER_CENTRAL, Poisson(COHORT / CLIENTS)),
    "min-sep": (Mode.USER_CENTRAL, Cyclic(GROUPS)),
    "banded": (Mode.USER_CENTRAL, Cyclic(GROUPS)),
    "fixed": (Mode.USER_CENTRAL, Fixed(COHORT)),
    "shares": (Mode.USER_DISTRIBUTED, Cyclic(GROUPS)),
    "sampled shares": (Mode.USER_DISTRIBUTED, Poisson(COHORT / CLIENTS)),
    "local": (Mode.USER_LOCAL, Cyclic(GROUPS)),
    "inside": (Mode.INTERACTION_LOCAL, Cyclic(GROUPS)),
    "layered": (Mode.LAYERED, Cyclic(GROUPS)),
}
USERS = [kind for kind, (mode, _) in KINDS.items() if mode.protects_users]
EVERYBODY = {Poisson: Poisson(1.0), Fixed: Fixed(CLIENTS), Cyclic: Cyclic(1)}
TERMS = InteractionTerms(rate=0.2, steps=2, clip=1.0, multiplier=4.0, examples=20)
STATISTICS = InteractionTerms(rate=1.0, steps=1, clip=0.5, multiplier=4.0, examples=20)


def plan_of(kind="poisson", *, rounds=6, warm=False, level=Level.HARDENED, adaptive=None, budget=19.0):
    """A plan of 40 clients, of whom ten are expected in a round of training."""
    mode, schedule = KINDS[kind]
    z = Z if mode.protects_users else 0.0
    bands = 3 if kind == "banded" else 1
    phases = (Phase(rounds=rounds, schedule=schedule, clip=1.0, multiplier=z, grid=GRID, bands=bands,
                    adaptive=adaptive),)  # fmt: skip
    if warm:
        everybody = EVERYBODY[type(schedule)]
        phases = (Phase(purpose=Purpose.WARM_START, rounds=1, schedule=everybody, clip=0.5, multiplier=z, grid=GRID),
                  *phases)  # fmt: skip
    distributed = mode in (Mode.USER_DISTRIBUTED, Mode.LAYERED)
    inside = InteractionPromise(
        budget=19.0, participations=phases[-1].participations, terms=TERMS, statistics=STATISTICS if warm else None
    )  # fmt: skip
    return PrivacyPlan(
        mode=mode, population=CLIENTS, phases=phases, level=level, least=LEAST if distributed else 0,
        budget=Budget.of(budget, CLIENTS, over_cap=budget > 20) if mode.protects_users else None,
        interaction=inside if mode.protects_interactions else None,
    )  # fmt: skip


def release_of(rounds, turn, updates, size):
    """What a server releases of `updates`."""
    return rounds.release(turn, rounds.sum(turn, updates, size), size)
