"""Events → contexts, one event at a time: what a list is ranked with the moment after something happened."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedrec.device.contents import Columns
from fedrec.device.event import NO_ITEM, Kind
from fedrec.device.weights import FAINTEST, signed_weights

if TYPE_CHECKING:
    from fedrec.device.act import Act
    from fedrec.embed.reader import Reader
    from fedrec.model.pack_files import Pack

Doubles = NDArray[np.float64]

_EVERY = 256  # events between the sums that are kept: so far back a change recomputes more than itself


class Trace(NamedTuple):
    """What an event leaves in a profile: `weight` × the vector of item `row`, and `beside` × `reading`, its text's."""

    id: int
    time: int
    kind: Kind
    row: int
    weight: float
    text: str
    beside: float
    reading: NDArray[np.float32] | None

    def __repr__(self) -> str:
        return f"Trace({self.kind.name}, contents withheld)"

    @property
    def chooses(self) -> bool:
        """Whether it says that the person chose the item."""
        return self.row != NO_ITEM and self.kind.chooses

    @property
    def tells(self) -> bool:
        """Whether it says anything: it weighs something, and is about an item or has words."""
        return bool(self.weight) and (self.row != NO_ITEM or (self.reading is not None and bool(self.reading.any())))


class Taste:
    """What the events of one person say in terms of one pack. Not for several threads at once.

    Events about items that the pack does not have are left out. Contexts are those that training computes
    (`fedrec.device.profile`), and do not depend on the way by which the same events came to be here: to the last bit,
    if the reader gives a text the same vector each time. `seen` (item,) tells which items the person chose.
    """

    def __init__(self, pack: Pack, reader: Reader) -> None:
        """The taste of somebody of whom nothing is known."""
        self.pack, self._reader = pack, reader
        self._spec = pack.info.profile
        self._decays: Doubles = np.array(pack.info.ranking.decays)[:, None]
        self.seen: NDArray[np.bool_] = np.zeros(len(pack.catalogue), bool)
        self._traces: list[Trace] = []
        self._firsts: list[int] = []
        self._evidence = 0
        self._sums: Doubles = np.zeros((len(self._decays), pack.info.ranking.dim))
        self._kept: list[Doubles] = []  # the sums before every `_EVERY`th event

    @classmethod
    def of(cls, columns: Columns, pack: Pack, reader: Reader) -> Taste:
        """What `columns` hold; every text among them is read once."""
        taste = cls(pack, reader)
        rows = [pack.catalogue.rows.get(item, NO_ITEM) for item in columns.items]
        known = [n for n, (item, row) in enumerate(zip(columns.items, rows, strict=True)) if not item or row != NO_ITEM]
        written = list(dict.fromkeys(columns.texts[n] for n in known if columns.texts[n]))
        readings = dict(zip(written, reader.vectors(written), strict=True)) if written else {}
        weights = signed_weights(columns, taste._spec).tolist()
        ids, times, kinds = columns.ids.tolist(), columns.times.tolist(), columns.kinds.tolist()
        for n in known:
            text, beside = columns.texts[n], weights[n] * taste._beside(rows[n])
            reading = readings.get(text)
            taste._extend(Trace(ids[n], times[n], Kind(kinds[n]), rows[n], weights[n], text, beside, reading))
        return taste

    def __repr__(self) -> str:
        return f"Taste({len(self)} events, contents withheld)"

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, event_id: int, act: Act) -> None:
        """Take one more event. It costs decays × dim, and reading its text; one from the past also what lies behind."""
        row = self.pack.catalogue.rows.get(act.item, NO_ITEM)
        if act.item and row == NO_ITEM:
            return
        (weight,) = signed_weights(Columns.of([(event_id, act)]), self._spec).tolist()
        reading = self._reader.vectors([act.text])[0] if act.text else None
        trace = Trace(event_id, act.time, act.kind, row, weight, act.text, weight * self._beside(row), reading)
        place = bisect_right(self._traces, (act.time, event_id), key=lambda one: (one.time, one.id))
        behind = self._cut(place)
        self._extend(*behind[0], trace, *behind[1])

    def remove(self, ids: Collection[int]) -> None:
        """Be as if these events had never come; ids that are not here do not matter."""
        gone = set(ids)
        first = next((place for place, trace in enumerate(self._traces) if trace.id in gone), None)
        if first is not None:
            before, after = self._cut(first)
            self._extend(*before, *(trace for trace in after if trace.id not in gone))

    @property
    def empty(self) -> bool:
        """Whether no event says anything."""
        return not self._sums.any()

    @property
    def evidence(self) -> int:
        """How many events say something."""
        return self._evidence

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The events, in time order."""
        return tuple(self._traces)

    @property
    def choices(self) -> NDArray[np.int64]:
        """(choice,) rows of the items that the person chose, in the order of first choice."""
        return np.array([self._traces[place].row for place in self._firsts], np.int64)

    @property
    def choice_weights(self) -> Doubles:
        """(choice,) the signed weights of the events with which items were first chosen."""
        return np.array([self._traces[place].weight for place in self._firsts])

    @property
    def contexts(self) -> NDArray[np.float32]:
        """(decay, dim) views of all events, each of length 1 or 0."""
        return self.views.astype(np.float32)

    @property
    def views(self) -> Doubles:
        """`contexts`, before they are rounded to float32."""
        return _unit(self._sums)

    def before_choices(self, newest: int) -> Doubles:
        """(choice, decay, dim) the views before each of the `newest` first choices."""
        asked = self._firsts[max(0, len(self._firsts) - newest) :]
        if not asked:
            return np.zeros((0, *self._sums.shape))
        near = groupby(asked, lambda place: place // _EVERY)
        return np.stack([_unit(sums) for _, places in near for sums in self._walk([*places])])

    def parts(self, wanted: Doubles) -> Doubles:
        """(event,) what each event adds to Σ_k ⟨view_k, wanted_k⟩, for `wanted` (decay, dim)."""
        count = len(self._traces)
        products = np.zeros((count, len(self._decays)))
        about = np.array([place for place, trace in enumerate(self._traces) if trace.row != NO_ITEM], np.int64)
        rows, where = np.unique([self._traces[place].row for place in about], return_inverse=True)
        weights = np.array([self._traces[place].weight for place in about])
        products[about] = weights[:, None] * (self.pack.vectors[rows.astype(np.int64)] @ wanted.T)[where]
        for place, trace in enumerate(self._traces):
            if trace.reading is not None:
                products[place] += trace.beside * (wanted @ trace.reading)
        ages = np.arange(count)[::-1]
        lengths = np.maximum(np.linalg.norm(self._sums, axis=1), FAINTEST)
        parts: Doubles = (products * (self._decays**ages).T / lengths).sum(axis=1)
        return parts

    def _beside(self, row: int) -> float:
        return 1.0 if row == NO_ITEM else self._spec.text

    def _extend(self, *traces: Trace) -> None:
        for trace in traces:
            if len(self._traces) % _EVERY == 0:
                self._kept.append(self._sums)
            if trace.chooses and not self.seen[trace.row]:
                self._firsts.append(len(self._traces))
                self.seen[trace.row] = True
            self._traces.append(trace)
            self._evidence += trace.tells
            self._sums = self._next(self._sums, trace)

    def _cut(self, place: int) -> tuple[list[Trace], list[Trace]]:
        """Go back to the sums last kept at or before `place`; the events since then, before `place` and from it on."""
        if place == len(self._traces):
            return [], []
        start = place // _EVERY * _EVERY
        before, after = self._traces[start:place], self._traces[place:]
        self._sums = self._kept[place // _EVERY]
        self._evidence -= sum(trace.tells for trace in self._traces[start:])
        del self._traces[start:], self._kept[place // _EVERY :], self._firsts[bisect_left(self._firsts, start) :]
        self.seen[:] = False
        self.seen[self.choices] = True
        return before, after

    def _walk(self, places: Sequence[int]) -> Iterator[Doubles]:
        """The sums before each of `places`, in order, between which no sums are kept."""
        start, among = places[0] // _EVERY * _EVERY, {*places}
        sums = self._kept[places[0] // _EVERY]
        for at, trace in enumerate(self._traces[start : places[-1] + 1], start):
            if at in among:
                yield sums
            sums = self._next(sums, trace)

    def _next(self, sums: Doubles, trace: Trace) -> Doubles:
        sums = self._decays * sums
        if trace.row != NO_ITEM:
            sums += trace.weight * self.pack.vectors[trace.row].astype(np.float64)
        if trace.reading is not None:
            sums += trace.beside * trace.reading.astype(np.float64)
        return sums


def _unit(sums: Doubles) -> Doubles:
    unit: Doubles = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), FAINTEST)
    return unit
