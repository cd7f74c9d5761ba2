"""What a study must reach for a build to pass: `ndcg@10[eps=2] >= 0.95 * ndcg@10[arm="federated"]`.

    gate    := figure ( ">=" | ">" | "<=" | "<" ) ( NUMBER | NUMBER "*" figure )
    figure  := METRIC [ ".low" | ".high" ] [ "[" filter { "," filter } "]" ]
    filter  := "eps" "=" ( NUMBER | "inf" ) | "arm" "=" ( 'NAME' | "NAME" | NAME without , ] or quotes )

`.low` and `.high` are the ends of the 95 % interval; `eps=inf` is the arm without privacy.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedrec.errors import SpecError, require
from fedrec.study.findings import Findings, Point

_RELATIONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt,
}  # fmt: skip
_EXAMPLE = 'Write METRIC[eps=…, arm="…"] >= NUMBER, for example ndcg@10[eps=2] >= 0.3.'
_METRIC = r"[A-Za-z][\w@/-]*"
_END = r"\.(low|high)\b"
_RELATION = r">=|>|<=|<"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NAME = r"""(?:"([^"]+)"|'([^']+)'|([^\s,\]"'](?:[^,\]"']*[^\s,\]"'])?))"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric of one point of a study, as asked for.

    `epsilon` is None where none was asked for, and infinite for no privacy. `end` is "low", "high" or "" for the mean.
    """

    metric: str
    end: str = ""
    epsilon: float | None = None
    arm: str | None = None

    def __str__(self) -> str:
        filters = _spelt(self.epsilon, self.arm)
        return self.metric + (f".{self.end}" if self.end else "") + (f"[{filters}]" if filters else "")

    def point(self, findings: Findings) -> Point:
        """The one point meant; where several arms could be, the one that validation items prefer."""
        known = [point for point in findings.points if self.arm in (None, point.arm)]
        require(bool(known), "a gate names an arm of the study",
                remedy=f"There are: {'; '.join(findings.arms)}.", arm=self.arm)  # fmt: skip
        fitting = [point for point in known if self.epsilon in (None, _budget(point))]
        budgets = ", ".join(f"eps={_short(budget)}" for budget in sorted({_budget(point) for point in known}))
        require(bool(fitting), "a gate names a budget of the study", remedy=f"There are: {budgets}.", asked=str(self))
        if self.arm is None and self.epsilon is not None:
            return self._preferred(findings, fitting)
        remedy = f"Ask for one of: {_listed(fitting)}."
        require(len(fitting) == 1, "a gate is about one arm at one budget", remedy=remedy, asked=str(self))
        return fitting[0]

    def value(self, findings: Findings, point: Point) -> float:
        """The figure there, on test items; NaN if nobody has a value."""
        known = findings.metrics
        require(self.metric in known, "a gate names a metric of the study",
                remedy=f"There are: {', '.join(known)}.", metric=self.metric)  # fmt: skip
        found = findings.estimate(point, self.metric)
        return {"low": found.low, "high": found.high}.get(self.end, found.mean)

    def _preferred(self, findings: Findings, fitting: list[Point]) -> Point:
        private = [point for point in fitting if point.arm in findings.private]
        chosen = private[0] if len(private) == 1 else findings.leading(fitting[0].epsilon)
        if chosen is None:
            rule = "a gate without arm= is about the arm that validation items prefer, and they cannot tell here"
            raise SpecError(rule, remedy=f"Ask for one of: {_listed(fitting)}.", asked=str(self))
        return chosen


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of a gate: the point it was about, the value there, and the bound that it had to meet."""

    gate: str
    point: str
    value: float
    bound: float
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Gate:
    """`figure` `relation` `number`, or `number` times the figure `of`."""

    figure: Figure
    relation: str
    number: float
    of: Figure | None = None

    @classmethod
    def parse(cls, text: str) -> Gate:
        """A gate from its text. What does not fit the grammar is a `SpecError` that says where."""
        reader = _Reader(text)
        figure, relation = reader.figure(), reader.need(_RELATION, "one of >= > <= <")["word"]
        number = reader.number()
        of = reader.figure() if reader.take(r"\*") else None
        if not reader.over:
            raise reader.lacks("its end" if of else "its end, or * and a metric,")
        return cls(figure=figure, relation=relation, number=number, of=of)

    def __str__(self) -> str:
        factor = "" if self.of is None else f" * {self.of}"
        return f"{self.figure} {self.relation} {_short(self.number)}{factor}"

    def judge(self, findings: Findings) -> Judged:
        """Whether it holds; a figure that nobody has (NaN) meets no bound, and is none."""
        point = self.figure.point(findings)
        value = self.figure.value(findings, point)
        bound = self.number
        if self.of is not None:
            bound *= self.of.value(findings, self.of.point(findings))
        holds = _RELATIONS[self.relation](value, bound)
        return Judged(gate=str(self), point=str(point), value=value, bound=bound, holds=holds)


class _Reader:
    """A place in a gate's text; blanks between words do not count."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    @property
    def over(self) -> bool:
        return not self._text[self._at :].strip()

    def take(self, pattern: str) -> re.Match[str] | None:
        """What is next, if it looks like that."""
        found = re.compile(rf"\s*(?:{pattern})").match(self._text, self._at)
        self._at = found.end() if found else self._at
        return found

    def need(self, pattern: str, what: str) -> re.Match[str]:
        found = self.take(rf"(?P<word>{pattern})")
        if found is None:
            raise self.lacks(what)
        return found

    def lacks(self, what: str) -> SpecError:
        rest = self._text[self._at :].lstrip()
        place = len(self._text) - len(rest) + 1
        return SpecError(f"a gate has {what} at character {place}", remedy=_EXAMPLE, gate=self._text, here=rest)

    def figure(self) -> Figure:
        metric = self.need(_METRIC, "a metric's name")["word"]
        end = self.take(_END)
        epsilon, arm = self._filters() if self.take(r"\[") else (None, None)
        return Figure(metric=metric, end=end[1] if end else "", epsilon=epsilon, arm=arm)

    def number(self) -> float:
        before = self._at
        number = float(self.need(_NUMBER, "a number")["word"])
        if not math.isfinite(number):
            self._at = before
            raise self.lacks("a number that a float can hold")
        return number

    def _filters(self) -> tuple[float | None, str | None]:
        epsilon: float | None = None
        arm: str | None = None
        while True:
            if epsilon is None and self.take(r"eps\s*="):
                epsilon = math.inf if self.take(r"inf\b") else self.number()
            elif arm is None and self.take(r"arm\s*="):
                arm = next(filter(None, self.need(_NAME, "an arm's name").groups()[1:]))
            else:
                raise self.lacks("a filter (eps= or arm=, each once)")
            if self.need(r"[,\]]", "a comma or ]")["word"] == "]":
                return epsilon, arm


def _short(number: float) -> str:
    return repr(number).removesuffix(".0")


def _budget(point: Point) -> float:
    return math.inf if point.epsilon is None else point.epsilon


def _spelt(epsilon: float | None, arm: str | None) -> str:
    quote = "'" if arm and '"' in arm else '"'
    return ", ".join(
        ([] if epsilon is None else [f"eps={_short(epsilon)}"]) + ([] if arm is None else [f"arm={quote}{arm}{quote}"])
    )


def _listed(points: list[Point]) -> str:
    return "; ".join(f"[{_spelt(_budget(point), point.arm)}]" for point in points)
