"""Guarantee cards: what each arm promises whom, budget by budget, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedrec.privacy.statement import NON_PRIVATE
from fedrec.privacy.terms import Adversary, Mode, Unit
from fedrec.runs import Row
from fedrec.study.findings import Findings, Point
from fedrec.study.reports.document import Card
from fedrec.study.reports.numbers import either, quoted

_FEW = 3  # ledger heads that are listed
_SHOWN = 12  # characters of a ledger's head: enough to compare it with the file
_BASELINES = (
    "Nothing is promised about these arms. They are measured for comparison, without noise and without a ledger; those "
    "that learn from people do so from raw histories."
)


@dataclass(frozen=True)
class Said:
    """One statement of one cell; `epsilon` is what was asked for, `parameters` how many numbers the model shares."""

    arm: str
    epsilon: float | None
    seed: int
    statement: Row
    parameters: int | None


def cards(findings: Findings) -> tuple[Card, ...]:
    """A card for each promise of each arm, all its budgets on it; then those without any.

    Seeds whose statements differ in words have cards of their own; numbers that differ are all listed.
    """
    groups: dict[tuple[object, ...], list[Said]] = {}
    for said in every_statement(findings):
        groups.setdefault(_kind(said), []).append(said)
    private = [_card(group, findings) for group in groups.values() if group[0].epsilon is not None]
    open_ = [_card(group, findings) for group in groups.values() if group[0].epsilon is None]
    return (*private, *open_, *_without(findings))


def every_statement(findings: Findings) -> Iterator[Said]:
    """Each statement of each cell, point by point."""
    for point in findings.points:
        for cell in findings.of(point):
            parameters = cell.measured.manifest.get("parameters", {}).get("total")
            for statement in cell.measured.statements:
                yield Said(cell.arm, cell.epsilon, cell.seed, statement, parameters)


def uneven(findings: Findings) -> tuple[Point, ...]:
    """The points whose seeds do not promise the same; ledger heads always differ."""
    return tuple(point for point in findings.points if len(_variants(findings, point)) > 1)


def promised(statements: Iterable[Row]) -> str:
    """(ε, δ) with unit, relation and adversary; the range where ε differs. "nothing" where nothing is promised."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for statement in statements:
        kinds.setdefault((_terms(statement), statement["adversary"]), []).append(statement)
    texts = (f"{_both(said)}{terms}, against {who}" for (terms, who), said in kinds.items())
    return either(texts, "and") or "nothing"


def _variants(findings: Findings, point: Point) -> list[list[Row]]:
    found: list[list[Row]] = []
    for cell in findings.of(point):
        said = [{**statement, "ledger_head": ""} for statement in cell.measured.statements]
        if said not in found:
            found.append(said)
    return found


def _kind(said: Said) -> tuple[object, ...]:
    """What statements on one card share: everything in words."""
    told = said.statement
    words = (_sentence(told), tuple(told["assumptions"]), tuple(told["not_protected"]))
    return (said.arm if said.epsilon is not None else None, told["label"], _terms(told), told["adversary"], *words)


def _card(group: Sequence[Said], findings: Findings) -> Card:
    told = group[0].statement
    arms = quoted(said.arm for said in group)
    what = f"{told['unit']}s" if told["unit"] else "nothing"
    facts = ((name, _over(group, tell)) for name, tell in _facts(told))
    return Card(
        title=f"{arms}: {what} against {told['adversary']}", label=told["label"], sentence=_sentence(told),
        facts=(("models", _models(group, findings)), *((name, text) for name, text in facts if text)),
        assumptions=tuple(told["assumptions"]), not_protected=tuple(told["not_protected"]),
    )  # fmt: skip


def _without(findings: Findings) -> Iterator[Card]:
    """The arms of which nothing at all is stated."""
    silent = [point for point in findings.points if any(not cell.measured.statements for cell in findings.of(point))]
    if silent:
        yield Card(
            quoted(map(str, silent)),
            NON_PRIVATE,
            _BASELINES,
            (),
            (),
            ("Anything, from anyone who sees the histories or a list.",),
        )


def _models(group: Sequence[Said], findings: Findings) -> str:
    """Which budgets the card is about, and which seeds if not all."""
    points = dict.fromkeys(Point(said.arm, said.epsilon) for said in group)
    budgets = ", ".join(dict.fromkeys("none" if point.epsilon is None else f"{point.epsilon:g}" for point in points))
    partial = [text for point in points if (text := _partly(group, findings, point))]
    return f"ε asked for: {budgets}; {'; '.join(partial) or 'every seed'}"


def _partly(group: Sequence[Said], findings: Findings, point: Point) -> str:
    """The seeds of a point that are on a card, "" for all of them."""
    mine = {said.seed for said in group if (said.arm, said.epsilon) == (point.arm, point.epsilon)}
    partly = mine != {cell.seed for cell in findings.of(point)}
    return f"of “{point}” only seed {', '.join(map(str, sorted(mine)))}" if partly else ""


def _over(group: Sequence[Said], tell: Callable[[Sequence[Said]], str]) -> str:
    """A fact of all budgets: once where they agree, else budget by budget."""
    budgets = dict.fromkeys(said.epsilon for said in group)
    texts = {epsilon: tell([said for said in group if said.epsilon == epsilon]) for epsilon in budgets}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"at ε = {epsilon:g}: {text}" for epsilon, text in texts.items())


