"""The shelves of the front page: one list each, no book on two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from client.examples.reader.library import Library
from fedrec import Recommender
from fedrec.embed.page import Page, Pick, Reason

FRONT, SIDE = 9, 6  # books on the first shelf, and on each other
LEAST, CAUSES = 3, 2  # books that make a shelf of one cause, and how many causes are looked at


@dataclass(frozen=True)
class Shelf:
    """Books under one heading. `page` is the page of the log that they were shown on."""

    name: str
    title: str
    note: str
    page: int
    picks: tuple[Pick, ...]


def shelves(rec: Recommender, library: Library) -> list[Shelf]:
    """The shelves that have something on them."""
    front = rec.recommend(FRONT, diversity=0.3)
    found = [_first(front)]
    if found[0].name == "you":
        found += _because(rec, library, front[0].why, found)
    fresh = _fresh(found)
    new = rec.recommend(SIDE, filter=lambda item: item in library.newest and fresh(item))
    found.append(Shelf("new", "New arrivals", "The latest in the catalogue, the likeliest first.", new.id, new.picks))
    chance = rec.recommend(SIDE, filter=_fresh(found), explore=1.0)
    note = "Picked by chance as well, so that your taste is no cage."
    found.append(Shelf("chance", "Something else", note, chance.id, chance.picks))
    return [shelf for shelf in found if shelf.picks]


def _first(page: Page) -> Shelf:
    if any(pick.source == "taste" for pick in page):
        return Shelf("you", "For you", "From what you did and said in this app.", page.id, page.picks)
    return Shelf(
        "start", "To begin with", "What many people like, until you tell or read something.", page.id, page.picks
    )


def _because(rec: Recommender, library: Library, why: Reason, found: list[Shelf]) -> list[Shelf]:
    """More of what spoke most for the first book of all: its reading or its search, one shelf each."""
    causes = [library.title(cause.label) for cause in why.causes if cause.source == "event" and cause.value > 0]
    made: list[Shelf] = []
    for label in list(dict.fromkeys(causes))[:CAUSES]:
        near = set(filter(_fresh(found + made), library.near(label)))
        page = rec.recommend(SIDE, filter=near.__contains__) if len(near) >= LEAST else None
        if page and len(page) >= LEAST:
            made.append(_near(f"because{len(made)}", label, page, known=library.has(label)))
    return made


def _near(name: str, label: str, page: Page, *, known: bool) -> Shelf:
    """A shelf of one cause: a book that is `known`, or else words of the person, which come with quotation marks."""
    title, note = (f"“{label}”", "Books on the same topics.") if known else (label, "Books with words of your search.")
    return Shelf(name, f"Because of {title}", note, page.id, page.picks)


def _fresh(found: list[Shelf]) -> Callable[[str], bool]:
    """What is on no shelf yet."""
    shown = {pick.item for shelf in found for pick in shelf.picks}
    return lambda item: item not in shown
