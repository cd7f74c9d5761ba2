"""What a pack may have besides its model: a sentiment head, and a portable text encoder beside it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import save

from fedrec.errors import DataError
from fedrec.files import write_atomic
from fedrec.model.encoder_files import place_encoder
from fedrec.model.listed import listed
from fedrec.model.pack_files import Floats, read_manifest, verify_pack
from fedrec.model.pack_format import MANIFEST, SENTIMENT, PackInfo, manifest_of


def add_sentiment(folder: Path, weights: Floats) -> PackInfo:
    """Give the unsigned pack in `folder` a sentiment head: (width + 1,) weights, the intercept last."""
    _check_unsigned(folder)
    content = save({"weights": weights})
    write_atomic(folder / SENTIMENT, content)
    about = json.loads((folder / MANIFEST).read_bytes())
    return _rewritten(folder, about | {"files": about["files"] | {SENTIMENT: listed(content)}})


def add_encoder(folder: Path, encoder: Path) -> PackInfo:
    """Name the exported `encoder` in the unsigned pack in `folder`, and copy it into `encoders/` beside that."""
    _check_unsigned(folder)
    digest = place_encoder(folder.parent, encoder)
    return _rewritten(folder, json.loads((folder / MANIFEST).read_bytes()) | {"text": {"encoder": digest}})


def _check_unsigned(folder: Path) -> None:
    info = read_manifest(folder, None)
    if info.signer:
        remedy = "Publish it anew with what it lacks."
        raise DataError("a signed pack stays as it is", remedy=remedy, version=info.version)


def _rewritten(folder: Path, about: dict[str, object]) -> PackInfo:
    write_atomic(folder / MANIFEST, manifest_of(about))
    return verify_pack(folder, None)
