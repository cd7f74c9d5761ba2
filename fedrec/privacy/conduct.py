"""What a strategy may do with a cohort without breaking the promise that was accounted for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.sampling import Fixed, Poisson


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How a strategy gathers and averages a cohort. Every default is what a private plan needs.

    `tops_up`: draws more clients when few answer. `retries`: asks a client again. `shuffles`: walks through a
    permutation of the clients. `minimum`: the fewest replies with which it makes a release.
    `weights`: "equal", or by "examples", or whatever the "client" says. `denominator`: the "plan"'s public constant,
    the number of "replies", or the number "enrolled" now.
    """

    sampler: Poisson | Fixed
    tops_up: bool = False
    retries: bool = False
    shuffles: bool = False
    minimum: int = 0
    weights: Literal["equal", "examples", "client"] = "equal"
    denominator: Literal["plan", "replies", "enrolled"] = "plan"


def admit(conduct: Conduct, planned: Poisson) -> Poisson:
    """The sampler to use, if the strategy keeps the rules of a Poisson plan: P02, P03, P04 or P05 otherwise."""
    _check_cohort(conduct)
    if conduct.sampler != planned:
        raise PrivacyRefusal(
            "P02", "the sampler in use is the one that was accounted", remedy="Take `plan.sampler`.",
            used=conduct.sampler, accounted=planned,
        )  # fmt: skip
    if conduct.weights != "equal":
        remedy = "Count every client once: a weight is private, and lets one client outgrow the clip norm."
        raise PrivacyRefusal("P05", "all weights are equal", remedy=remedy, weights=conduct.weights)
    if conduct.denominator != "plan":
        remedy = "Divide by rate × the plan's population, a public constant."
        raise PrivacyRefusal(
            "P04", "add-or-remove-one needs a public denominator", remedy=remedy, denominator=conduct.denominator
        )
    return planned


def _check_cohort(conduct: Conduct) -> None:
    if not isinstance(conduct.sampler, Poisson):
        _refuse("it picks a fixed number of clients", "Draw with `plan.sampler`.", sampler=conduct.sampler)
    if conduct.tops_up:
        _refuse("it tops the cohort up", "Missing replies count as zeros.", tops_up=True)
    if conduct.retries:
        _refuse("it asks again", "Missing replies count as zeros.", retries=True)
    if conduct.shuffles:
        _refuse("it shuffles", "Toss a coin for each client in each round; a shuffle hides less.", shuffles=True)
    if conduct.minimum > 0:
        _refuse("it waits for a minimum of replies", "Release noise alone if nobody answers.", minimum=conduct.minimum)


def _refuse(habit: str, remedy: str, /, **got: object) -> None:
    raise PrivacyRefusal("P03", f"a Poisson plan does not cover this strategy: {habit}", remedy=remedy, **got)
