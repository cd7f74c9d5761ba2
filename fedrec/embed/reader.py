"""Texts of a person → vectors among the items of a pack. Numpy alone, and onnxruntime where a transformer reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.encoder import PortableEncoder
from fedrec.errors import EncoderError
from fedrec.model.encoder_files import ENCODER, EncoderInfo
from fedrec.model.hashing import HashEncoder
from fedrec.model.listed import bounded
from fedrec.model.pack_files import Pack
from fedrec.model.pack_format import ADAPTER, MANIFEST_MOST
from fedrec.model.portable import Lora, PortableInfo

Floats = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Floats]

_SHORTEST = 1e-6  # of a text's way from the centre, as in fedrec.model.ranking
_OWN = "Give the encoder that was exported for this pack."
_DOWN, _UP = f"{ADAPTER}body.down", f"{ADAPTER}body.up"


class Reader(Protocol):
    """What a device reads its person's texts with. A text's row depends on that text alone; nothing is remembered."""

    def vectors(self, texts: Sequence[str]) -> Floats:
        """(text, dim) in the space of `Pack.vectors`; a text without words gives the zero vector."""

    def frozen(self, texts: Sequence[str]) -> Floats:
        """(text, width) vectors of length 1, as no training moved them; a text without words gives the zero vector."""


@dataclass(frozen=True, eq=False)
class PackReader:
    """A `Reader` over the tensors of a pack.

    `encode` gives what the encoder makes of texts, (text, width) of length 1. Where the pack's LoRA is part of it,
    `without` gives the same without LoRA.
    """

    pack: Pack
    encode: Encode
    without: Encode | None = None

    def vectors(self, texts: Sequence[str]) -> Floats:
        """See `Reader.vectors`."""
        pooled = self.pooled(texts)
        away = pooled - self.pack.centre
        length = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), _SHORTEST)
        length[~pooled.any(axis=1)] = np.inf  # no words, no direction: not that of the centre either
        vectors: Floats = (away @ self.pack.projection[: pooled.shape[1]]) / length
        return vectors

    def frozen(self, texts: Sequence[str]) -> Floats:
        """See `Reader.frozen`."""
        return (self.without or self.encode)(texts)

    def pooled(self, texts: Sequence[str]) -> Floats:
        """(text, width) adapted vectors, before centre and projection; a text without words gives the zero vector."""
        pooled, parameters = self.encode(texts), self.pack.parameters
        if _DOWN not in parameters:
            return pooled
        bent = _gelu(pooled @ parameters[_DOWN].T)
        moved: Floats = bent @ parameters[_UP].T / np.float32(math.sqrt(len(parameters[_DOWN])))
        return pooled + moved


def open_reader(pack: Pack, encoder: Path | None) -> Reader:
    """The reader of a pack; `encoder` is the folder of its exported encoder, which packs over `hash` do not need.

    A transformer is loaded at the first text, and runs on one core. Raises `EncoderError` where the encoder is missing
    or not the pack's; reading raises `RunError` where onnxruntime is not installed.
    """
    hashing = HashEncoder(pack.info.encoder.dim)
    if hashing.hash == pack.info.encoder.hash:
        _factors(pack, None)
        return PackReader(pack, hashing.encode)
    if encoder is None:
        remedy = "Publish packs with their encoder (fedrec export), and fetch it with the pack."
        raise EncoderError("texts are read with the pack's own encoder", remedy=remedy, encoder=pack.info.encoder.name)
    opened = portable(pack, encoder)
    if not opened.factors:
        return PackReader(pack, opened.encode)
    still = {name: np.zeros_like(factor) for name, factor in opened.factors.items()}
    return PackReader(pack, opened.encode, replace(opened, factors=still).encode)


def portable(pack: Pack, folder: Path) -> PortableEncoder:
    """The exported encoder in a folder, with what its graph needs of the pack. `EncoderError` if it is another's."""
    content = bounded(folder / ENCODER, MANIFEST_MOST)
    files, info = EncoderInfo.of(content), PortableInfo.of(content)
    _check(pack, files.digest, info)
    return PortableEncoder(folder, info, files, _factors(pack, info.lora))


def _check(pack: Pack, digest: str, info: PortableInfo) -> None:
    promised, found = pack.info.encoder, info.encoder
    named = pack.reader in ("", digest) and (found.hash, found.dim) == (promised.hash, promised.dim)
    # A of LoRA is drawn with the seed: after another A, the pack's B means nothing.
    seeded = info.lora is None or info.lora.seed == pack.info.plan.get("seed")
    if not (named and seeded):
        raise EncoderError("texts are read with the pack's own encoder", remedy=_OWN, found=digest[:12])


def _factors(pack: Pack, lora: Lora | None) -> dict[str, Floats]:
    """What the graph takes besides ids: tensors of the pack, by the names of the graph's inputs."""
    adapter = {name: value for name, value in pack.parameters.items() if name.startswith(ADAPTER)}
    factors = lora.factors if lora else ()
    shapes = {factor.parameter: factor.shape for factor in factors}
    found = {name: value.shape for name, value in adapter.items()}
    if found != shapes and (lora or set(found) != {_DOWN, _UP}):
        raise EncoderError(
            "the encoder has the adapter of the pack", remedy=_OWN, odd=sorted(set(found) ^ set(shapes))[:3]
        )
    return {factor.input: adapter[factor.parameter] for factor in factors}


def _gelu(values: Floats) -> Floats:
    """x·Φ(x), exactly."""
    shares = [0.5 + 0.5 * math.erf(value / math.sqrt(2)) for value in values.flat]
    bent: Floats = values * np.array(shares, np.float32).reshape(values.shape)
    return bent
