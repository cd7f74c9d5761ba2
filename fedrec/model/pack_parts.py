"""What a pack may have beside it: a portable text encoder."""

from __future__ import annotations

import json
from pathlib import Path

from fedrec.errors import DataError
from fedrec.files import write_atomic
from fedrec.model.encoder_files import place_encoder
from fedrec.model.pack_files import read_manifest, verify_pack
from fedrec.model.pack_format import MANIFEST, PackInfo, manifest_of


def add_encoder(folder: Path, encoder: Path) -> PackInfo:
    """Name the exported `encoder` in the unsigned pack in `folder`, and copy it into `encoders/` beside that."""
    info = read_manifest(folder, None)
    if info.signer:
        remedy = "Publish it anew with what it lacks."
        raise DataError("a signed pack stays as it is", remedy=remedy, version=info.version)
    digest = place_encoder(folder.parent, encoder)
    about = json.loads((folder / MANIFEST).read_bytes()) | {"text": {"encoder": digest}}
    write_atomic(folder / MANIFEST, manifest_of(about))
    return verify_pack(folder, None)
