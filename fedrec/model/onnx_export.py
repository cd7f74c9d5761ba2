"""A text encoder for devices without torch: its graph in ONNX, its vocabulary, and a manifest that names both."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from fedrec.embed.encoder import PortableEncoder
from fedrec.errors import EncoderError, RunError
from fedrec.files import write_atomic
from fedrec.model.adapter import Adapter, TowerInputs
from fedrec.model.encoder_files import ENCODER, EncoderInfo
from fedrec.model.listed import listed
from fedrec.model.pack_format import ADAPTER, Reader
from fedrec.model.portable import FORMAT, GRAPH, IDS, KIND, POOLED, VOCABULARY, Factor, Lora, PortableInfo
from fedrec.model.transformer import TransformerEncoder
from fedrec.model.trunk import Trunk
from fedrec.model.vocabulary import tokens_of
from fedrec.randomness import stream

if TYPE_CHECKING:
    from onnx import ModelProto

Precision = Literal["int8", "float32"]

LEAST: Mapping[Precision, float] = {"int8": 0.98, "float32": 0.999}  # cosine with the vector that torch computes

_OPSET = 18  # onnxruntime reads it since 1.14, of 2023
_PROBES = ("space", "A quiet film about two sisters [genre: drama]", "The strings are great, but the case broke!")


def export_encoder(adapter: Adapter, folder: Path, *, seed: int, precision: Precision = "int8") -> EncoderInfo:
    """Write the frozen text tower of a model into `folder` as encoder.json and the files that it lists.

    What training changes stays outside: a bottleneck is applied to pooled vectors, B of LoRA is an input of the graph,
    so that later packs need no other encoder. `seed` is the plan's: A of LoRA, inside the graph, was drawn with it.
    Raises `EncoderError` where there is no transformer, where its tokenizer is not BERT's, or where its vectors in
    this precision are not those of torch; `RunError` where the extra `export` is not installed.
    """
    encoder = adapter.encoder
    if not isinstance(encoder, TransformerEncoder):
        remedy = "Devices need none for packs over it."
        raise EncoderError("an encoder without a transformer is not exported", remedy=remedy, encoder=encoder.name)
    tokens, vocabulary = tokens_of(encoder)
    info = PortableInfo(
        kind=KIND, format=FORMAT, precision=precision, tokens=tokens, lora=_lora(adapter, seed),
        encoder=Reader(name=encoder.name, hash=encoder.hash, dim=encoder.dim),
    )  # fmt: skip
    contents = {GRAPH: _graph(adapter, encoder.trunk, info)} | ({VOCABULARY: vocabulary} if vocabulary else {})
    with tempfile.TemporaryDirectory() as scratch:
        _check(adapter, Path(scratch), info, _write(Path(scratch), info, contents))
    return _write(folder, info, contents)


def _write(folder: Path, info: PortableInfo, contents: Mapping[str, bytes]) -> EncoderInfo:
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: listed(content) for name, content in contents.items()}
    about = json.dumps(asdict(info) | {"files": files}, indent=2).encode()
    for name, content in (*contents.items(), (ENCODER, about)):
        write_atomic(folder / name, content)
    return EncoderInfo.of(about)


def _check(adapter: Adapter, folder: Path, info: PortableInfo, files: EncoderInfo) -> None:
    """Refuse an encoder that reads a few sentences otherwise than torch does, LoRA after some training included."""
    trained = {
        name: stream(0, "probe", name).normal(0.0, 0.05, tuple(value.shape)).astype(np.float32)
        for name, value in adapter.trainable().items()
    }
    factors = {factor.input: trained[factor.parameter.removeprefix(ADAPTER)] for factor in _inputs(info)}
    found = PortableEncoder(folder, info, files, factors).encode(_PROBES)
    least = float(np.min((found * _expected(adapter, trained)).sum(axis=1)))
    if not least >= LEAST[info.precision]:
        remedy = "Export it in float32." if info.precision == "int8" else "Use an encoder of the BERT family."
        raise EncoderError("an exported encoder reads as the original does", remedy=remedy, cosine=round(least, 4))


def _expected(adapter: Adapter, trained: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    if not adapter.blocks:
        return adapter.encoder.encode(_PROBES)
    named = {name: torch.from_numpy(value) for name, value in trained.items()}
    with torch.no_grad():
        vectors: Tensor = functional_call(adapter, named, (adapter.prepare(_PROBES),))
    return vectors.numpy()


def _lora(adapter: Adapter, seed: int) -> Lora | None:
    if not adapter.blocks:
        return None
    factors = [
        Factor(input=f"factor_{place}", parameter=ADAPTER + name, shape=tuple(value.shape))
        for place, (name, value) in enumerate(adapter.trainable().items())
    ]
    return Lora(seed=seed, factors=tuple(factors))


def _inputs(info: PortableInfo) -> tuple[Factor, ...]:
    return info.lora.factors if info.lora else ()


class _Tower(nn.Module):
    """The tower for one text, hence without padding."""

    def __init__(self, adapter: Adapter, trunk: Trunk) -> None:
        super().__init__()
        self.adapter, self.trunk, self.names = adapter, trunk, list(adapter.trainable())

    def forward(self, ids: Tensor, factors: list[Tensor]) -> Tensor:
        """(1, token) ids → (1, width); `factors` are what LoRA trains, in the order of the adapter."""
        mask = torch.ones_like(ids, dtype=torch.bool)
        if not factors:
            vectors: Tensor = self.trunk(ids, mask)
            return vectors
        states = self.trunk.states(ids, mask, self.adapter.blocks)
        named = dict(zip(self.names, factors, strict=True))
        adapted: Tensor = functional_call(self.adapter, named, (TowerInputs(states, mask),))
        return adapted


def _graph(adapter: Adapter, trunk: Trunk, info: PortableInfo) -> bytes:
    tower, inputs = _Tower(adapter, trunk).train(False), _inputs(info)
    given = torch.ones(1, 7, dtype=torch.long), [torch.zeros(factor.shape) for factor in inputs]
    try:
        with _quiet():
            program = torch.onnx.export(
                tower, given, dynamo=True, opset_version=_OPSET, external_data=False, verbose=False,
                dynamic_shapes={"ids": {1: torch.export.Dim("tokens")}, "factors": [None for _ in inputs]},
                input_names=[IDS, *(factor.input for factor in inputs)], output_names=[POOLED],
            )  # fmt: skip
            assert program is not None  # it is where no file is asked for
            graph = program.model_proto
            return _plain(_quantised(graph) if info.precision == "int8" else graph)
    except ImportError as error:
        remedy = 'pip install "fedrec[export]"'
        raise RunError("an encoder is exported with onnx and onnxruntime", remedy=remedy, missing=error.name) from None


def _quantised(graph: ModelProto) -> ModelProto:
    """Weights in 7 bits, scaled by channel, and activations in 8, scaled by text.

    Products of 8 by 8 bits overflow on processors that add them in 16 (AVX2): a vector would depend on the machine.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch:
        ready, small = Path(scratch) / "ready.onnx", Path(scratch) / "small.onnx"
        quant_pre_process(graph, ready, skip_optimization=True, skip_symbolic_shape=True)
        quantize_dynamic(ready, small, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
        return onnx.load(small)


def _plain(graph: ModelProto) -> bytes:
    """Without the notes of exporters: they name files of this machine."""
    inside = graph.graph
    for noted in (graph, inside, *inside.node, *inside.input, *inside.output, *inside.value_info, *inside.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' advice to their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
