"""An exported transformer on the device: texts → its vectors, by onnxruntime on one core. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.wordpiece import WordPiece
from fedrec.errors import EncoderError, RunError
from fedrec.model.encoder_files import EncoderInfo
from fedrec.model.hashing import hashed_ids
from fedrec.model.portable import GRAPH, IDS, VOCABULARY, PortableInfo

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PortableEncoder:
    """The encoder in a folder. `factors` are the inputs of its graph besides the ids, if it has LoRA inside.

    Opening is free: files are read, and checked against `files`, at the first text.
    """

    folder: Path
    info: PortableInfo
    files: EncoderInfo = field(repr=False)
    factors: Mapping[str, Floats] = field(repr=False)

    def encode(self, texts: Sequence[str]) -> Floats:
        """(text, width) vectors of length 1; a text without words gives the zero vector."""
        vectors = np.zeros((len(texts), self.info.encoder.dim), np.float32)
        for row, text in enumerate(texts):
            ids = self.ids(text)
            if ids:
                # One by one: int8 scales activations by the batch, and a text's vector must not depend on others.
                (found,) = self._session.run(None, {IDS: np.array([ids], np.int64), **self.factors})
                vectors[row] = found[0]
        return vectors

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, none for one without words."""
        tokens = self.info.tokens
        if tokens.kind == "hashed":
            return hashed_ids(text, tokens.size)[: tokens.max_tokens]
        return self._words.ids(text)

    @cached_property
    def _words(self) -> WordPiece:
        pieces = self._content(VOCABULARY).decode().removesuffix("\n").split("\n")
        rule = self.info.tokens
        return WordPiece(
            pieces=pieces, max_tokens=rule.max_tokens, lower=rule.lower, strip_accents=rule.strip_accents,
            split_ideographs=rule.split_ideographs, unknown=rule.unknown, marks=rule.marks, special=rule.special,
        )  # fmt: skip

    @cached_property
    def _session(self) -> InferenceSession:
        try:
            from onnxruntime import InferenceSession, SessionOptions
        except ImportError:
            remedy = 'pip install "fedrec[text]"'
            raise RunError("a transformer reads texts with onnxruntime", remedy=remedy) from None
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # quicker than two for a text of this length
        options.log_severity_level = 3
        graph = self._content(GRAPH)
        try:
            return InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes have no common base but this; the graph is as it was published
            remedy, reason = 'pip install --upgrade "fedrec[text]"', type(error).__name__
            raise EncoderError("onnxruntime runs the encoder", remedy=remedy, reason=reason) from None

    def _content(self, name: str) -> bytes:
        remedy = "Fetch the encoder again, or bring it back from a copy."
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            rule = "an encoder's files are there"
            raise EncoderError(rule, remedy=remedy, file=name, reason=error.strerror) from None
        listed = self.files.files.get(name)
        if listed is None or hashlib.sha256(content).hexdigest() != listed.sha256:
            raise EncoderError("a file has the hash that encoder.json names", remedy=remedy, file=name)
        return content
