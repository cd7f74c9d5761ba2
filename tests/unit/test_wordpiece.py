"""WordPiece, worked by hand over a vocabulary of a few pieces."""

import pytest

from fedrec.embed.wordpiece import WordPiece

PIECES = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "light", "##house", "##s", "l", "##ight", "cafe", "!",
    "'", "北", "σ", "##σ",
)  # fmt: skip


def words(**settings):
    return WordPiece(pieces=PIECES, max_tokens=settings.pop("max_tokens", 16), **settings)


def cut(text, **settings):
    """The pieces between the marks."""
    first, *inside, last = words(**settings).ids(text)
    assert (PIECES[first], PIECES[last]) == ("[CLS]", "[SEP]")
    return [PIECES[row] for row in inside]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("the lighthouses", ["the", "light", "##house", "##s"]),  # the longest piece first, not "l", "##ight"
        ("The LIGHT!!", ["the", "light", "!", "!"]),
        ("café cafe\u0301", ["cafe", "cafe"]),
        ("lightx the", ["[UNK]", "the"]),  # a word is known as a whole or not at all
        ("the北light", ["the", "北", "light"]),
        ("the\x1clight the\u00a0light", ["[UNK]", "the", "light"]),  # a control character vanishes, a space divides
        ("lig\x0cht l\x0bight l\x85ight", ["light", "light", "light"]),
        ("the\u200blight", ["[UNK]"]),
        ("Σσς", ["[UNK]"]),
        ("ΣΣ", ["σ", "##σ"]),  # no final sigma
        ("the[SEP]light", ["the", "[SEP]", "light"]),
        ("[sep]", ["[UNK]", "[UNK]", "[UNK]"]),
        ("\ud800the\0", ["the"]),
    ],
)
def test_pieces(text, pieces):
    assert cut(text) == pieces


def test_settings_of_a_cased_vocabulary():
    assert cut("the café", lower=False, strip_accents=False) == ["the", "[UNK]"]
    assert cut("The", lower=False) == ["[UNK]"]
    assert cut("the北", split_ideographs=False) == ["[UNK]"]


def test_long_words_and_long_texts():
    assert cut("light" + "s" * 95) == ["light", *["##s"] * 13]  # 100 characters are cut, and then what fits stays
    assert cut("light" + "s" * 96) == ["[UNK]"]
    assert len(words(max_tokens=5).ids("the " * 9)) == 5


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", "\u00a0\x1c"])
def test_a_blank_text_has_no_ids(blank):
    assert words().ids(blank) == []


def test_of_a_long_text_no_more_is_read_than_fits():
    read = []

    class Watched(WordPiece):
        def _words(self, group):
            read.append(group)
            return super()._words(group)

    Watched(pieces=PIECES, max_tokens=6).ids("the " * 10_000)
    assert len(read) <= 6


def test_a_repr_holds_no_vocabulary():
    assert "light" not in repr(words())
