"""Why an item is where it is: a score taken apart exactly, as a sentence, and down to the words of the item."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedrec.device.event import NO_ITEM, Kind
from fedrec.embed.page import Cause, Reason
from fedrec.embed.tell import title as title

if TYPE_CHECKING:
    from fedrec.embed.ranker import Place, Ranker, Standing
    from fedrec.embed.reader import Reader
    from fedrec.embed.taste import Trace
    from fedrec.model.pack_files import Pack

Doubles = NDArray[np.float64]
Hook = Callable[[Reason], str]

_LABEL = 80  # characters
_NAMED = 3  # causes in a sentence, and words of an item
_WORTH = 0.25  # of the largest cause; what is less is not worth a mention
_TRIED = 40  # words of an item, each of which is left out once

_DID = {
    Kind.VIEW: "looked at",
    Kind.CLICK: "opened",
    Kind.LIKE: "liked",
    Kind.RATE: "rated",
    Kind.SEARCH: "searched for",
    Kind.REVIEW: "wrote about",
    Kind.SKIP: "skipped",
}
_FILLERS = {  # any text has them, or what introduces its tags
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "in", "is", "it",
    "its", "no", "nor", "not", "of", "on", "or", "so", "than", "that", "the", "their", "them", "they", "this",
    "to", "was", "were", "who", "will", "with", "topics", "genre", "genres",
}  # fmt: skip
_SAYS = {
    "preference": "asked for",
    "embedding": "it is like much of what you choose",
    "popularity": "many others choose it",
    "rank": "it suits the list",
}


def reason(
    ranker: Ranker, standing: Standing, place: Place, *, reader: Reader | None = None, hook: Hook | None = None
) -> Reason:
    """All of why `place.row` has `place.score`.

    With a `reader` also which words of the item matter, in as many readings as it has words. `hook` may say it
    better, for example with a language model on the device: it is given the reason with our sentence and gives its own.
    """
    causes = decompose(ranker, standing, place)
    words = words_of(ranker.pack, reader, place.row, ranker.query(standing)) if reader else ()
    made = Reason(causes, _sentence(causes, standing, place), words)
    return replace(made, sentence=hook(made)) if hook else made


def decompose(ranker: Ranker, standing: Standing, place: Place) -> tuple[Cause, ...]:
    """The causes of a score, the largest first, whichever way they pull; their values add up to `place.score`.

    A score is linear in the vectors of events, so each one's part is exact, given the others: contexts have length 1,
    and without one of them the others would be scaled anew.
    """
    causes = sorted(_causes(ranker, standing, place), key=lambda cause: -abs(cause.value))
    return tuple(cause for cause in causes if cause.value)


def _causes(ranker: Ranker, standing: Standing, place: Place) -> Iterator[Cause]:
    pack, row = ranker.pack, place.row
    vector, maps = pack.vectors[row].astype(np.float64), pack.parameters["maps"].astype(np.float64)
    others = ranker.others(standing)
    wanted = (1 - others) * vector  # the less is known of a person, the less each thing counts that is
    parts = standing.taste.parts(maps @ wanted if maps.ndim == 3 else maps * wanted)
    for trace, part in zip(standing.taste.traces, parts, strict=True):
        yield Cause("event", _label(trace, pack), float(part), trace.id)
    yield Cause("embedding", "what your choices have in common", float(standing.embedding.astype(np.float64) @ wanted))
    usual = others * float(ranker.usual[row]) if ranker.usual is not None else 0.0
    yield Cause("popularity", "what others choose", float(pack.prior[row]) * (1 - others) + usual)
    for label, bonus in standing.labels:
        yield Cause("preference", label, float(bonus[row]))
    yield Cause("rank", "unlike the items listed before it", place.apart)
    yield Cause("rank", "the kinds of items that you choose", place.mix)


def words_of(pack: Pack, reader: Reader, row: int, query: Doubles) -> tuple[str, ...]:
    """The words of an item's text without which it would score lowest, at most three; none if every word harms it.

    Each of its first forty words is left out in turn, but for words that any text has. A dense feature or a residual of
    the item stays as it is.
    """
    text = pack.catalogue.texts[row]
    words = list(dict.fromkeys(word.casefold() for word in re.findall(r"\w+", text)))
    words = [word for word in words if word not in _FILLERS][:_TRIED]
    if not words or not query.any():
        return ()
    without = [re.sub(rf"(?i)\b{re.escape(word)}\b", " ", text) for word in words]
    whole, *rest = reader.vectors([text, *without]) @ query
    falls = whole - np.array(rest)
    return tuple(words[at] for at in np.argsort(-falls, kind="stable")[:_NAMED] if falls[at] > 0)


def _label(trace: Trace, pack: Pack) -> str:
    if trace.row != NO_ITEM:
        return _short(title(pack.catalogue.texts[trace.row]))
    return f"“{_short(' '.join(trace.text.split()))}”"


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[:_LABEL].rsplit(' ', 1)[0]}…"


def _sentence(causes: tuple[Cause, ...], standing: Standing, place: Place) -> str:
    if place.source == "explore":
        return "To try something new."
    if place.source == "popular":
        return "Many others choose it."
    mine, whatever = _clauses(causes, standing)
    you = [f"you {_joined([f'{did} {_joined(things)}' for did, things in mine.items()])}"] if mine else []
    return f"Because {_joined(you + whatever)}." if you + whatever else "It comes next among what is left."


def _clauses(causes: tuple[Cause, ...], standing: Standing) -> tuple[dict[str, list[str]], list[str]]:
    """What speaks for the item: what the person did, to which things, and what else; the strongest first."""
    mine, whatever = dict[str, list[str]](), list[str]()
    for source, did, thing in _strongest(causes, {trace.id: trace for trace in standing.taste.traces}):
        if source in ("event", "preference"):
            mine.setdefault(did, []).append(thing)
        else:
            whatever.append(did)
    return mine, whatever


def _strongest(causes: tuple[Cause, ...], traces: Mapping[int, Trace]) -> list[tuple[str, str, str]]:
    """The largest positive parts as (source, what was done, to what); what was done twice to one thing counts once."""
    sums: dict[tuple[str, str, str], float] = {}
    for cause in causes:
        told = cause.source, _DID[traces[cause.event].kind] if cause.event else _SAYS[cause.source], cause.label
        sums[told] = sums.get(told, 0.0) + cause.value
    order = sorted(sums, key=lambda told: -sums[told])[:_NAMED]
    return [told for told in order if sums[told] > 0 and sums[told] >= _WORTH * sums[order[0]]]


def _joined(things: list[str]) -> str:
    """A, B and C."""
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)
