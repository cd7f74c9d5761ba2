"""WordPiece as BERT's: text → token ids, without the tokenizers package and what it brings along.

Equal to it but for some 500 rare marks, punctuation and format characters that Unicode added or moved after its version
8 (2015): the tables of that package end there.

Source: Devlin et al. 2019, BERT, arXiv 1810.04805, §3, and its published tokenizer.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

_GROUP = re.compile(r"(?:\S|[\x0b\x0c\x1c-\x1f\x85])+")  # these are white space to Python, and vanish in BERT
_DROPPED = frozenset(("Cc", "Cf", "Co", "Cs"))
_LONGEST = 100  # characters of a word; longer ones are unknown
_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)  # fmt: skip  (from 0x2B920, where Unicode's block begins at 0x2B820: so does the published tokenizer)


@dataclass(frozen=True, kw_only=True)
class WordPiece:
    """A vocabulary and how texts are cut into its pieces. `pieces` in the order of their ids.

    `marks` open and close a text, `special` are pieces that stand for themselves wherever a text spells them.
    """

    pieces: Sequence[str] = field(repr=False)
    max_tokens: int
    lower: bool = True
    strip_accents: bool = True
    split_ideographs: bool = True
    unknown: str = "[UNK]"
    marks: tuple[str, str] = ("[CLS]", "[SEP]")
    special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Piece → id."""
        return {piece: row for row, piece in enumerate(self.pieces)}

    def ids(self, text: str) -> list[int]:
        """Ids of a text between its marks, at most `max_tokens`; none for a blank text."""
        if not text.strip():
            return []
        first, last = self.marks
        # Pieces are made as they are asked for: of a long text no more is read than fits.
        inside = islice(self._pieces(text), self.max_tokens - 2)
        return [self.rows[piece] for piece in (first, *inside, last)]

    def _pieces(self, text: str) -> Iterator[str]:
        for part in self._special.split(text):
            if part in self.special:
                yield part
                continue
            for group in _GROUP.finditer(part):
                for word in self._words(group[0]):
                    yield from self._cut(word)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return re.compile(f"({'|'.join(map(re.escape, self.special))})" if self.special else "(?!)")

    def _words(self, group: str) -> list[str]:
        """Words and punctuation marks of a run without white space."""
        kept = (one for one in group if one not in "\0\ufffd" and unicodedata.category(one) not in _DROPPED)
        text = "".join(f" {one} " if self.split_ideographs and _is_ideograph(one) else one for one in kept)
        if self.strip_accents:
            text = "".join(one for one in unicodedata.normalize("NFD", text) if unicodedata.category(one) != "Mn")
        if self.lower:
            text = "".join(map(str.lower, text))  # each by itself: Greek's final sigma would look at its neighbours
        return "".join(f" {one} " if _is_punctuation(one) else one for one in text).split()

    def _cut(self, word: str) -> list[str]:
        """The longest piece that begins the word, then the longest that goes on; unknown where none does."""
        cut: list[str] = []
        start = 0
        while start < len(word) <= _LONGEST:
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.rows), None)
            if end is None:
                return [self.unknown]
            cut.append(prefix + word[start:end])
            start = end
        return cut or [self.unknown]


def _is_ideograph(one: str) -> bool:
    return one >= "\u3400" and any(low <= ord(one) <= high for low, high in _IDEOGRAPHS)


def _is_punctuation(one: str) -> bool:
    return one in string.punctuation or unicodedata.category(one).startswith("P")
