"""What a sentence asks for: rules over plain English, which say what they do not understand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from fedrec.embed import english
from fedrec.embed.english import Cue
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.model.catalogue import Catalogue

LONGEST = 1000  # characters of a sentence that are read

LANGUAGE = "only English is understood here"
UNCLEAR = "no like or dislike was found; try “more …”, “less …” or “no …”"
QUESTION = "this reads as a question"
DEPENDS = "a wish that depends on something, or is not certain, is not kept"
DOUBLE = "a double negation says neither yes nor no"
LENGTH = f"what comes after {LONGEST} characters is not read"
NOTHING = "it does not say of what"
NO_ITEM = "it points at an item, and none was given"
NO_ROLE = "the catalogue does not say who that is for this item"

_SPLIT = re.compile(r"[,./&]|\b(?:and|or)\b")  # what tears a name apart
_WHOLE = frozenset({"news", "series"})  # no plurals
_SAME = {"science fiction": "sci fi", "scifi": "sci fi"}
_FIXED = ("black and white", "rock and roll", "drum and bass", "arts and crafts", "rhythm and blues")


@dataclass(frozen=True)
class Told:
    """What was understood, and, clause by clause, what was not and why. Nothing in between is guessed.

    `changes` are the ids under which the preferences are kept, in their order, none where nothing is kept of them:
    each takes back one.
    """

    preferences: tuple[Preference, ...]
    unclear: tuple[str, ...]
    changes: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Told({len(self.preferences)} preferences, {len(self.unclear)} unclear, contents withheld)"


def understand(sentence: str, *, catalogue: Catalogue, item: str = "", time: int = 0) -> Told:
    """Read what somebody says of their likes and dislikes; `item` is the one that "this" points at.

    What names a tag of the catalogue becomes a preference about the tag, the title of an item (of two words or more)
    one about the item, and anything else a topic in the words of the sentence, to be found by meaning.
    """
    listener = _Listener(_Names.of(catalogue), item)
    for part in listener.parts(sentence[:LONGEST]):
        listener.hear(part)
    if len(sentence) > LONGEST:
        listener.doubt("…", LENGTH)
    if not listener.wishes and not listener.unclear:
        listener.doubt(sentence.strip(), UNCLEAR)
    wishes = {(scope, about): polarity for polarity, scope, about in listener.wishes}
    return Told(
        tuple(
            Preference(polarity=polarity, scope=scope, about=about, said=sentence, time=time)
            for (scope, about), polarity in wishes.items()
        ),
        tuple(listener.unclear),
    )


@dataclass(frozen=True, eq=False)
class _Names:
    """What a catalogue calls things: the normal forms of its tags and titles."""

    tags: dict[str, str]
    titles: dict[str, str]
    roles: dict[str, dict[str, str]]  # item → kind of tag ("author") → tag
    joined: re.Pattern[str]  # spellings that a list must not be split at

    @staticmethod
    @lru_cache(maxsize=2)
    def of(catalogue: Catalogue) -> _Names:
        tags: dict[str, str] = {}
        roles: dict[str, dict[str, str]] = {}
        for item, listed in zip(catalogue.ids, catalogue.tags, strict=True):
            for tag in listed:
                kind, _, value = tag.rpartition(":")
                key = normal(value)
                tags |= {key: tags.get(key, tag), key.replace(" ", ""): tags.get(key, tag)}
                if kind:
                    roles.setdefault(item, {}).setdefault(kind.casefold(), tag)
        titles = {normal(title(text)): item for item, text in zip(catalogue.ids, catalogue.texts, strict=True)}
        values = {english.written_out(tag.rpartition(":")[2]) for tag in tags.values()} | set(_FIXED)
        split = sorted((value for value in values if _SPLIT.search(value)), key=len, reverse=True)
        joined = re.compile("|".join(rf"\b{re.escape(value)}(?!\w)" for value in split))
        return _Names(tags, {key: item for key, item in titles.items() if " " in key}, roles, joined)

    def find(self, phrase: str) -> tuple[Scope, str]:
        key = normal(phrase)
        key = _SAME.get(key, key)
        if tag := self.tags.get(key):
            return Scope.TAG, tag
        if item := self.titles.get(key):
            return Scope.ITEM, item
        return Scope.TOPIC, phrase


@dataclass
class _Listener:
    """What has been understood of a sentence so far."""

    names: _Names
    item: str
    wishes: list[tuple[Polarity, Scope, str]] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    def parts(self, text: str) -> Iterator[str]:
        """Sentences, written out; names that a list would be split at are held aside."""
        spelled = english.written_out(re.sub(r"(\w)&(\w)", r"\1 & \2", text))
        spelled = self.names.joined.sub(self._hold, spelled)
        yield from filter(None, (part.strip(" ") for part in english.SENTENCES.split(_agreed(spelled))))

    def hear(self, sentence: str) -> None:
        """One sentence."""
        words = self._said(sentence)
        if english.foreign(words):
            self.doubt(sentence, LANGUAGE)
            return
        asked = english.ASIDE.sub(r"\1", sentence.strip(" .,!"))
        plain = english.rewritten(english.TRAILING.sub("", english.LEADING.sub("", asked)))
        if english.QUESTION.match(plain):
            self.doubt(sentence, QUESTION)
            return
        if english.DEPENDS.search(plain):
            self.doubt(sentence, DEPENDS)
            return
        cue: Cue | None = None
        bare: list[str] = []
        for clause in _clauses(plain.rstrip("?")):
            cue = self._clause(clause, cue, bare)
        self._bare(bare)

    def doubt(self, clause: str, reason: str) -> None:
        """Say that a clause was not understood."""
        self.unclear.append(f"“{self._said(clause)}”: {reason}")

    def _clause(self, clause: str, before: Cue | None, bare: list[str]) -> Cue | None:
        """One clause; the cue that goes on for the rest of a list."""
        found = _cue(clause)
        if found is None:
            if before is None:
                bare.append(clause)
            else:
                self._wish(before, clause, clause)
            return before
        cue, rest = found
        if before in {Cue.NEVER, Cue.LESS} and english.EXCEPTION.match(clause):
            cue = Cue.MORE
        self._wish(cue, rest, clause)
        return cue

    def _bare(self, clauses: list[str]) -> None:
        """Names alone are a wish for them if one of them at least is a tag of the catalogue."""
        phrases = [phrase for clause in clauses for phrase in english.JOINED.split(clause)]
        if any(self.names.find(_trimmed(self._said(phrase)))[0] is Scope.TAG for phrase in phrases):
            self._wish(Cue.MORE, " and ".join(phrases), ", ".join(clauses))
            return
        for clause in clauses:
            if not english.FILLER.fullmatch(clause):
                self.doubt(clause, UNCLEAR)

    def _wish(self, cue: Cue, phrases: str, clause: str) -> None:
        if cue is Cue.DOUBLE or not phrases:
            self.doubt(clause, NOTHING if phrases == "" and cue is not Cue.DOUBLE else DOUBLE)
        elif english.PRONOUN.fullmatch(phrases) and not self.item and self.wishes:
            self.wishes[-1] = (Polarity(cue), *self.wishes[-1][1:])
        else:
            found = [self._about(phrase, clause) for phrase in english.JOINED.split(phrases)]
            self.wishes += [(Polarity(cue), *named) for named in found if named]

    def _about(self, phrase: str, clause: str) -> tuple[Scope, str] | None:
        """What a phrase names; None where it names nothing, or nothing that can be told."""
        phrase = english.TRAILING.sub("", english.LEADING.sub("", phrase.strip(' .,!?"“”')))
        pointed = re.sub(r"^(?:more |ones )?(?:from|by|of) ", "", phrase)
        if role := english.ROLE.fullmatch(pointed):
            return self._role(role.group(1), clause)
        if english.THIS.fullmatch(pointed):
            return self._this(clause)
        about = _trimmed(self._said(phrase))
        if english.ANYTHING.fullmatch(phrase) or english.ANYTHING.fullmatch(about):
            return None
        found = self.names.find(about)
        if found[0] is not Scope.TOPIC or (re.search(r"\w", about) and not english.TELLING.search(about)):
            return found
        self.doubt(clause, UNCLEAR if about else NOTHING)
        return None

    def _this(self, clause: str) -> tuple[Scope, str] | None:
        if self.item:
            return Scope.ITEM, self.item
        self.doubt(clause, NO_ITEM)
        return None

    def _role(self, kind: str, clause: str) -> tuple[Scope, str] | None:
        if tag := self.names.roles.get(self.item, {}).get(kind):
            return Scope.TAG, tag
        self.doubt(clause, NO_ROLE if self.item else NO_ITEM)
        return None

    def _hold(self, found: re.Match[str]) -> str:
        self.held.append(found.group())
        return f"held{len(self.held) - 1}held"

    def _said(self, text: str) -> str:
        return re.sub(r"held(\d+)held", lambda found: self.held[int(found.group(1))], text)


def normal(name: str) -> str:
    """A name without case, punctuation, hyphens and plurals: "Children's", "children"."""
    words = re.findall(r"\w+", re.sub(r"['’]", "", name.casefold()).replace("&", " and "))
    return " ".join(map(_singular, words))


def title(text: str) -> str:
    """What a catalogue's text calls its item: what stands before brackets."""
    return re.split(r"\s*[\[(]", text, maxsplit=1)[0].strip() or text.strip()


