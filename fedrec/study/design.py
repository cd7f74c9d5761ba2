"""What a study compares: arms × budgets × seeds on the same people, one strict TOML both ways."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import ConfigDict, Field, field_validator, model_validator

from fedrec.errors import SpecError, require
from fedrec.files import home
from fedrec.presets import private
from fedrec.privacy.terms import Mode
from fedrec.settings import Section, checked, read_text
from fedrec.spec import Plan
from fedrec.study.metrics import ACCURACY, LISTS

BASELINES = {
    "random": "random",
    "popularity": "popularity",
    "frozen-text": "frozen text",
    "item-knn": "item-kNN (central)",
    "ease": "EASE (central)",
    "public-start": "public start, untrained",
    "local-only": "local only",
    "central": "same model, central",
}  # as an arm is asked for → as `fedrec.study.arms` knows it
RECIPES = {
    "federated": "federated",
    "warm-start": "warm start",
    "warm-start+rounds": "warm start + rounds",
    "from-scratch": "from scratch",
}
_CURVES = ("ndcg", "hr")
_PINNED = ("minilm", "tiny", "hash")  # encoders that are one and the same everywhere
_SHARED = ("name", "seed", "clients", "data", "split", "evaluation")


class ArmSpec(Section):
    """One contestant: a baseline, or a recipe for a federated plan under a privacy mode.

    `federated` trains the study's plan as it stands, `from-scratch` without a warm start, `warm-start+rounds` after
    one, and `warm-start` is one round of statistics alone (`fedrec.presets.private`). `settings` go on top. `grid` is a
    list of further settings to choose among on validation items, each ε by itself. `epsilon` None takes the study's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    recipe: str
    mode: Literal["none", "user-central", "user-distributed", "user-local", "interaction-local", "layered"] = "none"
    name: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    grid: tuple[dict[str, Any], ...] = ()
    epsilon: tuple[float, ...] | None = None

    @field_validator("recipe")
    @classmethod
    def _known(cls, recipe: str) -> str:
        if recipe not in RECIPES and recipe not in BASELINES:
            raise ValueError(f"a recipe is one of {', '.join([*RECIPES, *BASELINES])}")
        return recipe

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.recipe in BASELINES and (self.mode != "none" or self.settings or self.grid or self.epsilon):
            raise ValueError("a baseline has no mode, settings, grid or budget: it is tuned by itself, on validation")
        if self.mode == "none" and self.epsilon:
            raise ValueError("without a privacy mode there is no budget")
        for settings in (self.settings, *self.grid):
            if shared := [name for name in _SHARED if name in settings]:
                raise ValueError(f"arms meet on the same people and items: {shared[0]} belongs in [plan]")
            if not all(isinstance(section, Mapping) for section in settings.values()):
                raise ValueError("settings stand in their sections: { federation = { rounds = 20 } }")
            if {"mode", "epsilon"} & set(settings.get("privacy", {})) or "epsilon" in settings.get("interaction", {}):
                raise ValueError("an arm's mode and budgets are its `mode` and `epsilon`")
        return self

    @classmethod
    def parse(cls, text: str) -> ArmSpec:
        """An arm from a flag: RECIPE, RECIPE:MODE or RECIPE:MODE:ADAPTER."""
        recipe, _, rest = text.partition(":")
        mode, _, adapter = rest.partition(":")
        settings = {"model": {"adapter": adapter}} if adapter else {}
        return checked(cls, {"recipe": recipe, "mode": mode or "none", "settings": settings}, "study")

    @property
    def title(self) -> str:
        """As in the report."""
        if self.name or self.recipe in BASELINES:
            return self.name or BASELINES[self.recipe]
        adapter = self.settings.get("model", {}).get("adapter", "")
        mode = "" if self.mode == "none" else self.mode
        return ", ".join(part for part in (RECIPES[self.recipe], mode, adapter) if part)

    def plan(self, base: Plan, epsilon: float | None, settings: Mapping[str, Any] | None = None) -> Plan:
        """The federated plan of this arm at a budget, None for none, with `settings` of its grid on top."""
        mode = self.mode if epsilon is not None else "none"
        plan = base
        match self.recipe:
            case "warm-start":
                # Without a budget it is the same model without noise, not another one.
                plan = private(base, self.mode if self.mode != "none" else Mode.USER_CENTRAL)
            case "warm-start+rounds":
                plan = base.override({"warm": {"enabled": True}})
            case "from-scratch":
                plan = base.override({"warm": {"enabled": False, "opinions": 0.0}})
        budget = {} if epsilon is None else {"epsilon": epsilon}
        # A study shows what a budget costs even where noise drowns everything; the report says where it does.
        asked = {"privacy": {"mode": mode, "force": True, **budget}, "interaction": budget}
        return plan.override(asked).override(self.settings).override(dict(settings or {}))


_DEFAULT_ARMS = (
    *(ArmSpec(recipe=recipe) for recipe in BASELINES if recipe != "item-knn"),
    ArmSpec(recipe="federated"),
    ArmSpec(recipe="warm-start", mode="user-central"),
)


