"""What bfloat16 costs and saves in the frozen encoder: `python simulations/benchmarks/precision.py`.

The table of docs/encoders.md#bfloat16. Seconds are processor time on one core, without opening the encoder.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.datasets import load
from fedrec.model.encoder import Precision, open_encoder

NEAREST = 10


def vectors(texts: list[str], precision: Precision) -> tuple[NDArray[np.float32], float]:
    """What MiniLM makes of texts, and the seconds it took."""
    encoder = open_encoder("minilm", precision=precision)
    encoder.encode(texts[:64])
    start = time.process_time()
    return encoder.encode(texts), time.process_time() - start


def nearest(found: NDArray[np.float32]) -> NDArray[np.int64]:
    """(text, NEAREST) the other texts most alike, by cosine."""
    likeness = found @ found.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, :NEAREST]


def row(name: str, texts: list[str]) -> str:
    """One line of the table."""
    (exact, slow), (rough, fast) = vectors(texts, "float32"), vectors(texts, "bfloat16")
    pairs = zip(nearest(exact), nearest(rough), strict=True)
    overlap = np.mean([len(np.intersect1d(one, other)) for one, other in pairs]) / NEAREST
    cosine = (exact * rough).sum(axis=1).min()
    difference = np.abs(exact - rough).max()
    return f"| {name} | {len(texts)} | {difference:.4f} | {cosine:.5f} | {overlap:.3f} | {slow:.1f} s | {fast:.1f} s |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movielens", type=Path, help="a folder with MovieLens-100K, for a second row")
    folder = parser.parse_args().movielens
    torch.set_num_threads(1)
    print("| texts | | largest difference | least cosine | top-10 in common | float32 | bfloat16 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(row("synthetic library", list(load("synthetic", None, {}).catalogue.texts)), flush=True)
    if folder:
        print(row("MovieLens-100K", list(load("movielens-100k", folder, {}).catalogue.texts)), flush=True)


if __name__ == "__main__":
    main()
