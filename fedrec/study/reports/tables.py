"""The tables of a report, each with a note that says what its numbers mean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from fedrec.study.cells import Cell, Cost
from fedrec.study.findings import GROUPS, Findings, Point, Who
from fedrec.study.inference import Contrast, holm
from fedrec.study.metrics import ACCURACY
from fedrec.study.reports.captions import EQUALS, SMALLEST
from fedrec.study.reports.document import Line, Table, Tone
from fedrec.study.reports.numbers import DASH, amount, around, at, count, extent, few, mean, moved, number, p_value
from fedrec.study.reports.protocol import meaning
from fedrec.study.reports.verdict import compared

_COST = (
    "Means over seeds. Down, up and device seconds are of one participation of one device, moved in all of all its "
    "participations. Device seconds are of one core of the machine that measured them, wall seconds are that machine's "
    "for a whole cell: neither is a phone's. A dash: nothing was trained in rounds."
)
_ATTACKS = (
    "These attacks are on fedrec's release paths, with plans and made-up people of their own: not on this study's "
    "models, people or budgets. Claim: what the account says of the path. Shown: what the attack proves at least, D1 "
    "with confidence 1 − 10⁻⁶, D3 with 95 %; D2 only estimates. Ceiling: the most that it could have proved. Power: "
    "the same attack on planted faults. Every ε is at the claim's δ, for one user (in interaction-local, one "
    "interaction); μ is the largest shift that one of them can cause, in standard deviations of the noise. A reader "
    "sees every released model, anyone all that leaves a device."
)
_SILENT = (
    "Who came is a secret where privacy is promised: what was accepted and refused is then not told. “Silent by "
    "chance” is what the simulation does to each device that is asked. Refusals are sums over rounds and seeds."
)


@dataclass(frozen=True)
class Tested:
    """A point against the reference on the study's metric; `adjusted` is its p by Holm, in the whole family."""

    contrast: Contrast
    adjusted: float


def tested(findings: Findings) -> dict[Point, Tested]:
    """Every point but the reference against it; the family of Holm's correction is all of them. Empty without one."""
    if not compared(findings):
        return {}
    found = {point: findings.contrast(point, findings.base, findings.metric)
             for point in findings.points if point != findings.base}  # fmt: skip
    adjusted = holm([contrast.p for contrast in found.values()])
    return {point: Tested(contrast, p) for (point, contrast), p in zip(found.items(), adjusted, strict=True)}


def accuracy(findings: Findings) -> tuple[str, ...]:
    """The study's metric, then every other accuracy metric."""
    others = [name for name in findings.metrics if name.partition("@")[0] in ACCURACY and name != findings.metric]
    return (findings.metric, *others)


def beyond(findings: Findings) -> tuple[str, ...]:
    """Metrics of lists rather than of what they should have held."""
    return tuple(name for name in findings.metrics if name.partition("@")[0] not in ACCURACY)


def results(findings: Findings) -> Table:
    """One row a point: the metric and its sampled twin, the difference to the reference and how sure it is."""
    names, tests = _twins(findings), tested(findings)
    header = ("arm and budget", *names, f"validation {findings.metric}")
    note = f"{meaning(findings)} ± is half an interval. Validation figures are means over seeds."
    if tests:
        header += (f"{findings.metric} − {findings.reference}", "p", "p, Holm")
        note += (
            f" Differences are to “{findings.reference}” without privacy, paired by person and seed; Holm's correction "
            f"is over {count(len(tests), 'test')}: every other row, {findings.metric}."
        )
    elif not compared(findings):
        note += f" The reference “{findings.reference}” was not measured: there are no differences to it."
    rows = tuple((*_figures(findings, point, names), number(findings.validation(point)), *_test(tests, point))
                 for point in findings.points)  # fmt: skip
    return Table(f"Test items: {findings.metric}", header, rows, note)


def others(findings: Findings) -> Table:
    """Every other accuracy metric, one row a point."""
    names = tuple(name for name in accuracy(findings) if name not in _twins(findings))
    rows = tuple(_figures(findings, point, names) for point in findings.points)
    note = f"{meaning(findings)} ± is half an interval."
    return Table("Test items: every other figure", ("arm and budget", *names), rows if names else (), note)


