"""Everything public about a run: frozen sections, one strict TOML both ways.

A `Plan` may be logged, published and compared: nothing in it says anything about a person.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Literal, Self

import tomli_w
from pydantic import ConfigDict, Field, field_validator, model_validator

from fedrec.errors import SpecError
from fedrec.sections import AdaptiveSpec as AdaptiveSpec
from fedrec.sections import InteractionSpec as InteractionSpec
from fedrec.sections import PrivacySpec as PrivacySpec
from fedrec.sections import ProfileSpec as ProfileSpec
from fedrec.sections import SharesSpec as SharesSpec
from fedrec.sections import WarmSpec as WarmSpec
from fedrec.settings import Section, checked, merge, read_text


class DataSpec(Section):
    """Which data set, where it lies, and the options of its reader."""

    # Options are text, for every reader alike; `users = 40` means "40".
    model_config = ConfigDict(coerce_numbers_to_str=True)

    source: str = "synthetic"
    path: str = ""
    options: dict[str, str] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _sorted(cls, options: dict[str, str]) -> dict[str, str]:
        # Equal plans have equal hashes, in whatever order the options were given.
        return dict(sorted(options.items()))


class SplitSpec(Section):
    """What is held out.

    `fit` says what the shared model may learn from: "train" stops before the validation items;
    "train+validation" stops before the test items, for a final run whose settings were chosen
    with "train".
    """

    kind: Literal["leave-one-out", "global-time", "cold-items"] = "leave-one-out"
    fit: Literal["train", "train+validation"] = "train"
    hidden: float = Field(0.1, gt=0, lt=1)


class ModelSpec(Section):
    """The shared parameters: text tower, ranking layer, optional item residuals and popularity.

    Diagonal `maps` weigh each axis of a context instead of mixing axes: dim numbers a decay, not dim².
    Without `projection` items keep their public principal axes, and only the adapter moves them. `precision` is that of
    the frozen encoder: bfloat16 changes its vectors a little, hence it is a setting and not a matter of speed.
    """

    encoder: str = "minilm"
    precision: Literal["float32", "bfloat16"] = "float32"
    adapter: Literal["none", "bottleneck", "lora"] = "bottleneck"
    rank: int = Field(8, ge=1)
    blocks: int = Field(1, ge=1)
    dim: int = Field(64, ge=1)
    decays: tuple[float, ...] = (0.0, 0.5, 0.9, 1.0)
    maps: Literal["full", "diagonal"] = "full"
    projection: bool = True
    residuals: bool = True
    popularity: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.decays or not all(0 <= decay <= 1 for decay in self.decays):
            raise ValueError("decays are numbers in [0, 1]: 0 keeps only the last event, 1 is the plain mean")
        return self


class TrainingSpec(Section):
    """One client's work in one round.

    `examples` bounds how many of a person's choices one step may use; `negatives` is 0 for a
    softmax over the whole catalogue, else the number of public items drawn for each step. The
    `embedding_rate` is the step size of the local user embedding (0: there is none) and
    `embedding_decay` pulls it back to zero.
    """

    steps: int = Field(1, ge=1)
    learning_rate: float = Field(1.0, gt=0)
    examples: int = Field(64, ge=1)
    negatives: int = Field(0, ge=0)
    hide_seen: bool = True
    embedding_rate: float = Field(0.1, ge=0)
    embedding_decay: float = Field(0.1, ge=0)


class FederationSpec(Section):
    """Rounds, cohort and the server's optimiser.

    `rounds` of training, after the warm start if there is one. `cohort` is the expected number of
    clients in a round; the sum of updates is always divided by it, whoever answered. Weight decay is
    decoupled and leaves the popularity prior alone.

    Without a promise, `extra` asks so much more of the cohort and closes the round when `cohort` have answered, and an
    update longer than `bound` (L2, 0: any) is refused. `aggregation` is what stands for all updates; `trim` is the
    share that a trimmed mean cuts at each end.
    """

    rounds: int = Field(15, ge=0)
    cohort: int = Field(200, ge=1)
    optimizer: Literal["sgd", "adam", "yogi"] = "adam"
    learning_rate: float = Field(0.02, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(2.0, ge=0)
    quorum: float = Field(0.5, ge=0, le=1)
    timeout: float = Field(3600.0, gt=0)
    extra: float = Field(0.0, ge=0)
    aggregation: Literal["mean", "trimmed-mean", "median"] = "mean"
    trim: float = Field(0.1, gt=0, lt=0.5)
    bound: float = Field(0.0, ge=0)


class SimulationSpec(Section):
    """What only a simulation does to its devices: in each round every one that is asked falls silent by chance."""

    dropout: float = Field(0.0, ge=0, lt=1)


class EvaluationSpec(Section):
    """What the simulator measures, on how many `people`, and how often it looks at the validation items."""

    every: int = Field(5, ge=0)
    k: int = Field(10, ge=1)
    negatives: int = Field(99, ge=1)
    people: int = Field(0, ge=0)
    baselines: Literal["none", "fast", "all"] = "fast"


class Plan(Section):
    """The public description of one run. `clients` 0 stands for everybody in the data."""

    name: str = "fedrec"
    seed: int = Field(0, ge=0, lt=2**63)
    clients: int = Field(0, ge=0)
    data: DataSpec = DataSpec()
    split: SplitSpec = SplitSpec()
    model: ModelSpec = ModelSpec()
    profile: ProfileSpec = ProfileSpec()
    training: TrainingSpec = TrainingSpec()
    federation: FederationSpec = FederationSpec()
    warm: WarmSpec = WarmSpec()
    privacy: PrivacySpec = PrivacySpec()
    shares: SharesSpec = SharesSpec()
    adaptive: AdaptiveSpec = AdaptiveSpec()
    interaction: InteractionSpec = InteractionSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    simulation: SimulationSpec = SimulationSpec()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.rounds:
            raise ValueError("a run has a round: set federation.rounds or warm.enabled")
        if self.warm.enabled and self.federation.aggregation != "mean":
            raise ValueError('a warm start adds up statistics: set warm.enabled = false or aggregation = "mean"')
        if self.warm.opinions and not self.warm.enabled:
            raise ValueError("opinions are statistics of a warm start: set warm.enabled = true or warm.opinions = 0")
        return self

    @property
    def rounds(self) -> int:
        """All rounds: the warm start's, then those of training."""
        return self.warm.enabled + self.federation.rounds

    @classmethod
    def of(cls, settings: dict[str, object]) -> Plan:
        """A plan from nested settings; a bad one is a `SpecError` that names the setting."""
        return checked(cls, settings, "plan")

    @classmethod
    def from_toml(cls, text: str) -> Plan:
        """A plan from TOML; unknown names are refused."""
        try:
            return cls.of(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            remedy = "Repair the line; text is quoted in TOML, and sections are [name]."
            raise SpecError(f"the plan is not valid TOML: {error}", remedy=remedy) from None

    @classmethod
    def read(cls, path: Path) -> Plan:
        """A plan from a TOML file."""
        return cls.from_toml(read_text(path, "plan"))

    def to_toml(self) -> str:
        """Every setting, spelled out."""
        return tomli_w.dumps(self.model_dump(mode="json"))

    def override(self, settings: dict[str, object]) -> Plan:
        """The plan with nested `settings` in place of its own."""
        return Plan.of(merge(self.model_dump(mode="json"), settings))

    @property
    def hash(self) -> str:
        """SHA-256 of every setting that is not at its default: a setting that a later version adds changes no hash."""
        chosen = tomli_w.dumps(self.model_dump(mode="json", exclude_defaults=True))
        return hashlib.sha256(chosen.encode()).hexdigest()
