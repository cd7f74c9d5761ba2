"""What a store should hold, kept in plain Python; and the calls that a person's app makes of a store."""

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedrec.device.act import Act
from fedrec.device.contents import Shown
from fedrec.device.event import Kind
from fedrec.embed.preference import Polarity, Preference, Scope

KEY = bytes(range(32))
CANARY = "zq-canary-kx"
TASK = "the task"


@contextmanager
def memory():
    """A folder on a disk that is quick to synchronise, where there is one."""
    quick = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=quick if quick.is_dir() else None) as folder:
        yield Path(folder)


def act(item="tea", time=0, text="", **more):
    return Act(kind=more.pop("kind", Kind.CLICK), item=item, time=time, text=text, **more)


def wish(about="tea", time=0, scope=Scope.ITEM, said=""):
    return Preference(polarity=Polarity.LESS, scope=scope, about=about, said=said, time=time)


def vector(value, dim=2):
    return np.full(dim, value, np.float32)


@dataclass
class Person:
    """The same calls as a `Store`'s, with the plainest meaning that they can have."""

    events: dict = field(default_factory=dict)
    wishes: dict = field(default_factory=dict)
    shown: dict = field(default_factory=dict)
    learnt: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    last: int = 0
    forgets: int = 0

    def append(self, acts, pages=()):
        for one in acts:
            self.last += 1
            self.events[self.last] = one
        self.shown |= {page.id: page for page in pages}

    def prefer(self, preference):
        self.last += 1
        self.wishes[self.last] = preference

    def keep(self, task, number, embedding):
        kept = {place: value for place, value in self.learnt.items() if place[0] != task or place[1] < number}
        earlier = [place for place in kept if place[0] == task]
        for place in sorted(earlier)[:-1]:
            del kept[place]
        self.learnt = kept | {(task, number): embedding.tolist()}

    def set(self, name, value):
        self.settings |= {name: value}
        if value is None:
            del self.settings[name]

    def forget(self, item=None, before=None, ids=None, everything=False):
        def early(one):
            return before is None or one.time < before

        gone = {
            number for number, one in self.events.items()
            if (item is None or one.item == item) and early(one) and (ids is None or number in ids)
        }  # fmt: skip
        unwished = {
            number for number, one in self.wishes.items()
            if (item is None or (one.scope is Scope.ITEM and one.about == item)) and early(one)
            and (ids is None or number in ids)
        }  # fmt: skip
        named = {item} if ids is None else {self.events[number].item for number in gone} - {""}
        unseen = {
            number for number, page in self.shown.items()
            if early(page) and ((item is None and ids is None) or not named.isdisjoint(page.items))
        }  # fmt: skip
        self.events = without(self.events, gone)
        self.wishes = without(self.wishes, unwished)
        self.shown = without(self.shown, unseen)
        self.learnt, self.forgets = {}, self.forgets + 1

    def undo(self, change):
        if change in self.events or change in self.wishes:
            self.forget(ids=[change])

    def retain(self, newest, since):
        kept = sorted(self.events, key=lambda number: (self.events[number].time, number))
        kept = [number for number in kept[len(kept) - min(newest, len(kept)) :] if self.events[number].time >= since]
        self.events = {number: self.events[number] for number in kept}
        self.shown = {number: page for number, page in self.shown.items() if page.time >= since}

    def seen(self):
        """All of it, in a form that compares."""
        return {
            "events": sorted((one.time, number, told(one)) for number, one in self.events.items()),
            "wishes": sorted(self.wishes.items()),
            "pages": sorted((page.id, page.time, page.items) for page in self.shown.values()),
            "learnt": dict(self.learnt),
            "settings": dict(self.settings),
            "last": self.last,
            "forgets": self.forgets,
        }


def seen(store):
    """All that a store holds, in the same form."""
    held = store.contents()
    return {
        "events": [(one.time, number, told(one)) for number, one in held.events.acts()],
        "wishes": list(held.preferences),
        "pages": sorted((page.id, page.time, page.items) for page in held.pages),
        "learnt": {(one.task, one.round): np.frombuffer(one.value, "<f4").tolist() for one in held.embeddings},
        "settings": held.settings,
        "last": held.last,
        "forgets": held.forgets,
    }


def told(one):
    return str((one.kind, one.item, one.text, np.float32(one.weight), np.float32(one.rating)))


def without(kept, gone):
    return {number: one for number, one in kept.items() if number not in gone}


def bytes_of(folder):
    """All bytes of all files in a folder."""
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file())


# A script: every kind of call that changes a store, in an order in which each has something to do.
CALLS = (
    ("append", [act("tea", 5, CANARY), act("soup", 3), act("", 4, "warm " + CANARY, kind=Kind.SEARCH)]),
    ("prefer", wish("tea", 6, said=CANARY)),
    ("keep", TASK, 1, vector(0.5)),
    ("append", [act("cocoa", 9, rating=0.5)], [Shown(700, 8, ("tea", "cocoa")), Shown(701, 9, ("soup",))]),
    ("set", "consent", '{"contribute": false}'),
    ("keep", TASK, 2, vector(0.25)),
    ("undo", 2),
    ("keep", TASK, 3, vector(0.125)),
    ("prefer", wish("war", 7, Scope.TOPIC, CANARY)),
    ("forget", {"item": "tea"}),
    ("append", [act("jam", time, CANARY * time) for time in range(6)]),
    ("retain", {"newest": 4, "since": 3}),
    ("forget", {"before": 5}),
    ("set", "consent", None),
    ("append", [act("tea", 20, CANARY)]),
    ("forget", {"everything": True}),
)


def call(target, step):
    """Make a call of a store, or of a `Person`."""
    name, *given = step
    if name == "append" and len(given) == 2:
        return target.append(given[0], pages=given[1])
    if given and isinstance(given[0], dict):
        return getattr(target, name)(**given[0])
    return getattr(target, name)(*given)