def _twins(findings: Findings) -> tuple[str, ...]:
    """The study's metric, and the same among drawn items where it was measured."""
    twins = (name for name in findings.metrics if name.startswith(f"{findings.metric}/"))
    return (findings.metric, *twins)


def whole_catalogue(findings: Findings) -> Table:
    """Where hidden items were ranked among themselves: the same targets in the whole catalogue."""
    names = [name for name in accuracy(findings) if any(name in cell.measured.whole for cell in findings.cells)]
    rows = tuple((str(point), *(number(_whole(findings, point, name)) for name in names)) for point in findings.points)
    note = "The same targets among all items instead of hidden ones only; means over people and seeds, no intervals."
    return Table("Hidden items in the whole catalogue", ("arm and budget", *names), rows if names else (), note)


def lists(findings: Findings) -> Table:
    """Figures of lists: one row a point."""
    names = beyond(findings)
    rows = tuple(_figures(findings, point, names) for point in findings.points)
    note = (
        f"{meaning(findings)} ± is half an interval. Coverage and Gini have one value a seed: their intervals are "
        "about seeds alone, and may reach beyond 0 or 1."
    )
    return Table("Lists, beyond accuracy", ("arm and budget", *names), rows if names else (), note)


def groups(findings: Findings) -> Table:
    """Difference to the reference by group of people, for the arm that is named at each ε."""
    points, known = _leaders(findings), dict(_groups(findings))
    shown = {name: who for name, who in known.items() if people(findings, who) >= SMALLEST}
    rows = tuple(
        (name, str(people(findings, who)), *(moved(_lost(findings, point, who)) for point in points))
        for name, who in shown.items()
    )
    less = f"less that of “{findings.reference}” without privacy, for the people of a group."
    note = f"{findings.metric} of each arm {less} {EQUALS} {meaning(findings)}"
    hidden = [name for name in known if name not in shown]
    note += f" Fewer than {SMALLEST} people, and therefore left out: {', '.join(hidden)}." if hidden else ""
    return Table("Difference by group", ("group", "people", *map(str, points)), rows if points else (), note)


def worst(findings: Findings) -> tuple[Line, ...]:
    """The group that loses most at each ε, by its mean; it is the worst of all that were looked at."""
    return tuple(line for point in _leaders(findings) for line in _worst(findings, point))


def people(findings: Findings, who: Who) -> int:
    """How many people of the reference are in a group, over all seeds."""
    frames = (cell.measured.users for cell in findings.of(findings.base))
    return int(pd.concat([frame.loc[who(frame), "client"] for frame in frames]).nunique())


def cost(findings: Findings) -> Table:
    """What taking part costs a device, and a cell this machine."""
    header = ("arm and budget", "down", "up", "participations", "moved in all", "device seconds", "wall seconds")
    costs = {point: [cell.measured.cost for cell in findings.of(point) if cell.measured.cost]
             for point in findings.points}  # fmt: skip
    rows = tuple((str(point), *_spent(known)) for point, known in costs.items() if known)
    return Table("Cost of taking part", header, rows, _COST)


def dropouts(findings: Findings) -> Table:
    """Rounds planned and done, and what was accepted and refused where that may be told."""
    header = ("arm and budget", "rounds planned", "rounds done", "silent by chance", "accepted a round", "refused")
    trained = {point: [cell for cell in findings.of(point) if cell.measured.federated] for point in findings.points}
    rows = tuple((str(point), *_came(cells)) for point, cells in trained.items() if cells)
    return Table("Rounds, dropouts and refusals", header, rows, _SILENT)


def choices(findings: Findings) -> Table:
    """The settings that were compared on validation items."""
    rows = tuple((str(point), *row) for point in findings.points for row in _chosen(findings.of(point)))
    note = (
        "A model that is trained in rounds chose once for all seeds, with a tuning seed that is none of them. A "
        "baseline chose anew for each seed, by that seed's validation items: its figures are means over seeds."
    )
    return Table("Settings compared", ("arm and budget", "setting", "validation figure", "chosen in"), rows, note)


def audits(findings: Findings) -> Table:
    """The audit of the release paths."""
    names = tuple(dict.fromkeys(name for row in findings.audits for name in row))
    rows = tuple(tuple(str(row.get(name, DASH)) for name in names) for row in findings.audits)
    return Table("Attacks on the release paths", names, rows, _ATTACKS)