def _singular(word: str) -> str:
    if word in _WHOLE:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _agreed(text: str) -> str:
    """Make "Romance? No thanks." one sentence."""
    return english.AGREED.sub(r"\1 \2", text)


def _clauses(sentence: str) -> Iterator[str]:
    """Pieces of a sentence, each with at most one cue at its start; "and" separates only where a cue follows."""
    for piece in english.BOUNDARY.split(sentence):
        clause = ""
        for part in re.split(r"(\s+(?:and|or|so|then)\s+)", piece):
            if clause and part.strip() not in {"and", "or", "so", "then"} and english.start(_led(part)):
                yield _led(re.sub(r"\s+(?:and|or|so|then)\s+$", "", clause))
                clause = part
            else:
                clause += part
        if clause.strip():
            yield _led(clause.strip())


def _cue(clause: str) -> tuple[Cue, str] | None:
    """The cue of a clause and what it is about. Cues in a row make one: "I would like" and "fewer" is fewer."""
    found = english.start(clause)
    if found is None:
        return english.end(clause)
    cue, rest = found
    # "I love love stories" has one verb.
    while not english.VERB.match(rest) and (following := english.start(_led(rest))) and following[1] != rest:
        cue, rest = _both(cue, following[0], rest), following[1]
    return cue, rest


def _both(first: Cue, second: Cue, rest: str) -> Cue:
    if first is Cue.MORE:
        return second
    negated = second in {Cue.LESS, Cue.NEVER} and not re.match(r"no\b", rest)
    return Cue.DOUBLE if negated or second is Cue.DOUBLE else first


def _led(clause: str) -> str:
    return english.LEADING.sub("", clause.strip())


def _trimmed(phrase: str) -> str:
    """A topic without articles in front of it and without "movies" and the like behind it."""
    return english.GENERIC.sub("", english.ABOUT.sub("", phrase.strip())).strip()
