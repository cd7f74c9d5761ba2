"""What encoder.json says to those who read texts with an exported encoder; docs/encoders.md has an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from fedrec.errors import EncoderError
from fedrec.model.pack_format import Reader, Shape
from fedrec.strict import counted, parsed, read, within

KIND: Literal["fedrec text encoder"] = "fedrec text encoder"
FORMAT: Literal[1] = 1

GRAPH, VOCABULARY = "encoder.onnx", "vocab.txt"
IDS, POOLED = "ids", "pooled"  # names in the graph: (1, token) int64 → (1, width) float32 of length 1


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Text → ids. "wordpiece": BERT's, its pieces the lines of vocab.txt; "hashed": CRC-32 of words, of tests."""

    kind: Literal["wordpiece", "hashed"]
    size: Annotated[int, within(2)]
    max_tokens: Annotated[int, within(3)]
    lower: bool = True
    strip_accents: bool = True
    split_ideographs: bool = True
    unknown: str = "[UNK]"
    marks: tuple[str, str] = ("[CLS]", "[SEP]")
    special: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Factor:
    """An input of the graph that is a tensor of the pack: B of one LoRA pair, the same for every text."""

    input: str
    parameter: str
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Lora:
    """LoRA inside the graph: A is part of it, drawn with the plan's `seed`; B comes with each pack."""

    seed: int
    factors: Annotated[tuple[Factor, ...], counted(1)]


@dataclass(frozen=True, kw_only=True)
class PortableInfo:
    """An exported encoder. `encoder` is what packs say that their vectors were made with."""

    kind: Literal["fedrec text encoder"]
    format: Literal[1]
    encoder: Reader
    precision: Literal["int8", "float32"]
    tokens: Tokens
    lora: Lora | None = None

    @classmethod
    def of(cls, content: bytes) -> Self:
        """What the bytes of an encoder.json say."""
        try:
            return read(cls, parsed(content))
        except ValueError as error:
            remedy, reason = "Fetch the encoder again, or upgrade fedrec here.", str(error)
            raise EncoderError("an exported encoder can be read", remedy=remedy, reason=reason) from None
