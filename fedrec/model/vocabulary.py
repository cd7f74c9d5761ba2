"""How an encoder makes token ids of texts, in words and a list of pieces: all that another implementation needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrec.errors import EncoderError
from fedrec.model.portable import Tokens
from fedrec.model.transformer import TransformerEncoder


def tokens_of(encoder: TransformerEncoder) -> tuple[Tokens, bytes]:
    """The rule, and vocab.txt, one piece a line in the order of ids; b"" where words are hashed.

    Raises `EncoderError` where the tokenizer is not that of BERT.
    """
    if encoder.folder is None:
        size = int(encoder.trunk.model.config.vocab_size)
        return Tokens(kind="hashed", size=size, max_tokens=encoder.max_tokens), b""
    return _word_pieces(_said(encoder.folder), encoder.max_tokens)


def _said(folder: Path) -> dict[str, Any]:
    """A tokenizer in the words of the tokenizers package, {} where it has none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    said: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    return said


def _word_pieces(said: Mapping[str, Any], max_tokens: int) -> tuple[Tokens, bytes]:
    match said:
        case {
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": lower, "strip_accents": accents,
                           "handle_chinese_chars": ideographs},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": {"type": "WordPiece", "unk_token": unknown, "vocab": vocabulary,
                      "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
            "post_processor": {"type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": first}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": last}}]},
            "added_tokens": added,
        }:  # fmt: skip
            pieces = sorted(vocabulary, key=vocabulary.__getitem__)
            if _fits(pieces, vocabulary) and _stand_for_themselves(added, vocabulary):
                tokens = Tokens(
                    kind="wordpiece", size=len(pieces), max_tokens=max_tokens, lower=lower,
                    strip_accents=lower if accents is None else accents, split_ideographs=ideographs,
                    unknown=unknown, marks=(first, last), special=tuple(one["content"] for one in added),
                )  # fmt: skip
                return tokens, "".join(f"{piece}\n" for piece in pieces).encode()
    remedy = "Use an encoder of the BERT family with an uncased or cased WordPiece vocabulary."
    raise EncoderError("only WordPiece tokenizers like BERT's are exported", remedy=remedy)


def _fits(pieces: Sequence[str], vocabulary: Mapping[str, int]) -> bool:
    """Whether a list of lines can say it: ids count from 0, and no piece is a line and a half."""
    in_order = all(vocabulary[piece] == row for row, piece in enumerate(pieces))
    return in_order and not any("\n" in piece for piece in pieces)


def _stand_for_themselves(added: Sequence[Mapping[str, Any]], vocabulary: Mapping[str, int]) -> bool:
    bent = ("single_word", "lstrip", "rstrip", "normalized")
    return all(one["content"] in vocabulary and not any(one[name] for name in bent) for one in added)
