"""What preferences do to scores: what they add to each item's, and which items they forbid. Numpy alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.embed.reader import Reader
from fedrec.embed.tell import normal, title
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_files import Pack

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

# Scores are logarithms of odds. A wish for more multiplies them by e², about 7.
STRENGTH = 2.0
ALIKE = (1.5, 3.5)  # standard deviations above a topic's mean likeness to items: not about it … wholly about it
HIDDEN = 0.75  # what is about a topic so far is hidden where the wish is never to see it
_GRAIN = 1024  # shares are multiples of 1/1024, so that sums in float32 are exact

_SAYS = {Polarity.NEVER: "no", Polarity.LESS: "less", Polarity.MORE: "more"}
_SMALL = frozenset({"a", "an", "and", "the", "of", "in", "on", "at", "to", "for", "with", "about", "by", "from", "or"})


@dataclass(frozen=True, eq=False)
class Effects:
    """What a person's preferences do to a pack's items.

    `bonus` (item,) is added to scores; `labels` names each preference in force with its own part, and the parts add up
    to `bonus` exactly. `blocked` (item,) are not to be shown.
    """

    bonus: Floats
    blocked: Bools
    labels: tuple[tuple[str, Floats], ...]

    def __repr__(self) -> str:
        return f"Effects({len(self.labels)} preferences, contents withheld)"


def effects(preferences: Iterable[Preference], pack: Pack, reader: Reader | None) -> Effects:
    """What `preferences`, oldest first, do; of several about the same thing the last one counts.

    Without a reader a topic is found by its words alone. What the pack knows nothing about has no effect.
    """
    latest = {(one.scope, one.about): one for one in preferences}
    bonus, blocked = np.zeros(len(pack.catalogue), np.float32), np.zeros(len(pack.catalogue), bool)
    labels = []
    for wish in latest.values():
        share = shares(wish, pack, reader)
        if wish.polarity is Polarity.NEVER:
            blocked |= _forbidden(wish, share, pack)
        part = np.float32(STRENGTH if wish.polarity is Polarity.MORE else -STRENGTH) * share
        labels.append((label(wish, pack.catalogue), part))
        bonus += part
    return Effects(bonus, blocked, tuple(labels))


def shares(wish: Preference, pack: Pack, reader: Reader | None) -> Floats:
    """(item,) how far each item is what a wish is about, in [0, 1]."""
    match wish.scope:
        case Scope.TAG:
            share = np.array([wish.about in tags for tags in pack.catalogue.tags], np.float32)
        case Scope.ITEM:
            share = _item(wish.about, pack)
        case Scope.TOPIC:
            share = _topic(wish.about, pack, reader)
    exact: Floats = np.round(share * _GRAIN).astype(np.float32) / np.float32(_GRAIN)
    return exact


def label(wish: Preference, catalogue: Catalogue) -> str:
    """A wish in words: "more Sci-Fi", "less like Scream", "no horror"."""
    says = _SAYS[wish.polarity]
    if wish.scope is not Scope.ITEM:
        return f"{says} {wish.about.rpartition(':')[2] if wish.scope is Scope.TAG else wish.about}"
    row = catalogue.rows.get(wish.about)
    return f"{says} like {wish.about if row is None else title(catalogue.texts[row])}"


def _forbidden(wish: Preference, share: Floats, pack: Pack) -> Bools:
    """Of an item, itself alone: what is like it is only lowered."""
    if wish.scope is Scope.ITEM:
        itself: Bools = np.arange(len(share)) == pack.catalogue.rows.get(wish.about, -1)
        return itself
    forbidden: Bools = share >= HIDDEN
    return forbidden


def _item(item: str, pack: Pack) -> Floats:
    """1 for the item itself; for others their likeness, beyond what is usual."""
    row = pack.catalogue.rows.get(item)
    if row is None:
        return np.zeros(len(pack.catalogue), np.float32)
    cosines = _cosines(pack.vectors[row], pack.vectors)
    usual = min(float(cosines.mean() + cosines.std()), 0.99)
    share: Floats = np.clip((cosines - usual) / (1 - usual), 0, 1)
    share[row] = 1.0
    return share


def _topic(about: str, pack: Pack, reader: Reader | None) -> Floats:
    share = np.zeros(len(pack.catalogue), np.float32)
    if reader is not None:
        residuals = pack.parameters.get("residuals", np.zeros((), np.float32))
        cosines = _cosines(reader.vectors([about])[0], pack.vectors - residuals)  # by text, and not by who chose them
        least, whole = cosines.mean() + np.array(ALIKE) * max(float(cosines.std()), 1e-6)
        share = np.clip((cosines - least) / (whole - least), 0, 1).astype(np.float32)
    share[list(_named(about, pack.catalogue))] = 1.0
    return share


def _cosines(vector: Floats, vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    cosines: Floats = vectors @ vector / np.maximum(lengths, 1e-12)
    return cosines


def _named(about: str, catalogue: Catalogue) -> Iterator[int]:
    """Rows of items whose text or tags have all words of a topic, whatever their number and case."""
    words = [word for word in normal(about).split() if word not in _SMALL]
    if not words:
        return
    stems = [re.sub(r"y$", "", word) for word in words]
    for row, text in enumerate(_lowered(catalogue)):
        if all(stem in text for stem in stems) and set(words) <= set(normal(text).split()):
            yield row


@lru_cache(maxsize=2)
def _lowered(catalogue: Catalogue) -> Sequence[str]:
    pairs = zip(catalogue.texts, catalogue.tags, strict=True)
    return tuple(re.sub(r"['’]", "", " ".join((text, *tags)).casefold()) for text, tags in pairs)
