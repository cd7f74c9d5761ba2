"""Small packs for tests, a site that publishes them, and what a device fetches from it."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedrec.errors import WireError
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder_files import ENCODER
from fedrec.model.listed import listed
from fedrec.model.pack import write_pack
from fedrec.model.pack_format import CATALOGUE, FILES, MANIFEST, PARQUET, SIGNATURE, manifest_of
from fedrec.model.publish import publish, published_file
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.spec import Plan
from fedrec.task import Task

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
FORMAT_1 = Path(__file__).parent / "packs" / "format1"  # each was written by the last code that wrote its format
FORMAT_2 = Path(__file__).parent / "packs" / "format2"
OLD_FILES = tuple(PARQUET if name == CATALOGUE else name for name in FILES)  # of both
ALL = (MANIFEST, SIGNATURE, *FILES)

TEXTS = ("A lighthouse keeper learns to sail", "Bread for slow mornings", "The clockmaker's last winter")


@cache
def task(maps="full", lean=False):
    """Six items with one dense feature; `lean` is a model without projection, residuals and popularity."""
    features = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    catalogue = Catalogue([f"book-{n}" for n in range(6)], [*TEXTS, *TEXTS[::-1]], features, [("sea", "slow")] * 6)
    whole = {"projection": not lean, "residuals": not lean, "popularity": not lean}
    model = {"encoder": "hash", "dim": 3, "rank": 1, "decays": [0.0, 0.9], "maps": maps, **whole}
    return Task(Plan.of({"clients": 10, "model": model}), catalogue)


def build(folder, seed=0, of=None, beside=None):
    """An unsigned pack, different for each seed."""
    made = of or task()
    away = stream(seed, "shared").normal(0.0, 0.3, made.model.layout.size)
    shared = (made.model.initial + away).astype(np.float32)
    write_pack(folder, made, shared, statements(None, simulated=True), round=3, beside=beside)


@cache
def _built(place, seed):
    build(place / str(seed), seed)
    return place / str(seed)


def published(packs, seeds, key=KEY, keep=3, encoder=None):
    """Publish one version for each seed; gives the last one's number."""
    built = [_built(packs.parent / ".built", seed) for seed in seeds]
    copies = [lambda folder, of=of: shutil.copytree(of, folder, dirs_exist_ok=True) for of in built]
    return [publish(packs, copy, key, keep=keep, encoder=encoder) for copy in copies][-1]


def encoder(folder, seed=0, **changes):
    """An exported text encoder, different for each seed: packs carry it and look at its list, not at what it does."""
    folder.mkdir(parents=True)
    draw = stream(seed, "encoder")
    held = {"encoder.onnx": draw.bytes(5000), "vocab.txt": b"[PAD]\n[UNK]\nsea\n"}
    for name, content in held.items():
        (folder / name).write_bytes(content)
    about = {"files": {name: listed(content) for name, content in held.items()}, "tokens": 64} | changes
    (folder / ENCODER).write_text(json.dumps(about))
    return folder


def fetch_of(packs, size=1 << 12, asked=None):
    """A device's way to what is published, in pieces of `size`; `asked` is told every name."""

    def fetch(name):
        if asked is not None:
            asked.append(name)
        path = published_file(packs, name)
        if path is None:
            raise WireError("the site has this file", file=name)
        content = path.read_bytes()
        yield from (content[start : start + size] for start in range(0, len(content), size))

    return fetch


def claim(folder, key=KEY, **changes):
    """What a site with a bug, or with bad intentions, signs: the manifest as it is now, with `changes`."""
    about = json.loads((folder / MANIFEST).read_bytes()) | changes
    for name in about["files"]:
        about["files"][name] = listed((folder / name).read_bytes())
    manifest = manifest_of(about)
    (folder / MANIFEST).write_bytes(manifest)
    (folder / SIGNATURE).write_bytes(key.sign(manifest))


def contents(folder):
    """Every file of a folder by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
