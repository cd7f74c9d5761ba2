"""Settings for a purpose, chosen from public numbers alone."""

from __future__ import annotations

from fedrec.spec import Plan


def private(plan: Plan, epsilon: float) -> Plan:
    """`plan` under user-central privacy: few shared parameters, large cohorts, a gentle optimiser.

    Noise grows with the square root of the number of shared parameters, so item residuals and
    popularity are left out; see docs/privacy.md.
    """
    return plan.override(
        {
            "model": {"residuals": False, "popularity": False, "projection": False, "dim": 32, "rank": 2},
            "federation": {"rounds": 40, "cohort": 300},
            "privacy": {"mode": "user-central", "epsilon": epsilon},
        }
    )
