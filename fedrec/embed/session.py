"""What a device makes of its person under one model: in memory alone, and made anew when anything is taken back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from fedrec.device.act import Act
from fedrec.device.contents import Columns
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed.effects import effects
from fedrec.embed.explain import Hook, reason, title
from fedrec.embed.local import embedding
from fedrec.embed.models import Model
from fedrec.embed.page import Pick, Reason
from fedrec.embed.preference import Preference
from fedrec.embed.ranker import Place, Ranker, Standing, Wanted
from fedrec.embed.sentiment import valence
from fedrec.embed.taste import Taste
from fedrec.embed.texts import Texts
from fedrec.errors import DataError
from fedrec.model.pack_files import Pack

Why = Callable[[object, Place, str], Reason]
Filter = Callable[[str], bool] | Collection[str]
Bools = NDArray[np.bool_]


class Session:
    """One person under one model. Not for several threads at once.

    `personal` tells whether anything of the person is in it; `moment` is another object after every change. `hook` may
    say a reason better than we do.
    """

    def __init__(self, model: Model, texts: Texts, store: Store | None, hook: Hook | None) -> None:
        """What `store` holds; without one, somebody of whom nothing is known."""
        self.model, self.texts, self.personal, self._hook = model, texts, store is not None, hook
        self._version = store.version if store else 0
        self._ranker, pack = Ranker(model.pack), model.pack
        self._taste = Taste.of(felt(store.columns(), pack, texts), pack, texts) if store else Taste(pack, texts)
        self._standing: Standing | None = None
        self.wish([wish for _, wish in store.preferences()] if store else [])

    def __repr__(self) -> str:
        return "Session(contents withheld)"

    def overtaken(self, model: Model, store: Store | None) -> bool:
        """Whether it would be another one if it were made now, of `store`."""
        version = store.version if store else 0
        return model is not self.model or version != self._version or (store is not None) != self.personal

    def add(self, change: int, act: Act) -> None:
        """Take one more event."""
        (rating,) = felt(Columns.of([(change, act)]), self.model.pack, self.texts).ratings.tolist()
        self._taste.add(change, replace(act, rating=rating))
        self._changed()

    def wish(self, wishes: Sequence[Preference]) -> None:
        """Have these preferences, and no others."""
        self._effects = effects(wishes, self.model.pack, self.texts)
        self._changed()

    @property
    def standing(self) -> Standing:
        """All that ranks items for the person now."""
        if self._standing is None:
            learnt, found = embedding(self._taste, self.model.pack), self._effects
            self._standing = Standing(self._taste, learnt, found.bonus, found.blocked, found.labels)
        return self._standing

    def picks(self, wanted: Wanted, why: Why) -> tuple[Pick, ...]:
        """The list for `wanted`. It keeps nothing of the person alive: `why` is told the moment and the place."""
        places, catalogue = self._ranker.rank(self.standing, wanted), self.model.pack.catalogue
        return tuple(
            Pick(item, title(catalogue.texts[at.row]), at.score, at.source, partial(why, self.moment, at, item))
            for at, item in zip(places, (catalogue.ids[at.row] for at in places), strict=True)
        )

    def place(self, item: str) -> Place:
        """Where an item stands by itself."""
        row = self.row(item)
        (score,) = self._ranker.exact(self.standing, np.array([row])).tolist()
        return Place(row, score, "popular" if self.standing.unknown else "taste")

    def reason(self, place: Place, *, words: bool) -> Reason:
        """Why it stands there; which `words` of its text matter costs a reading of each of them."""
        reader = self.texts.passing if words and not self.texts.trouble else None
        return reason(self._ranker, self.standing, place, reader=reader, hook=self._hook)

    def row(self, item: str) -> int:
        """An item's row in the catalogue. The error does not name the item: it may be what a person did."""
        row = self.model.pack.catalogue.rows.get(item)
        if row is None:
            raise DataError("an item is in the catalogue of the model", remedy="Give an id of the catalogue.")
        return row

    def allowed(self, wanted: Filter | None) -> Bools | None:
        """(item,) what a filter lets through; None for all."""
        if wanted is None:
            return None
        items = len(self.model.pack.catalogue)
        if callable(wanted):
            return np.fromiter(map(wanted, self.model.pack.catalogue.ids), bool, items)
        mask = np.zeros(items, bool)
        for tag in [wanted] if isinstance(wanted, str) else wanted:
            mask[self._bearing.get(tag, [])] = True
        return mask

    def _changed(self) -> None:
        self._standing = None
        self.moment = object()

    @cached_property
    def _bearing(self) -> dict[str, list[int]]:
        bearing: dict[str, list[int]] = {}
        for row, tags in enumerate(self.model.pack.catalogue.tags):
            for tag in tags:
                bearing.setdefault(tag, []).append(row)
        return bearing


def felt(columns: Columns, pack: Pack, texts: Texts) -> Columns:
    """The events, with a rating for each review without one, as far as the pack can tell it from the words."""
    if pack.sentiment is None:
        return columns
    reviews = (columns.kinds == Kind.REVIEW) & np.isnan(columns.ratings)
    ratings = columns.ratings.copy()
    ratings[reviews] = valence(texts, pack, [columns.texts[n] for n in np.flatnonzero(reviews)])
    return replace(columns, ratings=ratings)
