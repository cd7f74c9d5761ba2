"""`fedrec export`: the text encoder of a pack, for devices without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PackArgument = Annotated[Path, typer.Argument(help="The folder of a pack, such as RUN/pack.")]
OutOption = Annotated[
    Path | None,
    typer.Option(help="Write the encoder here, such as SITE/encoder; else beside the pack, which names it."),
]
WholeOption = Annotated[bool, typer.Option("--float32", help="Four times the bytes, and the vectors of torch.")]


def export(pack: PackArgument, out: OutOption = None, whole: WholeOption = False) -> None:  # noqa: FBT002
    """Export the text encoder that a pack's searches and reviews are read with on a device: ONNX, int8."""
    from fedrec.model.equip import equip, export_for
    from fedrec.model.onnx_export import Precision

    precision: Precision = "float32" if whole else "int8"
    made = export_for(pack, out, precision=precision) if out else equip(pack, precision=precision)
    where = out or pack.parent / "encoders" / made.digest
    typer.echo(f"{made.size / 1e6:.1f} MB in {where}\n{made.digest}")