def _facts(told: Row) -> Iterator[tuple[str, Callable[[Sequence[Said]], str]]]:
    if not told["plan"]:
        return
    yield "trusted", _each(_trusted)
    if told["unit"]:
        yield "unit", _each(lambda told: str(told["unit"]))
        yield "neighbours differ by", _each(lambda told: str(told["relation"]))
        yield "promise", lambda group: _both([said.statement for said in group])
        yield "clip norm C", _each(lambda told: _parts(told, "clip"))
        yield "noise multiplier z", _each(lambda told: _parts(told, "multiplier"))
        yield "amplification", _each(_amplified)
        yield "accountant", _each(lambda told: _opinion(told["accountants"][:1]))
        yield "second opinion", _each(lambda told: _opinion(told["accountants"][1:]))
    yield "mechanism", _each(lambda told: told["mechanism"].partition("; ")[0].partition(": C=")[0])
    yield "shared parameters", lambda group: either(f"{said.parameters:,}" for said in group if said.parameters)
    yield "population", _each(lambda told: f"{told['plan']['population']:,}")
    yield "who takes part", _each(lambda told: str(told["sampling"]))
    yield "rounds", _each(lambda told: ", ".join(f"{one['purpose']} {one['rounds']}" for one in told["plan"]["phases"]))
    yield "most rounds of one client", _each(lambda told: str(told.get("k_max") or ""))
    yield "noise", _each(lambda told: f"{told['noise']['kind']}; {told['noise']['rng']}")
    yield "ledger heads", _heads


def _each(tell: Callable[[Row], str]) -> Callable[[Sequence[Said]], str]:
    return lambda group: either(tell(said.statement) for said in group)


def _trusted(told: Row) -> str:
    least = told["plan"]["least"]
    match (told["mode"], told["unit"]):
        case (_, None):
            return f"nobody could be: nothing is hidden from {told['adversary']}"
        case (_, Unit.INTERACTION):
            return "nobody: the device adds the noise inside its own training (local model)"
        case (Mode.USER_CENTRAL, _):
            return "the server: it sees every update, adds the noise to their sum, and forgets them (central model)"
        case (Mode.USER_LOCAL, _):
            return "nobody: the device adds all the noise (local model)"
    masks = "masks hide single updates from the server" if told["plan"]["masking"] else "no masks hide single updates"
    return f"{least} honest clients in each round, each of whom adds a share of the noise (distributed model); {masks}"


def _amplified(told: Row) -> str:
    """Whether the account counts on chance hiding who comes, and whether chance decides."""
    if told["unit"] == Unit.INTERACTION:
        return "; ".join(f"{name}: {_examples(part['rate'])}" for name, part in _noisy(told))
    if told["adversary"] == Adversary.SERVER:
        return "not assumed: the server knows who came"
    return "; ".join(f"{name}: {_cohort(part['schedule'], told['plan']['population'])}" for name, part in _noisy(told))


def _examples(rate: float) -> str:
    drawn = "assumed, and done: each step draws its own Poisson sample of the device's examples"
    return drawn if rate < 1 else "none: every example is in every step"


def _cohort(schedule: Row, population: int) -> str:
    match schedule:
        case {"kind": "poisson", "rate": rate} if rate < 1:
            return "assumed, and done: secret coins decide for each client by itself (Poisson)"
        case {"kind": "fixed", "size": size} if size < population:
            return "assumed, and done: secret coins draw so many clients without replacement"
        case {"kind": "min-sep", "groups": groups} if groups > 1:
            return "not assumed: public groups take turns"
    return "none: everybody is asked"


def _noisy(told: Row) -> list[tuple[str, Row]]:
    """The parts of a plan in which the statement's noise is added, by purpose."""
    if told["unit"] != Unit.INTERACTION:
        return [(part["purpose"], part) for part in told["plan"]["phases"]]
    inner = told["plan"]["interaction"]
    parts = (("warm start", inner["statistics"]), ("training", inner["terms"]))
    return [(name, part) for name, part in parts if part]


def _parts(told: Row, name: str) -> str:
    return ", ".join(f"{purpose} {part[name]:.5g}" for purpose, part in _noisy(told))


def _opinion(accountants: Sequence[Row]) -> str:
    return "; ".join(
        f"{said['name']} {said['version']} (interval {said['interval']:g}): ε = {said['epsilon']:.4g}"
        for said in accountants
    )


def _heads(group: Sequence[Said]) -> str:
    """A few can be compared by eye; many are for a program."""
    if len(group) > _FEW:
        return f"those of {len(group)} seeds are in privacy.json"
    return either((_head(said) for said in group), "and")


def _head(said: Said) -> str:
    head = said.statement["ledger_head"]
    return f"{head[:_SHOWN]}…" if head else "none"


def _terms(told: Row) -> str:
    return f", {told['relation']} {told['unit']}" if told["unit"] else ""


def _both(statements: Sequence[Row]) -> str:
    """(ε, δ), each a range where statements differ."""
    if statements[0]["epsilon"] is None:
        return "nothing"
    pairs = (("ε", ".4g", "epsilon"), ("δ", ".2g", "delta"))
    texts = [f"{symbol} = {_range([told[name] for told in statements], form)}" for symbol, form, name in pairs]
    return f"({', '.join(texts)})"


def _range(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _sentence(told: Row) -> str:
    """The statement's sentence, its two numbers left to the facts: they differ from budget to budget."""
    if told["epsilon"] is None:
        return str(told["sentence"])
    return str(told["sentence"]).replace(f"(ε={told['epsilon']:.4g}, δ={told['delta']:.2g})", "(ε, δ) as given below")
