"""The verdict: what privacy costs here, in sentences that a board can read. Test figures choose nothing in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from fedrec.privacy.statement import NON_PRIVATE
from fedrec.runs import Row
from fedrec.study.findings import Findings, Point
from fedrec.study.reports.cards import promised, uneven
from fedrec.study.reports.document import Line, Tone
from fedrec.study.reports.numbers import between, count, either, few, moved, percent, quoted
from fedrec.study.reports.protocol import metrics, optimism, protocols, seeds

ENOUGH = 0.95  # of the reference's metric
POPULARITY = "popularity"
FEWEST = 30  # people; below, an interval says little
_LOOSE = 8.0  # an ε above it bounds little

_RAW = (
    "The figures of this report are computed from raw data, without noise: no ε covers them. Show them to nobody who "
    "may not see the data."
)
_WORDS = (
    " ε: a release changes the odds of any guess about what is protected by a factor of e^ε at most, but for a chance "
    "of about δ; smaller is safer."
)
_ADDS_UP = (
    "Each ε is about one run and all that it releases. Releasing several runs on the same people adds up: to the sum "
    "of their ε, and of their δ, at most. Choosing by comparing runs adds to it as well, and no ε here includes that."
)
_UNTOLD = (
    "validation items cannot tell which arm leads, and test items must not. No arm is named here; the table of results "
    "has them all."
)


def verdict(findings: Findings) -> tuple[Line, ...]:
    """What holds at each ε, where privacy costs too much, and with how much caution to read it."""
    lines = [*_prices(findings), *_drowned(findings)]
    return (*lines, *_promises(findings), *_cautions(findings), *_notes(findings))


def _prices(findings: Findings) -> Iterator[Line]:
    """What privacy costs; nothing is called good where there was nothing for it to cost."""
    hopeless = _hopeless(findings)
    if hopeless is None:
        yield from (*_enough(findings), *_budgets(findings), *_dear(findings))
        return
    yield hopeless
    yield from (replace(line, tone=Tone.PLAIN) if line.tone is Tone.GOOD else line for line in _budgets(findings))


def compared(findings: Findings) -> bool:
    """Whether there is a reference to compare with."""
    return findings.base in findings.points


def kept(findings: Findings, point: Point) -> float:
    """A point's test figure as a share of the reference's; NaN without one."""
    if not compared(findings):
        return math.nan
    whole = findings.estimate(findings.base, findings.metric).mean
    return findings.estimate(point, findings.metric).mean / whole if whole > 0 else math.nan


def _budgets(findings: Findings) -> Iterator[Line]:
    if not findings.budgets:
        yield Line(Tone.PLAIN, "No arm of this study has a privacy budget: nothing is said here about its price.")
    elif not compared(findings):
        alone = f"The reference “{findings.reference}” without privacy was not measured: no arm is compared with it."
        yield Line(Tone.WARN, alone)
    for epsilon in findings.budgets:
        point = findings.leading(epsilon)
        yield _untold(epsilon) if point is None else _budget(findings, epsilon, point)


def _untold(epsilon: float) -> Line:
    return Line(Tone.WARN, f"At ε = {epsilon:g} {_UNTOLD}")


def _budget(findings: Findings, epsilon: float, point: Point) -> Line:
    alone = sum(each.epsilon == epsilon for each in findings.points) == 1
    how = "is the only arm" if alone else "leads on validation items"
    figure = between(findings.estimate(point, findings.metric))
    reached = _beside(findings, point, figure) if compared(findings) else f"has a test {findings.metric} of {figure}."
    dear = "privacy costs too much here: " if _surely_less(findings, point) else ""
    text = f"At ε = {epsilon:g} {dear}“{point.arm}” {how} and {reached} Promise: {_promise(findings, point)}."
    good = _surely_enough(findings, point)
    return Line(Tone.GOOD if good else Tone.WARN if dear else Tone.PLAIN, text)


def _surely_enough(findings: Findings, point: Point) -> bool:
    """Whether a point keeps enough of the reference by its interval too."""
    return compared(findings) and findings.surplus(point, ENOUGH).low >= 0


def _surely_less(findings: Findings, point: Point) -> bool:
    """Whether a point keeps too little of the reference, by its mean, and certainly less than the reference has."""
    if not kept(findings, point) < ENOUGH:
        return False
    return findings.contrast(point, findings.base, findings.metric).difference.high < 0


def _beside(findings: Findings, point: Point, figure: str) -> str:
    contrast = findings.contrast(point, findings.base, findings.metric)
    low, high = contrast.difference.low, contrast.difference.high
    if math.isnan(low):
        doubt = "which has no interval"
    elif low <= 0 <= high:
        doubt = "an interval that contains 0: this study cannot tell the two apart"
    else:
        doubt = "an interval that does not contain 0"
    whole = between(findings.estimate(findings.base, findings.metric))
    return (
        f"keeps {percent(kept(findings, point))} of the test {findings.metric} without privacy: {figure}, where "
        f"“{findings.reference}” has {whole}. Difference {moved(contrast)}, {doubt}.{_own_price(findings, point)}"
    )


def _own_price(findings: Findings, point: Point) -> str:
    """What the same arm has without a budget: the rest of a difference is the arm's and not privacy's."""
    free = Point(point.arm)
    if free not in findings.points:
        return ""
    return f" The same arm without privacy has {between(findings.estimate(free, findings.metric))}."


def _promise(findings: Findings, point: Point) -> str:
    return promised(told for cell in findings.of(point) for told in cell.measured.statements if told["unit"])


def _enough(findings: Findings) -> Iterator[Line]:
    """The smallest ε at which the arm that was named keeps enough, how sure that is, and larger ones where it fails."""
    shares = [(point, kept(findings, point)) for point in findings.leaders]
    known = [each for each in shares if not math.isnan(each[1])]
    if not known:
        return
    whole = f"{percent(ENOUGH)} of the test {findings.metric} without privacy"
    first = next((each for each in known if each[1] >= ENOUGH), None)
    if first is None:
        yield Line(Tone.WARN, f"At no ε that was tried does the arm named below keep {whole}, by its mean.")
        return
    later = [f"{point.epsilon:g}" for point, share in known[known.index(first) :] if share < ENOUGH]
    but = f" At ε = {either(later)} the arm named below keeps less." if later else ""
    safe = next((point for point, _ in known if _surely_enough(findings, point)), None)
    sure = f"A 95 % interval shows it at ε = {safe.epsilon:g}" if safe else "At no ε does a 95 % interval show it"
    tone = Tone.GOOD if safe == first[0] else Tone.PLAIN
    text = f"The smallest ε that keeps {whole}, by its mean, is {first[0].epsilon:g} (“{first[0].arm}”).{but} {sure}."
    yield Line(tone, text)


def _hopeless(findings: Findings) -> Line | None:
    """A reference that is not surely better than popularity: then no share of it means anything."""
    popular = Point(POPULARITY)
    if not compared(findings) or popular not in findings.points:
        return None
    contrast = findings.contrast(findings.base, popular, findings.metric)
    if contrast.difference.low > 0:
        return None
    return Line(
        Tone.BAD,
        f"On test items the reference “{findings.reference}”, without any privacy, cannot be told from popularity or "
        f"is worse (difference in {findings.metric} {moved(contrast)}): this study cannot say what privacy costs.",
    )


def _dear(findings: Findings) -> Iterator[Line]:
    """Where the arm named is not surely better than showing everybody the same list."""
    popular = Point(POPULARITY)
    if popular not in findings.points:
        return
    for point in findings.leaders:
        contrast = findings.contrast(point, popular, findings.metric)
        if contrast.difference.low > 0:
            continue
        how = "is worse than" if contrast.difference.high < 0 else "cannot be told from"
        yield Line(
            Tone.BAD,
            f"At ε = {point.epsilon:g} no gain over popularity is shown: on test items “{point.arm}” {how} popularity, "
            f"which shows everybody the same items (difference in {findings.metric} {moved(contrast)}).",
        )


def _drowned(findings: Findings) -> Iterator[Line]:
    """Where the noise on a round's mean is expected to be longer than any update may be; arms that lead in red."""
    for point in (at for at in findings.points if at.epsilon is not None):
        loud = {purpose: ratio for purpose, ratio in _noise(findings, point).items() if ratio > 1}
        if loud:
            longer = ", ".join(f"{purpose} {few(ratio)} clip norms" for purpose, ratio in loud.items())
            yield Line(
                Tone.BAD if point in findings.leaders else Tone.WARN,
                f"At ε = {point.epsilon:g} noise outweighs the updates of “{point.arm}”: on a round's mean it is "
                f"longer than the clip norm, which no update exceeds ({longer}).",
            )


