"""A published model version: shared parameters, item vectors, catalogue, statement, and a card to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from fedrec.files import write_atomic
from fedrec.model.catalogue_lines import to_lines
from fedrec.model.listed import listed
from fedrec.model.pack_format import (
    CARD,
    CATALOGUE,
    EXTRAS,
    FILES,
    FORMAT,
    ITEMS,
    KIND,
    MANIFEST,
    MODEL,
    PARQUET,
    POPULARITY,
    SENTIMENT,
    SIGNATURE,
    STATEMENTS,
    manifest_of,
)
from fedrec.privacy.statement import Statement, written
from fedrec.task import Task

_BESIDE = {"popularity": (POPULARITY, "popularity"), "sentiment": (SENTIMENT, "weights")}


def write_pack(  # noqa: PLR0913  (what of which task, promised how; the rest may be left out)
    folder: Path, task: Task, shared: NDArray[np.float32], claims: Sequence[Statement], *, round: int | None = None,
    beside: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:  # fmt: skip
    """Write an unsigned pack of `shared` as it is after `round` rounds; docs/packs.md has the files.

    Tensors have the names of the model's layout; `items.safetensors` holds what a device ranks with:
    `vectors` (item, dim) and `prior` (item,), and with what it places a free text: `centre` (width,)
    and `projection` (width + feature, dim). `beside` is what the task's
    warm start released beside the model. Nothing in a pack comes from a device except through
    the releases that `privacy.json` states.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    model = task.model
    with torch.no_grad():
        parameters = model.layout.views(torch.from_numpy(shared.copy()))
        items = {"vectors": model.item_vectors(parameters).numpy(), "prior": model.prior(parameters).numpy()}
        items |= {"centre": model.centre.numpy(), "projection": parameters.get("projection", model.axes).numpy()}
    named = {name: np.ascontiguousarray(value.numpy()) for name, value in parameters.items()}
    about = _about(task) | {"round": round}
    write_atomic(folder / MODEL, save(named, metadata={"task": task.hash}))
    write_atomic(folder / ITEMS, save({n: np.ascontiguousarray(v) for n, v in items.items()}))
    for name, (file, tensor) in _BESIDE.items():
        if beside and name in beside:
            write_atomic(folder / file, save({tensor: np.ascontiguousarray(beside[name])}))
    write_atomic(folder / CATALOGUE, to_lines(task.catalogue))
    write_atomic(folder / STATEMENTS, written(claims).encode())
    write_atomic(folder / CARD, _card(about, claims).encode())
    # The manifest comes last: a folder that has one is complete.
    write_atomic(folder / MANIFEST, manifest_of(about | {"files": _listed(folder)}))


def _clear(folder: Path) -> None:
    # An older pack loses its manifest first: a crash must not leave it beside newer tensors.
    for name in (MANIFEST, SIGNATURE, PARQUET, *EXTRAS):
        (folder / name).unlink(missing_ok=True)
    for name in (*FILES, *EXTRAS, MANIFEST):
        for torn in folder.glob(f".{name}.*"):  # of a writer that was killed: no reader would take the pack
            torn.unlink()


def _about(task: Task) -> dict[str, Any]:
    spec, encoder = task.plan.model, task.model.adapter.encoder
    return {
        "kind": KIND,
        "format": FORMAT,
        "version": 0,
        "round": None,
        "published": "",
        "signer": "",
        "task": task.hash,
        "plan": json.loads(task.plan.model_dump_json()),
        "catalogue": {"items": len(task.catalogue), "hash": task.catalogue.hash},
        "encoder": {"name": encoder.name, "hash": encoder.hash, "dim": encoder.dim},
        "ranking": {"dim": spec.dim, "decays": list(spec.decays), "parameters": task.model.layout.size},
        "layout": task.model.layout.shapes,
    }


def _listed(folder: Path) -> dict[str, dict[str, str | int]]:
    extras = [name for name in EXTRAS if (folder / name).exists()]
    return {name: listed((folder / name).read_bytes()) for name in (*FILES, *extras)}


def _card(about: Mapping[str, Any], claims: Sequence[Statement]) -> str:
    shown = json.dumps({name: about[name] for name in ("catalogue", "encoder", "ranking")}, indent=2)
    promises = "\n\n".join(claim.text() for claim in claims)
    return f"""# A fedrec model pack

A shared item model and ranking layer for text-based recommendation, trained over federated clients.
`plan.toml` of the run is repeated in `pack.json`. A pack from a run on one machine is unsigned: its hashes tell damage
and not who made it. One that a site published has the site's signature in `pack.sig`.

## What is inside

```json
{shown}
```

Score of item i after a history: the sum of the learned maps of its decayed contexts, plus the
device's own embedding (which is not in this pack), times the item's vector, plus its prior. Where the pack says how
popular items are, a device that knows little of its person leans on that.

## Who is protected from whom

{promises}

## Limits

Trained on the behaviour of one population in one catalogue; it repeats that population's tastes and
popularity. Text vectors inherit the languages and the biases of the encoder.
"""
