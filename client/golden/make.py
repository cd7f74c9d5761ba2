"""Makes the golden vectors: `python client/golden/make.py`. README.md says what they are for."""

from __future__ import annotations

import json
import os
import shutil
import string
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel, BertTokenizerFast

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.embed.ranker import Ranker, Standing
from fedrec.embed.reader import PackReader, portable
from fedrec.embed.taste import Taste
from fedrec.model.catalogue import Catalogue
from fedrec.model.equip import equip
from fedrec.model.pack import write_pack
from fedrec.model.pack_files import Pack, read_pack
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.spec import Plan
from fedrec.task import Task

HERE = Path(__file__).parent

# Each for one rule of the tokenizer: case, accents, marks, punctuation, ideographs, control characters, white space,
# unknown and long words, pieces that a text spells, sigma at the end of a word, length; and texts without words.
TEXTS = (
    "a lighthouse at sea", "Bread & Roses (2001)", "NAÏVE café, Ὀδυσσεύς", "e\u0301tude in İstanbul", "don't stop!",
    "北京 cooks", "zero\u200bwidth\x1cand\x0cfeed\u00a0wide", "🚀 rockets", "x" * 101, "half [SEP] time [MASK]",
    "straße\tund\nweg", "the sea " * 40, "\u200b", "   ", "",
)  # fmt: skip
ITEMS = (
    "A lighthouse keeper learns to sail", "Bread for slow mornings", "The clockmaker's last winter",
    "Rockets over Istanbul", "Seven cooks in Beijing", "A café by the sea", "Roses, and how to stop them",
    "Twelve naïve etudes", "Half a time machine", "The wide street home",
)  # fmt: skip


# Each for one rule of ranking: nobody, kinds and weights of events, texts alone and beside an item, what says nothing.
HISTORIES: tuple[tuple[dict[str, str | float], ...], ...] = (
    (),
    ({"kind": "click", "item": "item-3"},),
    ({"kind": "search", "text": "\u200b"}, {"kind": "search", "text": "the sea"}),
    ({"kind": "click", "item": "item-3", "weight": 0.0}, {"kind": "view", "item": "not there"}),
    ({"kind": "click", "item": "item-3", "weight": 0.0}, {"kind": "view", "item": "item-6"}),
    ({"kind": "like", "item": "item-1", "weight": 2.0}, {"kind": "skip", "item": "item-5"}),
    ({"kind": "rate", "item": "item-8", "rating": 0.25}, {"kind": "review", "item": "item-0", "text": "bread, light"}),
    tuple({"kind": "click", "item": f"item-{row * 7 % 10}"} for row in range(40)),
)  # fmt: skip


def main() -> None:
    """Write packs, encoder and golden.json beside this file."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # the plan names the encoder's folder as it is seen from here, and no path of this machine
        save_encoder(Path("golden-encoder"))
        packs = Path("packs")
        shares = stream(0, "golden", "popularity").dirichlet(np.ones(len(ITEMS))).astype(np.float32)
        for name, beside in (("pack", None), ("popular", {"popularity": shares})):
            save_pack(packs / name, beside)
            equip(packs / name, precision="float32")
        for name in ("pack", "popular", "encoders"):
            shutil.rmtree(HERE / name, ignore_errors=True)
            shutil.copytree(packs / name, HERE / name)
    said = answers(*(read_pack(HERE / name, None) for name in ("pack", "popular")))
    (HERE / "golden.json").write_text(json.dumps(said, indent=1, ensure_ascii=True) + "\n")


def save_encoder(folder: Path) -> None:
    """A BERT of two blocks with made-up weights, and pieces enough for the texts above."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces()))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(pieces()), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    for name, parameter in model.named_parameters():
        drawn = stream(0, "golden", name).normal(0.0, 0.5, tuple(parameter.shape)).astype(np.float32)
        parameter.data = torch.from_numpy(drawn + np.float32("LayerNorm.weight" in name))
    model.save_pretrained(folder)


def pieces() -> list[str]:
    """Five marks, all letters, digits and punctuation alone and inside words, and some longer pieces."""
    letters = string.ascii_lowercase + string.digits + "οδυσευς北京"
    longer = ["the", "sea", "light", "##house", "bread", "cafe", "naive", "rock", "##ets", "##or", "thir", "##teen"]
    alone = [*letters, *string.punctuation, *longer]
    inside = [f"##{letter}" for letter in letters]
    return list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *alone, *inside]))


def save_pack(folder: Path, beside: Mapping[str, NDArray[np.float32]] | None) -> None:
    """An unsigned pack with LoRA, whose parameters are drawn and not trained; `beside` is what it has besides."""
    model = {"encoder": "folder:golden-encoder", "adapter": "lora", "rank": 2, "dim": 6}
    catalogue = Catalogue([f"item-{row}" for row in range(len(ITEMS))], ITEMS, tags=[("made up",)] * len(ITEMS))
    task = Task(Plan.of({"name": "golden", "clients": 10, "model": model}), catalogue)
    away = stream(0, "golden", "shared").normal(0.0, 0.3, task.model.layout.size)
    write_pack(
        folder, task, (task.model.initial + away).astype(np.float32), statements(None, simulated=True), beside=beside
    )


def answers(pack: Pack, popular: Pack) -> dict[str, object]:
    """For each text what reading it gives, and the ranking after searching for it; and the rankings after histories."""
    encoder = portable(pack, HERE / "encoders" / pack.reader)
    reader = PackReader(pack, encoder.encode)
    cases = [
        {
            "text": text,
            "ids": encoder.ids(text),
            "pooled": reader.pooled([text])[0].round(6).tolist(),
            "vector": reader.vectors([text])[0].round(6).tolist(),
            "ranking": ranking(pack, reader, [{"kind": "search", "text": text}]),
        }
        for text in TEXTS
    ]
    histories = [
        {"events": events, "ranking": ranking(pack, reader, events), "popular": ranking(popular, reader, events)}
        for events in HISTORIES
    ]
    return {"encoder": pack.reader, "tolerance": 1e-4, "cases": cases, "histories": histories}


def ranking(pack: Pack, reader: PackReader, events: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    """[item, score], best first, of all items after `events`; one that is about nothing is none."""
    taste = Taste(pack, reader)
    for number, event in enumerate(events, 1):
        about = dict(event) | {"kind": Kind[event["kind"].upper()], "time": number}
        if event.get("item") or event.get("text", "").strip():
            taste.add(number, Act(**about))
    scores = Ranker(pack).exact(Standing.bare(taste), np.arange(len(pack.catalogue)))
    return [[pack.catalogue.ids[row], round(float(scores[row]), 5)] for row in np.argsort(-scores, kind="stable")]


if __name__ == "__main__":
    main()
