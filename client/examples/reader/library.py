"""What the app shows of the catalogue: titles, blurbs, and a search by words."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import log

from fedrec.embed.page import Reason
from fedrec.model.catalogue import Catalogue

NEWEST = 40  # how many at the end of a catalogue count as new; a catalogue lists its newest items last


@dataclass(frozen=True)
class Book:
    """An item as it is shown. `hue` and `motif` draw its cover: books of one topic share a hue."""

    item: str
    title: str
    by: str
    blurb: str
    tags: tuple[str, ...]
    hue: int
    motif: int


@dataclass(frozen=True)
class Library:
    """The catalogue of a pack, for people."""

    catalogue: Catalogue

    def book(self, item: str) -> Book | None:
        """The item as it is shown, None if the catalogue has it no more."""
        row = self.catalogue.rows.get(item)
        if row is None:
            return None
        title, by, blurb = _parts(self.catalogue.texts[row])
        tags = tuple(self.catalogue.tags[row])
        return Book(item, title or item, by, blurb, tags, _draw(tags[0] if tags else item, 8), _draw(item, 4))

    def title(self, label: str) -> str:
        """The title alone where a label is the beginning of a book's text; anything else as it is."""
        short = _parts(label)[0]
        return short if short in self._titles else label

    def sentence(self, reason: Reason) -> str:
        """The reason in words, with titles alone for books."""
        said = reason.sentence
        for cause in reason.causes:
            said = said.replace(cause.label, self.title(cause.label)) if cause.label in reason.sentence else said
        return said

    def has(self, title: str) -> bool:
        """Whether it is the title of a book."""
        return title in self._titles

    def near(self, label: str) -> frozenset[str]:
        """Books that share a topic with the one of this title, or that a search for anything else finds."""
        if label not in self._titles:
            return frozenset(self.search(label, len(self.catalogue) // 4))
        topics = set(self.catalogue.tags[self._titles[label]])
        return frozenset(item for item, row in self.catalogue.rows.items() if topics & set(self.catalogue.tags[row]))

    @cached_property
    def _titles(self) -> dict[str, int]:
        return {_parts(text)[0]: row for row, text in enumerate(self.catalogue.texts)}

    @cached_property
    def topic(self) -> str:
        """The topic of most books, "" if none has any."""
        counts = Counter(tag for tags in self.catalogue.tags for tag in tags)
        return max(sorted(counts), key=lambda tag: counts[tag], default="")

    @cached_property
    def newest(self) -> frozenset[str]:
        """The items at the end of the catalogue, a quarter of it at most."""
        return frozenset(self.catalogue.ids[-min(NEWEST, len(self.catalogue) // 4) :])

    def search(self, query: str, k: int) -> list[str]:
        """Items that have words of the query, those with rare ones first."""
        scores: dict[int, float] = {}
        for word in sorted(set(_words(query))):
            found = self._index.get(word, [])
            for row in found:
                scores[row] = scores.get(row, 0.0) + log(len(self.catalogue) / len(found))
        best = sorted(scores, key=lambda row: (-scores[row], row))
        return [self.catalogue.ids[row] for row in best[:k]]

    @cached_property
    def _index(self) -> dict[str, list[int]]:
        """Word → rows of the items that have it."""
        index: dict[str, list[int]] = {}
        for row, (text, tags) in enumerate(zip(self.catalogue.texts, self.catalogue.tags, strict=True)):
            for word in set(_words(" ".join([text, *tags]))):
                index.setdefault(word, []).append(row)
        return index


def _parts(text: str) -> tuple[str, str, str]:
    """Title, author and blurb of a text like "TITLE, by AUTHOR. BLURB [topics: TAGS]"."""
    head, _, blurb = re.sub(r"\s*\[topics: [^]]*\]", "", text).partition(". ")
    title, _, by = head.partition(", by ")
    return title.strip(), by.rstrip("."), blurb


def _words(text: str) -> Iterable[str]:
    """Words without case, and without the s of a plural."""
    return (word.removesuffix("s") or word for word in re.findall(r"\w+", text.casefold()))


def _draw(name: str, ways: int) -> int:
    return zlib.crc32(name.encode()) % ways
