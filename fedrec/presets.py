"""Settings for a purpose, chosen from public numbers alone."""

from __future__ import annotations

from fedrec.spec import Plan


def private(plan: Plan, epsilon: float) -> Plan:
    """`plan` under user-central privacy: few shared parameters, few rounds, large cohorts.

    Noise grows with the square root of the number of shared parameters and with that of the rounds.
    So each axis of a context is weighed and none is mixed, items keep their public axes, the adapter
    has rank 1, and eight rounds do what they can. Chosen on the validation items of the synthetic
    data (1,000 people), see docs/privacy.md; for other populations it is a start, not an optimum.
    """
    return plan.override(
        {
            "model": {"maps": "diagonal", "projection": False, "residuals": False, "rank": 1},
            "federation": {"rounds": 8, "cohort": 300, "learning_rate": 0.03, "weight_decay": 1.0},
            "privacy": {"mode": "user-central", "epsilon": epsilon, "clip": 0.5},
            "evaluation": {"every": 2},
        }
    )
