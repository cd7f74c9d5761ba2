"""Settings of a plan that decide who is protected how, and how a device reads its events; others: `fedrec.spec`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from fedrec.settings import Section


class PrivacySpec(Section):
    """The promise asked for; the noise that keeps it is calibrated from these public numbers.

    `epsilon` and `delta` are about whole users, over the whole run; `delta` 0 asks for N^−1.1. `schedule` "auto" is
    Poisson where the server adds the noise, else min-sep. With `bands` above 1 the server's noise is correlated over so
    many rounds. What no promise can be made of (ε ≤ 0, δ ≥ 1/N …) is refused where the budget is made, as P01.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    mode: Literal["none", "user-central", "user-distributed", "user-local", "interaction-local", "layered"] = "none"
    epsilon: float = 8.0
    delta: float = 0.0
    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    noise: Literal["hardened", "research", "test"] = "hardened"
    schedule: Literal["auto", "poisson", "min-sep", "fixed"] = "auto"
    bands: int = Field(1, ge=1)
    allow_large_epsilon: bool = False
    force: bool = False


class SharesSpec(Section):
    """Noise shares of `user-distributed` and `layered`.

    A share is sized so that the noise is whole when `survivors` of a cohort answer; below that nothing is released.
    `colluders` more must answer, because the server may know the shares of so many. `masked`: by secure aggregation
    the server sees sums only, and no client's vector by itself.
    """

    survivors: float = Field(0.7, gt=0, le=1)
    colluders: int = Field(0, ge=0)
    masked: bool = False


class AdaptiveSpec(Section):
    """A clip norm that follows a quantile of the update norms, from `privacy.clip` and within `least` … `most`.

    `quantile` 0: it stays where it is. `spread` is the noise on the count of un-clipped clients; 0 stands for a
    twentieth of the cohort.
    """

    quantile: float = Field(0.0, ge=0, lt=1)
    rate: float = Field(0.2, gt=0, le=1)
    spread: float = Field(0.0, ge=0)
    least: float = Field(0.01, gt=0)
    most: float = Field(100.0, gt=0)


class InteractionSpec(Section):
    """DP-SGD inside the device, in `interaction-local` and `layered`: ε and δ are about single interactions.

    In a round a device takes `steps`; in each, every example comes with probability `rate`. `examples` is how many a
    usual device has, a public constant by which sums are divided. `seconds` 0: every event is its own example; else
    the last `span` events of one window of the public clock are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    epsilon: float = 8.0
    delta: float = 1e-6
    rate: float = Field(0.2, gt=0, le=1, allow_inf_nan=False)
    steps: int = Field(5, ge=1)
    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    examples: int = Field(50, ge=1)
    seconds: int = Field(86_400, ge=0)
    span: int = Field(8, ge=1)


class WarmSpec(Section):
    """A first round in which everybody sends clipped statistics, from which the ranking layer is computed.

    `share` is the part of the budget, in squared noise multipliers, that it gets when rounds of training follow.
    `opinions` is the part of the squared length of a person's statistics that is about how they rated what they wrote,
    and from which a sentiment head is learnt; 0: nothing is.
    """

    enabled: bool = False
    share: float = Field(0.8, gt=0, lt=1)
    opinions: float = Field(0.0, ge=0, lt=1)


class ProfileSpec(Section):
    """How much each kind of event counts in a profile.

    A rating r in [0, 1] multiplies its event by 1 + `rating` · (2r − 1): 0 ignores ratings, 2 lets
    a bad one count against the item. `text` is the weight of an event's free text beside its item.
    """

    view: float = 0.5
    click: float = 1.0
    like: float = 1.5
    rate: float = 1.0
    search: float = 1.0
    review: float = 1.0
    skip: float = -0.5
    rating: float = 0.0
    text: float = 0.5

    def kinds(self) -> tuple[float, ...]:
        """Weights in the order of `Kind`."""
        return (self.view, self.click, self.like, self.rate, self.search, self.review, self.skip)
