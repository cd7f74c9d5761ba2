"""`Recommender`: what an app holds. It recommends from the first second, without a network and without training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed.consent import Consent
from fedrec.embed.diary import folder_of, kind_of, scaled, seconds, wish_of
from fedrec.embed.explain import Hook
from fedrec.embed.models import Models, public_key
from fedrec.embed.page import Page, Pick, Reason
from fedrec.embed.person import EVENTS, Person
from fedrec.embed.preference import Preference
from fedrec.embed.ranker import Wanted
from fedrec.embed.seat import Seat
from fedrec.embed.session import Filter
from fedrec.embed.tell import Told, understand
from fedrec.errors import RunError, require
from fedrec.files import Closing
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_format import PackInfo

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from fedrec.embed.ledger import LedgerView
    from fedrec.embed.stay import Occasion, Outcome
    from fedrec.embed.sync import Source

PACKS = "packs"

Verdict = Literal["more_like_this", "less_like_this", "hide"]


class Recommender(Closing):
    """One person's recommender in a folder of theirs. Any number of threads; other processes may open the same folder.

    Nothing here opens a connection except `contribute` and `sync`. What `log`, `tell` and `feedback` acknowledge by
    returning is on disk, and counts in the next list. No message and no repr holds anything of what a person did.
    """

    def __init__(self, person: Person) -> None:
        """Use `open`."""
        self._person = person

    @classmethod
    def open(  # noqa: PLR0913  (where; the rest may be left out)
        cls,
        folder: Path | str,
        *,
        pack: Path | str | None = None,
        key: Ed25519PublicKey | str | None = None,
        secret: bytes | None = None,
        retention_days: int = 180,
        clock: Callable[[], float] = time.time,
    ) -> Recommender:
        """Open the person's folder, or begin one.

        `pack` is a model that the app brings along; `key` is the public key of the site whose packs `sync` may take:
        without it, that of the site where the folder has its seat. With `secret`, 32 random bytes that the app keeps
        elsewhere, what a person did is encrypted on disk. Events are erased after `retention_days`. A damaged file of
        events is moved aside, never deleted: `notices` says so, and the person starts anew. Raises `DataError` for a
        wrong secret or a damaged `pack`, and `RunError` for a disk that does not let the folder be used.
        """
        require(retention_days >= 1, "events are kept for a day at least", retention_days=retention_days)
        place = folder_of(folder)
        models = Models(place / PACKS, public_key(key), None if pack is None else Path(pack).expanduser())
        return cls(Person(place, models, secret, retention_days, clock))

    @classmethod
    def restore(  # noqa: PLR0913  (from where, to where; the rest is as in `open`)
        cls,
        path: Path | str,
        folder: Path | str,
        *,
        pack: Path | str | None = None,
        key: Ed25519PublicKey | str | None = None,
        secret: bytes | None = None,
        retention_days: int = 180,
        clock: Callable[[], float] = time.time,
    ) -> Recommender:
        """Open a folder with what `export` wrote to `path`. The folder holds no events yet, or this is a `RunError`."""
        from fedrec.embed import portable

        with Store(folder_of(folder) / EVENTS, key=secret) as store:
            portable.read(store, Path(path).expanduser())
        return cls.open(folder, pack=pack, key=key, secret=secret, retention_days=retention_days, clock=clock)

    def __repr__(self) -> str:
        return "Recommender(contents withheld)"

    def close(self) -> None:
        """Let go of the files; again is harmless."""
        self._person.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """What went wrong without stopping anything, in plain words that say nothing of what the person did."""
        with self._person.lock:
            return self._person.notices

    @property
    def pack(self) -> PackInfo | None:
        """The model in use; None until there is one."""
        with self._person.lock:
            model = self._person.model()
            return model.pack.info if model else None

    @property
    def catalogue(self) -> Catalogue | None:
        """The items that may be listed, for an app to show, not to change; another object after another pack."""
        with self._person.lock:
            model = self._person.model()
            return model.pack.catalogue if model else None

    @property
    def consent(self) -> Consent:
        """What the person allows."""
        return self._person.consent

    @property
    def ledger(self) -> LedgerView:
        """What contributing has cost the person's privacy, and what it may still cost."""
        from fedrec.embed.ledger import LedgerView

        return LedgerView(self._person.folder, self._person.store, self._person.consent)

    def log(  # noqa: PLR0913  (what happened; nearly all of it may be left out)
        self,
        kind: Kind | str,
        item: str = "",
        *,
        text: str = "",
        rating: float | None = None,
        weight: float = 1.0,
        dwell_s: float | None = None,
        time: float | None = None,
        page: Page | int | None = None,
    ) -> int:
        """Keep one event; the next list follows it. Its id, to undo it; 0 where the person lets nothing be kept.

        `item` is an id of the catalogue; what the pack does not have yet counts once a pack has it. `rating` lies in
        [0, 1]. `dwell_s`, seconds of attention, scales `weight`: by 1 after 30 s, and by 2 at most. `time` is in Unix
        seconds, now unless it is given. `page` is where the person met the item, or this is a `DataError`.
        """
        person = self._person
        act = Act(
            kind=kind_of(kind), item=item, text=text, weight=scaled(weight, dwell_s),
            rating=math.nan if rating is None else rating, time=person.now if time is None else seconds(time),
        )  # fmt: skip
        return person.log(act, page)

    def tell(self, sentence: str, *, item: str = "") -> Told:
        """Take what a person says they like or do not like; `item` is what "this" is.

        What was understood is kept and counts in the next list, each wish under an id of its own in `changes`; what was
        not is said in `unclear`, and not guessed.
        """
        with self._person.wishing() as person:
            catalogue = person.session().model.pack.catalogue
            told = understand(sentence, catalogue=catalogue, item=item, time=person.now)
            return replace(told, changes=tuple(person.prefer(told.preferences)))

    def feedback(self, item: Pick | str, verdict: Verdict) -> int:
        """Keep what a person says of an item by a button; the id of the change, to undo it."""
        with self._person.wishing() as person:
            name = item.item if isinstance(item, Pick) else item
            person.session().row(name)
            (change,) = person.prefer([wish_of(name, verdict, person.now)])
            return change

    @property
    def preferences(self) -> list[tuple[int, Preference]]:
        """What the person said, oldest first, each with the id that `undo` takes."""
        return self._person.store.preferences()

    def recommend(  # noqa: PLR0913  (how many; the rest are wishes for the list)
        self,
        k: int = 10,
        *,
        filter: Filter | None = None,
        diversity: float = 0.0,
        calibration: float = 0.0,
        explore: float = 0.0,
        hide_seen: bool = True,
    ) -> Page:
        """At most `k` items, best first. Needs no network, no history and no training, and writes nothing.

        `filter` is a test of item ids, or tags of which an item has to bear one. The rest lie in [0, 1]: `diversity`
        trades scores for unlikeness, `calibration` for the person's own mix of tags, and `explore` is the chance of
        each place to go to an item that the person might never meet. `hide_seen` leaves out what they chose before.
        """
        person = self._person
        with person.lock:
            session = person.session()
            wanted = Wanted(
                k=k, hide_seen=hide_seen, allowed=session.allowed(filter), diversity=diversity,
                calibration=calibration, explore=explore,
            )  # fmt: skip
            picks = session.picks(wanted, person.why)
            return Page(person.show(picks), picks)

    def explain(self, item: str) -> Reason:
        """Why an item has its score at this moment, on a list or not, and the words of its text that matter."""
        with self._person.lock:
            session = self._person.session()
            return session.reason(session.place(item), words=True)

    def stock(self, items: Catalogue) -> int:
        """List these public items too, by their text alone, until the app closes; how many are new to the pack."""
        return self._person.stock(items)

    def narrate(self, hook: Hook | None) -> None:
        """Have reasons said by `hook`, such as a language model on the device; None goes back to our sentences."""
        self._person.narrate(hook)

    def undo(self, change: int | None = None) -> bool:
        """Take back a change by its id, or all that the last call of `log`, `tell` or `feedback` kept.

        Whether there was any. It is erased as `forget` erases.
        """
        return self._person.undo(change)

    def forget(
        self,
        *,
        item: str | None = None,
        topic: str | None = None,
        before: float | None = None,
        everything: bool = False,
    ) -> int:
        """Erase what the person did and said: about an item, about a topic, from before a time, or everything.

        Of `item`, `topic` and `before` all have to be true of what goes. How many events and preferences there were.
        Their bytes are gone from the files when this returns, and lists are those of a device that never knew them.
        Consent stays, and what was spent stays spent.
        """
        narrow = not (item is None and topic is None and before is None)
        require(everything is not narrow, "what to forget is said",
                remedy="Name item, topic or before, or say everything=True alone.")  # fmt: skip
        at = None if before is None else seconds(before)
        return self._person.forget(item=item, topic=topic, before=at, everything=everything)

    def export(self, path: Path | str) -> None:
        """Write all that is kept of the person into one file, which `restore` reads. It is not encrypted."""
        from fedrec.embed import portable

        with self._person.lock:
            self._person.flush()
            portable.write(self._person.store, Path(path).expanduser())

    def contribute(self, occasion: Occasion | None = None) -> Outcome:
        """Take part in training for a while, and say what became of it. Lists are made meanwhile as ever.

        It opens no connection without `consent.grant("contribute")`. What it needs comes with `fedrec[train]`.
        """
        from fedrec.embed.contribute import contribute
        from fedrec.embed.stay import ANY_TIME

        return contribute(self._person.folder, self._person.store, self._person.consent, occasion or ANY_TIME)

    def sync(
        self, source: Source | None = None, *, authority: bytes | None = None, older: bool = False
    ) -> PackInfo | None:
        """Take the site's newest pack if it is not the one in use, None if there is nothing new; the next list has it.

        `source` is an https address or a folder; without one, the site where the folder has its seat is asked. Raises
        what is wrong with a pack; the one in use stays.
        """
        from fedrec.embed.sync import sync

        if source is None:
            seat = Seat.of(self._person.folder)
            source, authority = seat.server, authority or seat.authority
        packs = self._person.models.packs
        if packs is None:
            remedy = "Give `open` the public key of the site."
            raise RunError("packs are taken from a site whose key is known", remedy=remedy)
        return sync(packs, source, authority=authority, older=older)
