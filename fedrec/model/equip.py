"""A pack's own text encoder, exported from the model that its plan describes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from fedrec.errors import EncoderError
from fedrec.model.adapter import build_adapter
from fedrec.model.encoder import open_encoder
from fedrec.model.encoder_files import EncoderInfo
from fedrec.model.onnx_export import Precision, export_encoder
from fedrec.model.pack_files import read_manifest
from fedrec.model.pack_parts import add_encoder
from fedrec.spec import Plan


def export_for(pack: Path, folder: Path, *, precision: Precision = "int8") -> EncoderInfo:
    """Write the text encoder that the pack in `pack` needs on a device into `folder`; see `export_encoder`.

    Raises `EncoderError` also where the plan's encoder is another one here than that of the pack.
    """
    info = read_manifest(pack, None)
    plan = Plan.model_validate_json(json.dumps(info.plan))
    spec = plan.model
    encoder = open_encoder(spec.encoder, precision=spec.precision)
    if encoder.hash != info.encoder.hash:
        remedy = "Restore the files of the encoder that the pack was made with."
        raise EncoderError(
            "the encoder is the pack's", remedy=remedy, named=info.encoder.hash[:12], found=encoder.hash[:12]
        )
    adapter = build_adapter(spec.adapter, encoder, rank=spec.rank, blocks=spec.blocks, seed=plan.seed)
    return export_encoder(adapter, folder, seed=plan.seed, precision=precision)


def equip(pack: Path, *, precision: Precision = "int8") -> EncoderInfo:
    """Put the encoder of an unsigned pack beside it, as encoders/DIGEST, and make the pack name it.

    That is how an app brings both along. A signed pack names the encoder that its site published it with.
    """
    if read_manifest(pack, None).signer:
        remedy = "Export into a folder (--out), and publish the next version with it."
        raise EncoderError("what a site signed is not changed", remedy=remedy)
    with tempfile.TemporaryDirectory() as scratch:
        files = export_for(pack, Path(scratch) / "encoder", precision=precision)
        add_encoder(pack, Path(scratch) / "encoder")
    return files
