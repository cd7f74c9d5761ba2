"""Makes the golden vectors: `python client/golden/make.py`. README.md says what they are for."""

from __future__ import annotations

import json
import os
import shutil
import string
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel, BertTokenizerFast

from fedrec.embed.reader import PackReader, portable
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


def main() -> None:
    """Write pack, encoder and golden.json beside this file."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # the plan names the encoder's folder as it is seen from here, and no path of this machine
        save_encoder(Path("golden-encoder"))
        packs = Path("packs")
        save_pack(packs / "pack")
        equip(packs / "pack", precision="float32")
        for name in ("pack", "encoders"):
            shutil.rmtree(HERE / name, ignore_errors=True)
            shutil.copytree(packs / name, HERE / name)
    pack = read_pack(HERE / "pack", None)
    (HERE / "golden.json").write_text(json.dumps(answers(pack), indent=1, ensure_ascii=True) + "\n")


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


def save_pack(folder: Path) -> None:
    """An unsigned pack with LoRA, whose parameters are drawn and not trained."""
    model = {"encoder": "folder:golden-encoder", "adapter": "lora", "rank": 2, "dim": 6}
    catalogue = Catalogue([f"item-{row}" for row in range(len(ITEMS))], ITEMS, tags=[("made up",)] * len(ITEMS))
    task = Task(Plan.of({"name": "golden", "clients": 10, "model": model}), catalogue)
    away = stream(0, "golden", "shared").normal(0.0, 0.3, task.model.layout.size)
    write_pack(folder, task, (task.model.initial + away).astype(np.float32), statements(None, simulated=True))


def answers(pack: Pack) -> dict[str, object]:
    """For each text its ids, its pooled vector, its vector among the items, and the ranking after searching for it."""
    encoder = portable(pack, HERE / "encoders" / pack.reader)
    reader = PackReader(pack, encoder.encode)
    cases = [
        {
            "text": text,
            "ids": encoder.ids(text),
            "pooled": reader.pooled([text])[0].round(6).tolist(),
            "vector": (vector := reader.vectors([text])[0]).round(6).tolist(),
            "ranking": ranking(pack, vector),
        }
        for text in TEXTS
    ]
    return {"encoder": pack.reader, "tolerance": 1e-4, "cases": cases}


def ranking(pack: Pack, vector: NDArray[np.float32]) -> list[list[object]]:
    """[item, score], best first, for a history whose only event is one search: every context is its unit vector."""
    length = np.linalg.norm(vector)
    context = vector / length if length else vector
    contexts = np.tile(context, (len(pack.info.ranking.decays), 1))
    scores = pack.scores(contexts, np.zeros_like(vector))
    return [[pack.catalogue.ids[row], round(float(scores[row]), 5)] for row in np.argsort(-scores, kind="stable")]


if __name__ == "__main__":
    main()
