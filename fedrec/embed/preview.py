"""What a device would send if it were asked now: every field, length and number, from public things alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.embed.ledger import standings, trained
from fedrec.privacy.entries import Seat, Standing
from fedrec.privacy.terms import Guarantee

if TYPE_CHECKING:
    from fedrec.privacy.plan import PrivacyPlan
    from fedrec.task import Task

STAYS = (
    "what you did, and when", "the texts of your searches and reviews", "your ratings", "what you said you like",
    "your profile and your local embedding", "which pages you were shown", "how many events there are",
    "losses and durations of training",
)  # fmt: skip
"""What no message has a place for. What is made of it, and sent, is in the parts."""

_SAYS = {
    "popularity": "which items you chose",
    "agreement": "how alike what you did last is to what you did before",
    "foresight": "how well the one or the other foretells what you chose",
    "means": "where in the catalogue you stand, on the mean",
    "spread": "how far from there you go",
    "classes": "where you stood before you chose an item",
    "opinions": "how you rated what you wrote, as sums over the texts' vectors",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A named stretch of the vector, and what it `says` of a person, in words, where it is made of that alone."""

    name: str
    shape: tuple[int, ...]
    says: str = ""


@dataclass(frozen=True, kw_only=True)
class Sending:
    """One vector, in one of the rounds `first` … `last`, at most `times` more.

    Before noise it is no longer than `clip` (L2); `noise` is the standard deviation of what this device adds to each
    number, in the same unit, 0 where noise comes from inside its training or from elsewhere: `mechanism` says which.
    As integers both are `grid` times as large. `masked`: the server sees sums alone. `cost` is what the ledger would
    say after it.
    """

    purpose: str
    first: int
    last: int
    times: int
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    parts: tuple[Part, ...]
    clip: float | None
    noise: float
    grid: int
    masked: bool
    cost: tuple[Guarantee, ...]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """To whom, what, beside which fields, under which mechanism; and what stays, whoever asks."""

    server: str
    site: str
    seat: int
    task: str
    fields: tuple[str, ...]
    sendings: tuple[Sending, ...]
    mechanism: tuple[str, ...]
    promises: tuple[Guarantee, ...]
    stays: tuple[str, ...] = STAYS

    def text(self) -> str:
        """The same for people."""
        return "\n".join(_lines(self))


def preview(folder: Path) -> Preview:
    """What the device in `folder` would send to the site that it is enrolled at. Opens no connection, spends nothing.

    Raises `RunError` where the folder is not enrolled, or where `fedrec[train]` is missing.
    """
    with trained("saying what would be sent"):
        from fedrec.deploy.folder import DeviceFolder

        home = DeviceFolder(folder)
        card = home.enrolment  # before seconds of imports
        from fedrec.deploy.host import work_of
        from fedrec.device.member import accepted
        from fedrec.exchange.wire import Header

        task = work_of(home, {}).task
        seat = standings(folder).get(str(card.seat), Standing()).seats.get(card.task)
        privacy = task.privacy
        if seat is None and (terms := accepted(task, home.policy)):
            seat = Seat(terms=terms, used=(0,) * len(terms.spans))
        return Preview(
            server=card.server, site=card.site, seat=card.seat, task=card.task,
            fields=("vector", *(str(name) for name in Header(task.hash).record())),
            sendings=tuple(_sendings(task, seat)), mechanism=_mechanism(privacy),
            promises=tuple(one.guarantee for one in privacy.promises) if privacy else (),
        )  # fmt: skip


def _sendings(task: Task, seat: Seat | None) -> Iterator[Sending]:
    """One for each phase that the device may still be asked in."""
    if task.privacy is None or seat is None:
        yield from _open(task)
        return
    for span, used in zip(seat.terms.spans, seat.used, strict=True):
        times = min(span.participations - used, seat.left)
        if times > 0 and seat.last < span.first + span.rounds - 1:
            yield _private(task, task.privacy, replace(seat, last=span.first), times)


def _open(task: Task) -> Iterator[Sending]:
    """Nothing is promised: vectors in clear, neither clipped nor noised."""
    first, rounds = 1 + (task.warm is not None), task.plan.rounds
    for purpose, start, last in (("warm start", 1, first - 1), ("training", first, rounds)):
        if start <= last:
            parts, width = _parts(task, start), task.learner.width(start)
            yield Sending(
                purpose=purpose, first=start, last=last, times=last - start + 1, shape=(width,), dtype="float32",
                bytes=4 * width, parts=parts, clip=None, noise=0.0, grid=1, masked=False, cost=(),
            )  # fmt: skip


def _private(task: Task, privacy: PrivacyPlan, seat: Seat, times: int) -> Sending:
    from fedrec.exchange.secagg.residues import Residues

    first = seat.last
    phase, crossing = privacy.place(first).phase, privacy.crossing(first)
    width = crossing.width(task.learner.width(first))
    dtype = Residues(width, privacy.masking.bits).dtype if privacy.masking else crossing.dtype
    counted = (Part(name="whether it was clipped", shape=(1,)),) if crossing.bit else ()
    return Sending(
        purpose=str(phase.purpose), first=first, last=first + phase.rounds - 1, times=times, shape=(width,),
        dtype=str(dtype), bytes=width * dtype.itemsize, parts=(*_parts(task, first), *counted),
        clip=max(phase.clips), noise=crossing.share * max(phase.clips), grid=phase.grid,
        masked=privacy.masking is not None,
        cost=seat.terms.most.guarantees(seat.spent + seat.terms.span(first).charge),
    )  # fmt: skip


def _parts(task: Task, number: int) -> tuple[Part, ...]:
    if task.warm and number == 1:
        return tuple(Part(name=name, shape=one.shape, says=_SAYS[name]) for name, one in task.warm.blocks.items())
    return tuple(Part(name=name, shape=shape) for name, shape in task.model.layout.shapes)


def _mechanism(privacy: PrivacyPlan | None) -> tuple[str, ...]:
    from fedrec.privacy.wording import OPEN, mechanism

    if privacy is None:
        return (OPEN,)
    return tuple(mechanism(privacy, unit) for unit in dict.fromkeys(one.guarantee.unit for one in privacy.promises))


def _lines(said: Preview) -> Iterator[str]:
    yield f"To {said.server}, seat {said.seat}, task {said.task[:12]}:"
    for one in said.sendings:
        within = "of any length" if one.clip is None else f"no longer than {one.clip:g}"
        veil = ", behind masks: the server sees sums alone" if one.masked else ""
        yield f"  {one.purpose}, rounds {one.first} to {one.last}, at most {one.times} times:"
        yield f"    one vector of {one.shape[0]:,} numbers ({one.dtype}, {one.bytes:,} bytes), {within}{veil}"
        yield f"    noise that this device adds to each number: standard deviation {one.noise:g}"
        yield f"    made of {', '.join(map(_named, one.parts))}"
        yield from (f"    then spent: {cost}" for cost in one.cost)
    if not said.sendings:
        yield "  nothing any more: what may be given was given"
    yield f"  beside it: {', '.join(said.fields[1:])}"
    yield from (f"Mechanism: {words}" for words in said.mechanism)
    yield from (f"Promised: {promise}" for promise in said.promises)
    yield f"Never sent as such: {'; '.join(said.stays)}"


def _named(part: Part) -> str:
    return f"{part.name} {part.shape}" + (f": {part.says}" if part.says else "")