def _noise(findings: Findings, point: Point) -> dict[str, float]:
    """The largest noise over clip norm of each phase, over the seeds."""
    most: dict[str, float] = {}
    for cell in findings.of(point):
        for purpose, ratio in cell.measured.manifest.get("foreseen", {}).get("noise over clip", {}).items():
            most[purpose] = max(ratio, most.get(purpose, 0.0))
    return most


def _promises(findings: Findings) -> Iterator[Line]:
    """Whom a private arm does not protect from, and which promises are not alike."""
    for arm in findings.private:
        points = [point for point in findings.points if point.arm == arm and point.epsilon is not None]
        told = [each for point in points for each in _told(findings, point)]
        promises = [each for each in told if each["unit"]]
        open_to = either((each["adversary"] for each in told if each["label"] == NON_PRIVATE), "and")
        if not promises:
            yield Line(Tone.BAD, f"“{arm}” promises nothing to anybody (non-private), whatever ε was asked for.")
        elif open_to:
            yield Line(Tone.WARN, f"“{arm}” is non-private against {open_to}.")
    yield from _unlike(findings)
    for point in uneven(findings):
        yield Line(Tone.WARN, f"The seeds of “{point}” do not promise the same: its cards list each promise.")
    loose = [str(point) for point in findings.points if _largest(findings, point) > _LOOSE]
    if loose:
        yield Line(Tone.WARN, f"An ε above {_LOOSE:g} bounds little; such a promise is part of: {'; '.join(loose)}.")


