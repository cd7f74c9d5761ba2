"""Which of a person's events and wishes are about a topic: so that it can be forgotten."""

from __future__ import annotations

from fedrec.device.store import Store
from fedrec.embed.effects import effects
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.embed.reader import Reader
from fedrec.embed.tell import normal
from fedrec.errors import require
from fedrec.model.pack_files import Pack

_ALL = 2**62  # pages


class Topic:
    """A topic, as it shows in texts, tags and items.

    An item is about it that bears it as a tag, names it in its text, or would be hidden from whoever wishes never to
    see it.
    """

    def __init__(self, topic: str, pack: Pack, reader: Reader) -> None:
        phrase = normal(topic)
        require(bool(phrase), "a topic is said in words")
        self._phrase, self._pack, self._hidden = f" {phrase} ", pack, _hidden(topic, pack, reader)

    def __repr__(self) -> str:
        return "Topic(contents withheld)"

    def among(self, store: Store) -> list[int]:
        """Ids of the events, preferences and pages that are about it."""
        held = store.columns()
        named, about = {*filter(self.names, {*held.texts})}, {*filter(self.has, {*held.items})}  # each read once
        events = zip(held.ids.tolist(), held.items, held.texts, strict=True)
        found = [event for event, item, text in events if text in named or item in about]
        found += [change for change, wish in store.preferences() if self.wished(wish)]
        return found + [page for page, items in store.pages(newest=_ALL) if any(map(self.has, items))]

    def names(self, text: str) -> bool:
        """Whether the words of the topic stand in `text`, one after the other."""
        return self._phrase in f" {normal(text)} "

    def has(self, item: str) -> bool:
        """Whether an item is about it; of an item that the pack does not have nothing is known but its id."""
        row = self._pack.catalogue.rows.get(item)
        if row is None:
            return False
        texts = (self._pack.catalogue.texts[row], *self._pack.catalogue.tags[row])
        return item in self._hidden or any(map(self.names, texts))

    def wished(self, wish: Preference) -> bool:
        """Whether a preference is about it, or was said in a sentence that names it."""
        return self.names(wish.said) or (self.has(wish.about) if wish.scope is Scope.ITEM else self.names(wish.about))


def _hidden(topic: str, pack: Pack, reader: Reader) -> frozenset[str]:
    never = Preference(polarity=Polarity.NEVER, scope=Scope.TOPIC, about=topic)
    blocked = effects([never], pack, reader).blocked
    return frozenset(item for item, hidden in zip(pack.catalogue.ids, blocked.tolist(), strict=True) if hidden)