def failures(findings: Findings) -> Table:
    """What could not be measured."""
    rows = tuple((lost.arm, at(lost.epsilon), str(lost.seed), lost.reason) for lost in findings.failures)
    note = "Nothing of these cells is in any figure of this report."
    return Table("Failed cells", ("arm", "budget", "seed", "reason"), rows, note)


def listed(title: str, header: tuple[str, str], facts: Mapping[str, object]) -> Table:
    """Names and values; what is empty is left out."""
    told = {name: _told(value) for name, value in facts.items()}
    return Table(title, header, tuple((str(name), text) for name, text in told.items() if text))


def _told(value: object) -> str:
    match value:
        case float():
            return few(value)
        case list() | tuple():
            return "; ".join(map(str, value))
    return str(value)


def _figures(findings: Findings, point: Point, names: tuple[str, ...]) -> tuple[str, ...]:
    return (str(point), *(around(findings.estimate(point, name)) for name in names))


def _test(tests: Mapping[Point, Tested], point: Point) -> tuple[str, ...]:
    if not tests:
        return ()
    if point not in tests:
        return (DASH,) * 3
    test = tests[point]
    return moved(test.contrast), p_value(test.contrast.p), p_value(test.adjusted)


def _whole(findings: Findings, point: Point, name: str) -> float:
    return mean([cell.measured.whole.get(name, math.nan) for cell in findings.of(point)])


def _leaders(findings: Findings) -> tuple[Point, ...]:
    return findings.leaders if compared(findings) else ()


def _groups(findings: Findings) -> Iterator[tuple[str, Who]]:
    """Groups that the reference's people were sorted into; older runs know no tastes."""
    frames = [cell.measured.users for cell in findings.of(findings.base)]
    for name, who in GROUPS.items():
        try:
            somebody = any(who(frame).any() for frame in frames)
        except KeyError:
            continue
        if somebody:
            yield name, who


def _lost(findings: Findings, point: Point, who: Who) -> Contrast:
    return findings.contrast(point, findings.base, findings.metric, who)


def _worst(findings: Findings, point: Point) -> Iterator[Line]:
    lost = {name: _lost(findings, point, who) for name, who in _groups(findings) if people(findings, who) >= SMALLEST}
    known = {name: each for name, each in lost.items() if not math.isnan(each.difference.mean)}
    if known:
        name = min(known, key=lambda name: known[name].difference.mean)
        text = f"“{point}”: the worst of {count(len(known), 'group')} looked at is “{name}”, {findings.metric}"
        yield Line(Tone.WARN if known[name].difference.high < 0 else Tone.PLAIN, f"{text} {moved(known[name])}.")


def _spent(costs: list[Cost]) -> tuple[str, ...]:
    def over(tell: Callable[[Cost], float | None]) -> float:
        return mean([value for value in map(tell, costs) if value is not None])

    down, up = over(lambda one: one.bytes_down), over(lambda one: one.bytes_up)
    times = over(lambda one: one.participations)
    return (amount(down), amount(up), few(times), amount((down + up) * times),
            few(over(lambda one: one.device_seconds)), few(over(lambda one: one.seconds)))  # fmt: skip


def _came(cells: list[Cell]) -> tuple[str, ...]:
    planned = extent(cell.measured.plan.rounds for cell in cells)
    done = extent(cell.measured.rounds[-1]["round"] for cell in cells)
    silent = extent(100 * cell.measured.plan.simulation.dropout for cell in cells) + " %"
    told = [row for cell in cells for row in cell.measured.rounds if "clients" in row]
    if not told:
        return planned, done, silent, "not told", "not told"
    refused: Counter[str] = Counter()
    for row in told:
        refused.update(row.get("refused", {}))
    reasons = ", ".join(f"{reason}: {times}" for reason, times in sorted(refused.items()))
    return planned, done, silent, few(mean([row["clients"] for row in told])), reasons or "none"


def _chosen(cells: tuple[Cell, ...]) -> Iterator[tuple[str, str, str]]:
    tried: dict[str, list[tuple[float, bool]]] = {}
    for cell in cells:
        for choice in cell.measured.choices:
            tried.setdefault(choice.setting, []).append((choice.value, choice.chosen))
    for setting, each in tried.items():
        chosen = sum(chosen for _, chosen in each)
        yield setting, number(mean([value for value, _ in each])), f"{chosen} of {count(len(each), 'seed')}"