class Study(Section):
    """The public description of a study; every arm is measured at every one of its budgets for every seed.

    `plan` is what all arms share. `metric` is what the report is about, `reference` the arm that others are tested
    against where it has no budget. `trials` is the most settings that any arm may compare on validation items, at any
    one budget; they are compared for `tuning_seed`, which is not among the `seeds` (a number n stands for 0 … n − 1).
    `audit` also attacks the release paths of the modes in the study.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    name: str = Field("study", pattern=r"^[\w.+-]+$")
    metric: str = "ndcg@10"
    epsilon: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, math.inf)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seed: int = Field(1000, ge=0)
    reference: str = RECIPES["federated"]
    trials: int = Field(10, ge=1)
    audit: bool = True
    plan: Plan = Plan()
    arms: tuple[ArmSpec, ...] = _DEFAULT_ARMS

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, seeds: object) -> object:
        return tuple(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds

    @model_validator(mode="after")
    def _check(self) -> Self:
        titles = [arm.title for arm in self.arms]
        if twice := [title for title in titles if titles.count(title) > 1]:
            raise ValueError(f"arms have names of their own: give one of the {twice[0]!r} another `name`")
        if not self.seeds or not self.arms or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a study has at least one seed and one arm, and each seed once")
        if min(self.seeds) < 0:
            raise ValueError("a seed is not negative")
        if self.tuning_seed in self.seeds:
            raise ValueError("settings are chosen for a seed of their own: `tuning_seed` is not among `seeds`")
        if over := [arm.title for arm in self.arms if len(arm.grid) > self.trials]:
            raise ValueError(f"tuning budgets are equal: {over[0]!r} would compare more than `trials` settings")
        if self.metric not in self._figures:
            raise ValueError(f"validation items are asked for `metric`: one of {', '.join(self._figures)}")
        if not self.epsilon or any(not epsilon > 0 for arm in self.arms for epsilon in (arm.epsilon or self.epsilon)):
            raise ValueError("a study has a budget, and a budget is positive; inf stands for none")
        if self.plan.privacy.mode != "none":
            raise ValueError("plan.privacy.mode stays none: each arm has a `mode`")
        return self

    @property
    def _figures(self) -> list[str]:
        """What a study may be about. Of trials, only a curve over validation items is kept."""
        names = _CURVES if any(arm.grid for arm in self.arms) else ACCURACY
        return [f"{name}@{self.plan.evaluation.k}" for name in names]

    @classmethod
    def from_toml(cls, text: str) -> Study:
        """A study from TOML; a mistake is a `SpecError` that names the setting."""
        try:
            return checked(cls, tomllib.loads(text), "study")
        except tomllib.TOMLDecodeError as error:
            remedy = "Repair the line; text is quoted in TOML, and sections are [name]."
            raise SpecError(f"the study is not valid TOML: {error}", remedy=remedy) from None

    @classmethod
    def read(cls, path: Path) -> Study:
        """A study from a TOML file."""
        return cls.from_toml(read_text(path, "study"))

    def to_toml(self) -> str:
        """Every setting, spelled out."""
        content = self.model_dump(mode="python", exclude_none=True)
        return tomli_w.dumps(json.loads(json.dumps(content), parse_constant=float))

    def budgets(self, arm: ArmSpec) -> tuple[float | None, ...]:
        """The budgets of an arm, rising; None (no privacy) last."""
        if arm.mode == "none":
            return (None,)
        return tuple(None if math.isinf(each) else each for each in sorted(set(arm.epsilon or self.epsilon)))

    @cached_property
    def base(self) -> Plan:
        """What all arms share, as every cell runs it: without baselines of its own."""
        return self.plan.override({"name": self.name, "evaluation": {"baselines": "none"}})

    @property
    def figures(self) -> tuple[str, ...]:
        """Metrics that its cells will have; those of accuracy against sampled negatives as well."""
        return tuple(f"{name}@{self.plan.evaluation.k}" for name in (*ACCURACY, *LISTS))

    @property
    def points(self) -> Iterator[tuple[ArmSpec, float | None]]:
        """Every arm at each of its budgets."""
        return ((arm, epsilon) for arm in self.arms for epsilon in self.budgets(arm))


def key_of(plan: Plan, data: str, baseline: str) -> str:
    """Under which name a cell is kept: equal contents have equal keys, whatever they are called in a study.

    The version of fedrec stands for its code: who changes that in a checkout starts in a folder of its own.
    """
    from importlib.metadata import version

    content = [version("fedrec"), data, baseline, plan.override({"name": "cell"}).to_toml()]
    if plan.model.encoder not in _PINNED:  # what a folder or a hub holds may change under its name
        content.append(_encoder_hash(plan.model.encoder))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


@cache
def _encoder_hash(name: str) -> str:
    from fedrec.model.encoder import open_encoder

    return open_encoder(name, cache=home() / "cache").hash


def narrowed(study: Study, changes: Mapping[str, Any]) -> Study:
    """A study with some of its settings replaced, checked anew."""
    require(set(changes) <= set(Study.model_fields), "a study has such a setting", settings=sorted(changes))
    return checked(Study, study.model_dump(mode="python") | dict(changes), "study")
