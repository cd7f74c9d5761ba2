"""What a tokenizer says of itself, as the rule of an exported encoder; other tokenizers than BERT's are refused."""

import copy

import pytest

from fedrec.errors import EncoderError
from fedrec.model.vocabulary import _word_pieces

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SAID = {
    "normalizer": {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {"b": 5, "a": 4} | {mark: row for row, mark in enumerate(MARKS)},
    },
    "post_processor": {"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]},
    "added_tokens": [
        {"content": mark, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False} for mark in MARKS
    ],
}  # fmt: skip


def changed(path, value):
    said = copy.deepcopy(SAID)
    *way, last = path
    inner = said
    for step in way:
        inner = inner[step]
    inner[last] = value
    return said


def test_an_uncased_vocabulary():
    tokens, lines = _word_pieces(SAID, 64)
    assert lines == b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n"
    assert (tokens.kind, tokens.size, tokens.max_tokens) == ("wordpiece", 6, 64)
    assert (tokens.lower, tokens.strip_accents, tokens.split_ideographs) == (True, True, True)
    assert (tokens.unknown, tokens.marks, tokens.special) == ("[UNK]", ("[CLS]", "[SEP]"), tuple(MARKS))


@pytest.mark.parametrize(
    ("lower", "accents", "stripped"), [(False, None, False), (True, False, False), (False, True, True)]
)
def test_case_and_accents(lower, accents, stripped):
    said = changed(("normalizer", "lowercase"), lower)
    said["normalizer"]["strip_accents"] = accents
    tokens, _ = _word_pieces(said, 64)
    assert (tokens.lower, tokens.strip_accents) == (lower, stripped)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "type"), "BPE"),
        (("model", "continuing_subword_prefix"), ""),
        (("model", "max_input_chars_per_word"), 50),
        (("model", "vocab"), {"a": 0, "b": 2}),
        (("model", "vocab"), SAID["model"]["vocab"] | {"one\nhalf": 6}),
        (("normalizer",), {"type": "NFC"}),
        (("normalizer",), None),
        (("normalizer", "clean_text"), False),
        (("pre_tokenizer", "type"), "Metaspace"),
        (("post_processor", "single"), [{"Sequence": {"id": "A", "type_id": 0}}]),
        (("added_tokens", 0, "lstrip"), True),
        (("added_tokens", 0, "content"), "[NEW]"),
    ],
)
def test_other_tokenizers_are_refused(path, value):
    with pytest.raises(EncoderError, match="like BERT's"):
        _word_pieces(changed(path, value), 64)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(EncoderError, match="like BERT's"):
        _word_pieces({}, 64)