def _told(findings: Findings, point: Point) -> list[Row]:
    return [told for cell in findings.of(point) for told in cell.measured.statements]


def _largest(findings: Findings, point: Point) -> float:
    if point.epsilon is None:
        return 0.0
    return max([point.epsilon, *(float(told["epsilon"]) for told in _told(findings, point) if told["unit"])])


def _unlike(findings: Findings) -> Iterator[Line]:
    """Equal ε of unlike promises are not equal privacy."""
    kinds: dict[frozenset[tuple[str, str, str]], list[str]] = {}
    for point in findings.points:
        promises = [each for each in _told(findings, point) if each["unit"]]
        if point.epsilon is not None:
            kind = frozenset((each["unit"], each["relation"], each["adversary"]) for each in promises)
            kinds.setdefault(kind, []).append(point.arm)
    if len(kinds) > 1:
        yield Line(
            Tone.WARN,
            f"At equal ε these arms do not promise the same, their units, neighbours or adversaries differ: "
            f"{'; '.join(map(quoted, kinds.values()))}. The arm that leads is the most accurate, not the best "
            f"protected.",
        )


def _cautions(findings: Findings) -> Iterator[Line]:
    known = seeds(findings)
    if len(known) == 1:
        yield Line(Tone.WARN, "There is one seed: the intervals do not know how another seed would have come out.")
    if few_seeds := optimism(findings):
        yield Line(Tone.WARN, few_seeds)
    short = [str(point) for point in findings.points if len(findings.of(point)) < len(known)]
    if short:
        yield Line(Tone.WARN, f"Not every seed was measured for: {'; '.join(short)}.")
    people = min(findings.estimate(point, findings.metric).users for point in findings.points)
    if people < FEWEST:
        yield Line(Tone.WARN, f"People evaluated: {people}; below {FEWEST} an interval says little.")
    if findings.failures:
        yield Line(Tone.WARN, f"{count(len(findings.failures), 'cell')} could not be measured: see Failed cells.")
    if len(protocols(findings)) > 1:
        unlike = "The arms were not measured by one protocol: their figures cannot be compared. See Protocol."
        yield Line(Tone.WARN, unlike)
    if any(len(hashes) > 1 for hashes in _data(findings).values()):
        yield Line(Tone.WARN, "Cells of one seed are of unlike data: differences between arms mean nothing.")


def _data(findings: Findings) -> dict[int, set[str]]:
    """The data hashes of each seed."""
    found: dict[int, set[str]] = {}
    for cell in findings.cells:
        found.setdefault(cell.seed, set()).add(str(cell.measured.manifest.get("data", "")))
    return found


def _notes(findings: Findings) -> Iterator[Line]:
    if words := metrics(findings).get(findings.metric):
        yield Line(Tone.PLAIN, f"{findings.metric}: {words}.{_WORDS if findings.budgets else ''}")
    yield Line(Tone.PLAIN, _RAW)
    if findings.budgets:
        yield Line(Tone.PLAIN, _ADDS_UP)
