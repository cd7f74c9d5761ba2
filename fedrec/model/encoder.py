"""Text → vectors, by a frozen encoder that is named, hashed and never trained.

`import fedrec.model.encoder` loads neither torch nor transformers; opening a transformer does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import EncoderError, require
from fedrec.model.hashing import HashEncoder

Precision = Literal["float32", "bfloat16"]

MAX_TOKENS = 64  # a title, its tags and the first sentences; docs/encoders.md has the cost of more


class Encoder(Protocol):
    """Text → vectors."""

    @property
    def name(self) -> str:
        """A label for people; it holds no path of this machine."""

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides a vector: weights, tokenizer, pooling, length limit; not library versions."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    def encode(self, texts: Sequence[str], *, public: bool = False) -> NDArray[np.float32]:
        """(text, dim) vectors of length 1; a text without words gives the zero vector.

        Only `public` texts may be kept on disk. A person's searches and reviews never are: the
        cache would remember what `forget` promised to erase.
        """


def open_encoder(
    name: str, *, cache: Path | None = None, max_tokens: int = MAX_TOKENS, precision: Precision = "float32",
    device: str = "cpu",
) -> Encoder:  # fmt: skip
    """The encoder called `name`; `cache` is a folder for what is computed from public texts.

    minilm        all-MiniLM-L6-v2, 384 wide, English, from the optional package; its bytes are verified
    tiny          a small BERT with made-up weights, 32 wide: the code paths of MiniLM, for tests
    hash          hashed words and their spelling, 256 wide: no weights, no torch
    folder:PATH   any Hugging Face model folder; folder:PATH@SHA256 also pins its weights
    hub:ID        any Hugging Face model; hub:ID@REVISION pins it. The only name that may use the network

    `precision` is that of the frozen transformer: bfloat16 moves every vector a little, so it is another encoder with
    another hash. `device` is cpu, cuda or cuda:N; it changes vectors by rounding and is not part of the hash.

    Raises `EncoderError` where the encoder is missing or is not the one promised, `SpecError` where the device is not.
    """
    require(max_tokens >= 3, "a text needs room for one token and two marks", max_tokens=max_tokens)
    if name == "hash":
        rule = "only an encoder with a transformer has a precision"
        require(precision == "float32", rule, remedy="Use float32, or minilm.", encoder=name, precision=precision)
        return HashEncoder()
    from fedrec.model import devices, transformer, trunk, weights

    match name.partition(":"):
        case ("tiny", "", ""):
            label, loaded = name, trunk.tiny(max_tokens=max_tokens)
        case ("minilm", "", ""):
            label, loaded = name, trunk.load(weights.minilm_folder(), max_tokens=max_tokens)
        case ("folder", ":", place) if place:
            folder = weights.pinned_folder(place)
            label, loaded = f"folder:{folder.name}", trunk.load(folder, max_tokens=max_tokens)
        case ("hub", ":", place) if place:
            label, loaded = name, trunk.load(weights.snapshot(place), max_tokens=max_tokens)
        case _:
            remedy = "Use minilm, tiny, hash, folder:PATH[@SHA256] or hub:ID[@REVISION]."
            raise EncoderError("no encoder has this name", remedy=remedy, name=name)
    where = devices.usable_device(device)
    return transformer.TransformerEncoder(label, loaded, cache=cache, precision=precision, device=where)
