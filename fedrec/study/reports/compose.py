"""A report from findings: which chapters there are, in which order, and what each says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedrec.study.cells import Cell
from fedrec.study.findings import Findings
from fedrec.study.reports import tables
from fedrec.study.reports.cards import cards
from fedrec.study.reports.document import Figure, Line, Report, Section, Table, Tone
from fedrec.study.reports.numbers import count, either, quoted
from fedrec.study.reports.protocol import Protocol, interval, metrics, optimism, protocols, seeds
from fedrec.study.reports.verdict import verdict

_EACH = (
    "Each model was trained once per seed; what a statement promises holds for one such run. ε without its unit, its "
    "neighbours and its adversary means nothing: they are on every card."
)
_CURVES = (
    "Validation figures by round, never test figures. Models are measured after the last round of the plan: no round "
    "was chosen."
)
_NOISE = (
    "Noise over clip norm compares the expected length of the noise on a round's mean with the longest update that "
    "clipping lets through. Above 1 a single round says more about the noise than about people; many rounds can still "
    "average it out, and a warm start may need only a few directions of it. The signal of a warm start is the length "
    "of the popularity that everybody agrees on over the noise on it. Both follow from public numbers, before any data "
    "is seen."
)
_WORST = (
    "A mean can hide a group that pays more. The worst group is the worst of all that were looked at, which makes it "
    "look worse than it is; its interval is not corrected for that."
)
_AUDIT = (
    "An audit can falsify a claim, never prove one. Passing says that these attacks, in so many runs, found no more "
    "than was claimed."
)
_TUNING = (
    "Settings were compared on validation items only. Comparing settings looks at the same people again and again: "
    "that search is not charged to any ε of this report."
)
_PAIRED = (
    "Figures are computed person by person, then averaged over people and seeds. Differences are paired by person and "
    "by seed."
)
_SAME = "Everything that is needed to make this report again, but for the noise: private noise cannot be replayed."


def compose(findings: Findings, figures: Mapping[str, Figure]) -> Report:
    """The whole report; a chapter with nothing to show is left out. `figures` by slug, any may be missing."""
    shown = (section for section in _sections(findings, figures) if _has_content(section))
    return Report(findings.name, _subtitle(findings), tuple(shown))


def _subtitle(findings: Findings) -> str:
    parts = {"arm": findings.arms, "budget": findings.budgets, "seed": seeds(findings)}
    counted = ", ".join(count(len(each), noun) for noun, each in parts.items())
    return f"{findings.metric} against privacy budget: {counted}"


def _has_content(section: Section) -> bool:
    return bool(section.lines or section.figures or section.tables or section.cards or section.code)


def _sections(findings: Findings, figures: Mapping[str, Figure]) -> Iterator[Section]:
    yield Section("verdict", "Verdict", lines=verdict(findings))
    yield Section(
        "results", "Accuracy against privacy budget", figures=_pick(figures, "headline", "accuracy"),
        tables=_full(tables.results(findings), tables.others(findings), tables.whole_catalogue(findings)),
    )  # fmt: skip
    yield Section("guarantees", "What is promised, and what is not", text=(_EACH,), cards=cards(findings))
    yield Section("learning", "Learning curves", text=(_CURVES,), figures=_pick(figures, "curves"))
    yield Section("noise", "Noise", text=(_NOISE,), figures=_pick(figures, "noise"))
    yield Section("beyond", "Beyond accuracy", figures=_pick(figures, "beyond"), tables=_full(tables.lists(findings)))
    yield Section(
        "groups", "Groups of people", text=(_WORST,), lines=tables.worst(findings), figures=_pick(figures, "groups"),
        tables=_full(tables.groups(findings)),
    )  # fmt: skip
    yield Section("cost", "Cost", figures=_pick(figures, "cost"), tables=_full(tables.cost(findings)))
    yield Section("audit", "Privacy audit", text=(_AUDIT,), tables=_full(tables.audits(findings)))
    yield Section("dropouts", "Dropouts and refusals", tables=_full(tables.dropouts(findings)))
    yield Section("tuning", "Tuning", text=(_TUNING, _trials(findings)), tables=_full(tables.choices(findings)))
    yield _protocol(findings)
    yield Section("failures", "Failed cells", tables=_full(tables.failures(findings)))
    yield _reproduce(findings)


def _pick(figures: Mapping[str, Figure], *slugs: str) -> tuple[Figure, ...]:
    return tuple(figures[slug] for slug in slugs if slug in figures)


def _full(*found: Table) -> tuple[Table, ...]:
    return tuple(table for table in found if table.rows)


def _trials(findings: Findings) -> str:
    return (
        f"The grid of an arm may hold {count(findings.trials, 'setting')} at each budget, all arms alike; baselines "
        "bring their own. An arm that is not listed compared nothing."
    )


def _protocol(findings: Findings) -> Section:
    found = protocols(findings)
    shown = [_rules(each, alone=len(found) == 1) for each in found]
    data = tables.listed("Data", ("what", "value"), findings.data)
    means = tables.listed("Metrics", ("metric", "what it is"), metrics(findings))
    checks = tuple(Line(Tone.GOOD, f"Checked: {check.removesuffix('.')}.") for check in findings.checks)
    text = tuple(each for each in (_PAIRED, interval(findings), optimism(findings)) if each)
    return Section("protocol", "Protocol", text=text, lines=checks, tables=_full(*shown, means, data))


def _rules(protocol: Protocol, *, alone: bool) -> Table:
    title = "What was asked" if alone else f"What was asked of {quoted(protocol.arms)}"
    return tables.listed(title, ("rule", "value"), {**protocol.rules, **protocol.counts})


def _reproduce(findings: Findings) -> Section:
    code = tuple(each for each in (("Command", findings.command), ("Study", findings.study)) if each[1])
    made = tables.listed("Made with", ("what", "value"), _made(findings.cells))
    return Section("reproduce", "Make it again", text=(_SAME,), tables=_full(made), code=code)


def _made(cells: tuple[Cell, ...]) -> dict[str, str]:
    """Versions, machines and hashes of all cells; several of a kind are all listed."""
    manifests = [cell.measured.manifest for cell in cells]
    created = sorted(str(one["created"]) for one in manifests if "created" in one)
    facts = {"created": either((created[0], created[-1]), "to")} if created else {}
    if spent := {cell.measured.path: cell.measured.cost.seconds for cell in cells if cell.measured.cost}:
        facts["wall time of all cells, one after the other"] = f"{sum(spent.values()) / 60:.0f} minutes"
    encoders = [{"encoder": one["encoder"]["name"]} for one in manifests if "encoder" in one]
    machines = [_named(one, "machine") for one in manifests]
    packages = [_named(one, "packages") for one in manifests]
    hashes = [{"data (SHA-256)": str(one["data"])} for one in manifests if "data" in one]
    return facts | _merged(machines) | _merged(packages) | _merged(encoders) | _merged(hashes)


def _named(manifest: Mapping[str, Any], part: str) -> dict[str, str]:
    return {str(name): str(value) for name, value in manifest.get(part, {}).items()}


def _merged(facts: list[dict[str, str]]) -> dict[str, str]:
    names = dict.fromkeys(name for each in facts for name in each)
    return {name: either(each[name] for each in facts if name in each) for name in names}
