"""One person on a device: what is kept of them, under which model, and how both stay in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from time import time_ns

from fedrec.device.act import Act
from fedrec.device.contents import Shown
from fedrec.embed.consent import Consent
from fedrec.embed.diary import opened, seconds
from fedrec.embed.explain import Hook
from fedrec.embed.models import Mark, Model, Models, mark_of
from fedrec.embed.page import Page, Pick, Reason
from fedrec.embed.preference import Preference
from fedrec.embed.ranker import Place
from fedrec.embed.seat import CARD, vouching
from fedrec.embed.session import Session
from fedrec.embed.stock import stocked
from fedrec.embed.texts import Texts
from fedrec.embed.topics import Topic
from fedrec.errors import DataError, FedrecError, RunError
from fedrec.files import Closing
from fedrec.model.catalogue import Catalogue

EVENTS = "events.sqlite"

_DAY = 86_400
_ALL = 2**62  # events: their age alone decides
_PENDING = 1000  # pages in memory, at most; the store keeps as many


class Person(Closing):
    """A person's store and what is made of it. `lock` is held by whoever asks more than one thing of it."""

    def __init__(  # noqa: PLR0913  (what, by which model, by which key, how long, by which clock)
        self, folder: Path, models: Models, secret: bytes | None, days: int, clock: Callable[[], float]
    ) -> None:
        """Open the store in `folder`; a damaged one is moved aside. What is older than so many `days` is erased."""
        self.lock, self.folder, self.days = RLock(), folder, days
        self.store, self._notices = opened(folder / EVENTS, secret)
        self.consent = Consent(self.store, clock=clock)
        self._models, self._clock = models, clock
        self._model: Model | None = None
        self._stock = Catalogue((), ())
        self._mark: Mark | None = None
        self._card: Mark | None = None
        self._texts: Texts | None = None
        self._session: Session | None = None
        self._hook: Hook | None = None
        self._pending: list[Shown] = []
        self._page, self._forgets, self._tidied = 0, 0, -_DAY * 10**6
        try:
            self.model()
            self.tidy()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return "Person(contents withheld)"

    def close(self) -> None:
        """Keep the pages that were shown last, and let go of the files."""
        with self.lock:
            with suppress(RunError, DataError):
                self.flush()
            self._session, self._pending = None, []
            self.store.close()

    @property
    def now(self) -> int:
        """Unix seconds."""
        return seconds(self._clock())

    @property
    def notices(self) -> tuple[str, ...]:
        """What went wrong without stopping anything."""
        trouble = self._texts.trouble if self._texts else ""
        return (*self._notices, trouble) if trouble else tuple(self._notices)

    @property
    def models(self) -> Models:
        """Where models are: the site where the folder has its seat vouches for them too, once there is one."""
        if self._models.key is None and (card := mark_of(self.folder / CARD)) != self._card:
            self._card = card  # lists ask each time: files are read, and a signature checked, when the card is another
            if key := vouching(self.folder, self._models.bundled):
                self._models, self._mark = replace(self._models, key=key), None
        return self._models

    def model(self) -> Model | None:
        """The newest model, None if there is none at all; looked for again when a pack was taken."""
        mark = self.models.mark
        if self._model is None or mark != self._mark:
            self._mark, found = mark, self._newest()
            if found and (self._model is None or found.pack.info.digest != self._model.pack.info.digest):
                self._model = self._stocked(found)
        return self._model

    def stock(self, items: Catalogue) -> int:
        """Have these items, and no others, besides those of packs; how many these are."""
        with self.lock:
            found = self.models.newest()
            model = stocked(found, items) if found else None
            self._model, self._stock = model, items
            return len(model.pack.catalogue) - len(found.pack.catalogue) if model and found else 0

    def _newest(self) -> Model | None:
        try:
            return self.models.newest()
        except DataError as error:
            if self._model is None:
                raise
            self._note(f"The model in use stays: {error}")
            return None

    def _stocked(self, found: Model) -> Model:
        try:
            return stocked(found, self._stock)
        except FedrecError as error:
            self._note(f"New items are not listed: {error}")
            return found

    def session(self) -> Session:
        """The person as lists see them; made anew if a consent, a pack or another process has overtaken it."""
        model = self.model()
        if model is None:
            remedy = "Give `open` the pack that your app brings along, or call `sync`."
            raise RunError("lists are made with a model", remedy=remedy)
        store = self.store if self.consent.state().personalizes else None
        if self._session is None or self._session.overtaken(model, store):
            if self._texts is None or self._texts.model is not model:
                self._texts = Texts(model)
            self._session = Session(model, self._texts, store, self._hook)
        return self._session

    def append(self, act: Act) -> int:
        """Keep an event, and the pages that were shown before it; its id."""
        (change,) = self._flushed([act])
        if self._session and self._session.personal:
            try:
                self._session.add(change, act)
            except Exception:  # the event is kept: what is wrong shows when a list is asked for
                self._session = None
        return change

    def log(self, act: Act, page: Page | int | None) -> int:
        """Keep an event as the person allows, met on `page` if one is named; its id, 0 where nothing may be kept."""
        with self.lock:
            if page is not None and act.item not in self.shown(page):
                remedy = "Leave the page out, or give the one on which it stands."
                raise DataError("an item was met on the page that is named", remedy=remedy)
            if not self.consent.state().records:
                return 0
            self.tidy()
            return self.append(act)

    def prefer(self, wishes: Sequence[Preference]) -> list[int]:
        """Keep what the person said; the ids of the wishes."""
        session, self._session = self.session(), None  # made anew if the disk keeps only some of them
        changes = [self.store.prefer(wish) for wish in wishes]
        session.wish([wish for _, wish in self.store.preferences()])
        self._session = session
        return changes

    def show(self, picks: Sequence[Pick]) -> int:
        """Remember a page; its id, 0 where nothing is kept. It is on disk with the next event: no list waits."""
        if not picks or not self.consent.state().records:
            return 0
        if self._forgets != self.store.forgets:
            self._forgets, self._pending = self.store.forgets, []
        self._page = max(self._page + 1, time_ns())
        self._pending.append(Shown(self._page, self.now, tuple(pick.item for pick in picks)))
        del self._pending[:-_PENDING]
        return self._page

    def shown(self, page: Page | int) -> tuple[str, ...]:
        """The items of a page, none if there is no such page."""
        if isinstance(page, Page):
            return tuple(pick.item for pick in page)
        pending = {one.id: one.items for one in self._pending}
        return pending.get(page) or dict(self.store.pages(newest=_ALL)).get(page, ())

    def undo(self, change: int | None) -> bool:
        """Take back one change, or those of the last call; whether there was any."""
        with self.lock:
            if change is not None:
                return self.erase(partial(self.store.undo, change)) > 0
            last = self._last()
            return bool(last) and self.erase(partial(self.store.forget, ids=last)) > 0

    def _last(self) -> list[int]:
        """The changes of the last call that kept anything."""
        last = self.store.last_change()
        wishes = dict(self.store.preferences())
        if last not in wishes or not wishes[last].said:
            return [last] if last else []
        said = wishes[last].said, wishes[last].time
        return [change for change, wish in wishes.items() if (wish.said, wish.time) == said]

    def forget(self, *, item: str | None, topic: str | None, before: int | None, everything: bool) -> int:
        """Erase what all of `item`, `topic` and `before` are true of, or `everything`; how much there was."""
        with self.lock:
            ids = None if topic is None else self._about(topic)
            return self.erase(partial(self.store.forget, item=item, before=before, ids=ids, everything=everything))

    def _about(self, topic: str) -> list[int]:
        """Events, preferences and pages that are about a topic."""
        session = self.session()
        return Topic(topic, session.model.pack, session.texts).among(self.store)

    def erase(self, how: Callable[[], int]) -> int:
        """Erase something in the store, and let nothing of it stay in memory."""
        try:
            return how()
        finally:  # also where the disk interrupts it
            self._session, self._pending = None, []
            if self._texts:
                self._texts.forget()

    @contextmanager
    def wishing(self) -> Iterator[Person]:
        """What a person says is kept inside of this, with their consent."""
        with self.lock:
            if not self.consent.state().personalizes:
                remedy = 'Nothing was kept. Ask the person, and call consent.grant("personalize").'
                raise RunError("what a person says is kept with their consent", remedy=remedy)
            yield self

    def why(self, moment: object, place: Place, item: str) -> Reason:
        """Of a listed item; once the person has done something else, of its score now, and not of what is forgotten."""
        with self.lock:
            session = self.session()
            return session.reason(place if session.moment is moment else session.place(item), words=False)

    def tidy(self) -> None:
        """Erase what is too old, once a day."""
        now = self.now
        if abs(now - self._tidied) < _DAY:
            return
        self._tidied = now
        try:
            self.flush()
            self.erase(partial(self.store.retain, newest=_ALL, since=now - self.days * _DAY))
        except RunError as error:
            self._note(f"What is too old could not be erased: {error}")

    def narrate(self, hook: Hook | None) -> None:
        """Have reasons said by `hook`."""
        with self.lock:
            self._hook, self._session = hook, None

    def flush(self) -> None:
        """Bring the pages that were shown to the disk."""
        if self._pending:
            self._flushed([])

    def _flushed(self, acts: Sequence[Act]) -> list[int]:
        changes = self.store.append(acts, pages=self._pending, forgets=self._forgets)
        self._pending = []
        return changes

    def _note(self, words: str) -> None:
        if words not in self._notices:
            self._notices.append(words)
