"""What goes when a person wants something forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fedrec.device import contents
from fedrec.device.cells import Cells
from fedrec.embed.preference import Preference, Scope

HOLDINGS = ("events", "preferences", "pages", "embeddings")
CHANGES = "SELECT id FROM events UNION ALL SELECT id FROM preferences"
_NAMED = "?3 IS NULL OR id IN (SELECT value FROM json_each(?3))"
_WHICH = f"(?1 IS NULL OR item = ?1) AND (?2 IS NULL OR time < ?2) AND ({_NAMED})"


@dataclass(frozen=True)
class Which:
    """What is about `item`, from `before` a time, and one of `ids`; None does not restrict."""

    item: str | None
    before: int | None
    ids: Collection[int] | None

    def __repr__(self) -> str:
        return "Which(contents withheld)"

    def early(self, time: int) -> bool:
        """Whether something of this time goes, if nothing else keeps it."""
        return self.before is None or time < self.before

    def covers(self, number: int, preference: Preference) -> bool:
        """Whether a preference goes."""
        named = self.item is None or (preference.scope is Scope.ITEM and preference.about == self.item)
        return named and self.early(preference.time) and (self.ids is None or number in self.ids)


def erase(db: sqlite3.Connection, cells: Cells, which: Which) -> int:
    """Erase events, preferences and the pages that name what goes; how many events and preferences there were."""
    mark = None if which.item is None else cells.mark(which.item)
    ids = None if which.ids is None else json.dumps([*map(int, which.ids)])
    values = (mark, which.before, ids)
    gone = _shown(db, cells, which, values)
    wishes = [number for number, preference in contents.preferences(db, cells) if which.covers(number, preference)]
    _delete(db, "pages", gone)
    _delete(db, "preferences", wishes)
    return len(wishes) + db.execute(f"DELETE FROM events WHERE {_WHICH}", values).rowcount


def erase_everything(db: sqlite3.Connection) -> int:
    """Erase all of it unread, for it may be damaged; how many events and preferences there were."""
    (count,) = db.execute(f"SELECT count(*) FROM ({CHANGES})").fetchone()
    for table in HOLDINGS:
        db.execute(f"DELETE FROM {table}")
    return int(count)


def _shown(db: sqlite3.Connection, cells: Cells, which: Which, values: tuple[object, ...]) -> list[int]:
    """The pages that go: by what they show, and by when."""
    named = None if which.item is None else {which.item}
    if which.ids is not None:
        named = {*contents.events(db, cells, _WHICH, values).items} - {""}
    chosen = {*(which.ids or ())}
    return [
        page.id
        for page in contents.pages(db, cells)
        if which.early(page.time) and (named is None or page.id in chosen or not named.isdisjoint(page.items))
    ]


def _delete(db: sqlite3.Connection, table: str, ids: Iterable[int]) -> None:
    db.executemany(f"DELETE FROM {table} WHERE id = ?", ((number,) for number in ids))
