"""What an exported encoder weighs, how quickly it reads, and how near it stays: `texts.py MOVIELENS_FOLDER`.

The tables of docs/encoders.md, "On a device". Milliseconds are processor time of one core, for one text.
`--gate` fails unless int8 is smaller than 25 MB and finds nine in ten of what float32 finds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.datasets import load
from fedrec.embed.encoder import PortableEncoder
from fedrec.embed.reader import PackReader, portable
from fedrec.model.equip import export_for
from fedrec.model.onnx_export import Precision
from fedrec.model.pack import write_pack
from fedrec.model.pack_files import Pack, read_pack
from fedrec.model.pack_format import ADAPTER
from fedrec.model.ranking import Model
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.spec import Plan
from fedrec.task import Task

Floats = NDArray[np.float32]

NEAREST = 10
MOST_MB, LEAST_OVERLAP = 25.0, 0.9


def milliseconds(call: Callable[[], object], times: int) -> tuple[float, float]:
    """Median and 99th percentile of processor time."""
    taken = []
    for _ in range(times):
        start = time.thread_time()
        call()
        taken.append(1e3 * (time.thread_time() - start))
    return float(np.median(taken)), float(np.quantile(taken, 0.99))


def nearest(found: Floats, among: Floats) -> NDArray[np.int64]:
    """(text, NEAREST) the other texts of `among` most alike."""
    likeness = found @ among.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, :NEAREST]


def ranked(pack: Pack, vectors: Floats) -> NDArray[np.int64]:
    """(text, NEAREST) items that a person with that one search is given."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    decays, none = len(pack.info.ranking.decays), np.zeros(vectors.shape[1], np.float32)
    scores = [pack.scores(np.tile(context, (decays, 1)), none) for context in vectors / lengths]
    return np.argsort(-np.stack(scores), axis=1, kind="stable")[:, :NEAREST]


def overlap(some: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """Share of the ones that are among the others."""
    return float(np.mean([len(np.intersect1d(one, other)) for one, other in zip(some, others, strict=True)]) / NEAREST)


def speed(encoder: PortableEncoder) -> str:
    """Opening, and reading 16 and 64 tokens."""
    opening, _ = milliseconds(lambda: encoder.encode(["first"]), 1)
    cells = [f"{opening:.0f}"]
    for count in (16, 64):
        fed = {"ids": stream(0, "tokens", count).integers(1000, 20_000, (1, count)), **encoder.factors}
        median, high = milliseconds(partial(encoder._session.run, None, fed), 200)
        cells.append(f"{median:.1f} ({high:.1f})")
    return " | ".join(cells)


def trained(model: Model) -> tuple[Floats, Floats]:
    """A shared vector whose text tower is not at its start any more, and what torch makes of the catalogue with it."""
    shared = model.initial.copy()
    parameters = model.layout.views(torch.from_numpy(shared))
    for name, value in parameters.items():
        if name.startswith(ADAPTER):
            value += torch.from_numpy(stream(0, name).normal(0.0, 0.02, tuple(value.shape)).astype(np.float32))
    with torch.no_grad():
        return shared, model.pooled(parameters, model.items.texts).numpy()


def measure(folder: Path, adapter: str, texts: Task) -> dict[Precision, tuple[float, float]]:
    """Print a row for each precision; the size in MB and the least overlap of each."""
    pack = folder / "pack"
    shared, exact = trained(texts.model)
    write_pack(pack, texts, shared, statements(None, simulated=True))
    said = read_pack(pack, None)
    found: dict[Precision, tuple[float, float]] = {}
    ranks: dict[Precision, NDArray[np.int64]] = {}
    precisions: tuple[Precision, ...] = ("float32", "int8")
    for precision in precisions:
        size = export_for(pack, folder / precision, precision=precision).size / 1e6
        encoder = portable(said, folder / precision)
        quick = speed(encoder)
        mine = encoder.encode(texts.catalogue.texts)
        ranks[precision] = ranked(said, PackReader(said, encoder.encode).vectors(texts.catalogue.texts))
        cosine = (mine * exact).sum(axis=1)
        alike = overlap(nearest(mine, exact), nearest(exact, exact)), overlap(ranks[precision], ranks["float32"])
        found[precision] = size, min(alike)
        print(
            f"| {adapter} | {precision} | {size:.1f} | {quick} | {cosine.mean():.4f} | {cosine.min():.4f} |"
            f" {alike[0]:.3f} | {alike[1]:.3f} |",
            flush=True,
        )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("movielens", type=Path, help="the folder of MovieLens-100K")
    parser.add_argument("--gate", action="store_true", help="fail where a figure misses its mark")
    given = parser.parse_args()
    torch.set_num_threads(1)
    catalogue = load("movielens-100k", given.movielens, {}).catalogue
    print("| adapter | | MB | first text, ms | 16 tokens, ms | 64 tokens, ms | mean cosine | least | alike | ranked |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    missed = []
    for adapter in ("none", "lora"):
        model = {"encoder": "minilm", "adapter": adapter, "rank": 4}
        with tempfile.TemporaryDirectory() as folder:
            size, least = measure(Path(folder), adapter, Task(Plan.of({"clients": 10, "model": model}), catalogue))[
                "int8"
            ]
        missed += [adapter] if size >= MOST_MB or least < LEAST_OVERLAP else []
    if given.gate and missed:
        sys.exit(f"int8 misses {MOST_MB:.0f} MB or an overlap of {LEAST_OVERLAP}: {missed}")


if __name__ == "__main__":
    main()
