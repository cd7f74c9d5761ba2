"""What encoder.json says to those who read texts with an exported encoder; docs/encoders.md has an example."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationError

from fedrec.errors import EncoderError
from fedrec.model.listed import Part
from fedrec.model.pack_format import Reader, Shape

KIND: Literal["fedrec text encoder"] = "fedrec text encoder"
FORMAT: Literal[1] = 1

GRAPH, VOCABULARY = "encoder.onnx", "vocab.txt"
IDS, POOLED = "ids", "pooled"  # names in the graph: (1, token) int64 → (1, width) float32 of length 1


class Tokens(Part):
    """Text → ids. "wordpiece": BERT's, its pieces the lines of vocab.txt; "hashed": CRC-32 of words, of tests."""

    kind: Literal["wordpiece", "hashed"]
    size: int = Field(ge=2)
    max_tokens: int = Field(ge=3)
    lower: bool = True
    strip_accents: bool = True
    split_ideographs: bool = True
    unknown: str = "[UNK]"
    marks: tuple[str, str] = ("[CLS]", "[SEP]")
    special: tuple[str, ...] = ()


class Factor(Part):
    """An input of the graph that is a tensor of the pack: B of one LoRA pair, the same for every text."""

    input: str
    parameter: str
    shape: Shape


class Lora(Part):
    """LoRA inside the graph: A is part of it, drawn with the plan's `seed`; B comes with each pack."""

    seed: int
    factors: tuple[Factor, ...] = Field(min_length=1)


class PortableInfo(Part):
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
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        remedy = "Fetch the encoder again, or upgrade fedrec here."
        raise EncoderError("an exported encoder can be read", remedy=remedy, reason=reason)
